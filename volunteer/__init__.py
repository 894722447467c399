"""The node: joins a swarm, serves a span of a model's blocks, and drives replies where it holds a head."""
