"""`python -m relay …`, one module for each command: its arguments and what it does."""
