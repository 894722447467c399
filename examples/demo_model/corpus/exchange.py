"""One question with its answer, and how a maker of them looks. The common currency of the generator."""

from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import TypeAlias

from .checks import Check


@dataclass(frozen=True, slots=True)
class Exchange:
    """A user's message, a fitting reply, and how another reply to it would be judged.

    `follow_ups` make a next exchange that only makes sense after this one ("and 5 more?").
    """

    question: str
    answer: str
    check: Check
    follow_ups: tuple["Maker", ...] = ()


Maker: TypeAlias = Callable[[Random, bool], "Exchange | None"]
"""`make(rng, held_out)`: an exchange of the training side (False) or of the score's side (True); None if
it found none.
"""

TRIES = 200
"""How often a maker draws before it gives up finding something on the wanted side of the split."""
