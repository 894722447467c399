"""The driver, which volunteers that hold a head run: blocks and heads, sessions over a swarm, generation.

Beside it the command line, a client of the relay's API (corolla/cli/).
"""
