"""The Python client: a swarm's blocks, sessions and generation. Hosts the driver that volunteers run too."""
