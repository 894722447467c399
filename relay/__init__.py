"""The server: authenticates, plans and signs routes, forwards frames, serves REST and pages. No torch."""
