"""The command line for scripts and terminals: `corolla`, or `python -m corolla`. docs/cli.md describes it.

It asks a relay over HTTP, as any client of its API does, and knows nothing else of a swarm: no torch, no
WebSocket, no blocks. Whatever a model, a volunteer or a relay has said is hostile input to a terminal.
"""
