"""How many lines may run at once: jobs take what people leave.

A head writes many replies at a time for little more than it takes for one (docs/benchmarks.md), so lines run
side by side; but each of them makes a person's reply slower, and nobody waits for a line. Every reply of a
person takes the places of several lines, so that with a few of them on each head no line is begun.
Pure. Does not know lines, heads or replicas.
"""

import math
from dataclasses import dataclass

PLACES_OF_A_REPLY = 4
"""Lines that are not begun for each reply that somebody reads."""


@dataclass(frozen=True, slots=True)
class Load:
    """How busy a model is."""

    heads: int
    """Volunteers that can write its replies; none while it is incomplete."""
    replies: int
    """That people wait for, through any replica; those of others are as old as their leases."""
    workers: int = 1
    """Replicas that answer lines, this one included: they share the room."""


def most_lines(load: Load, per_head: int) -> int:
    """How many lines of a model this replica may have under way.

    `per_head`: lines that run on each head while nobody else asks; 0: none run here.
    """
    room = load.heads * per_head - load.replies * PLACES_OF_A_REPLY
    return max(0, math.ceil(room / load.workers))
