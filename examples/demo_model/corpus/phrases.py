"""Compiles patterns with the shared macros, and asks one of them on the wanted side of the split."""

import re
from collections.abc import Collection, Iterable, Sequence
from functools import cache
from random import Random
from typing import Any

from .exchange import TRIES
from .grammar import Pattern, pick
from .lexicon import load, tables
from .split import is_unseen, is_wording_held_out, normalised
from .typing_noise import typed


@cache
def _macro() -> re.Pattern[str]:
    """`$name` of any macro, the longest name first, since a word may follow without a space."""
    return re.compile(rf"\$({'|'.join(sorted(load('macros'), key=len, reverse=True))})")


def compile_patterns(sources: Iterable[str]) -> tuple[Pattern, ...]:
    """The patterns of `sources`, with `$name` replaced by the macro of that name."""
    macros = load("macros")
    return tuple(Pattern(_macro().sub(lambda found: macros[found[1]], source)) for source in sources)


@cache
def ways(name: str) -> tuple[Pattern, ...]:
    """The patterns under the dotted `name` in `data/wordings.toml`."""
    found: Any = load("wordings")
    for key in name.split("."):
        found = found[key]
    return compile_patterns(found)


def wording(
    rng: Random,
    patterns: Sequence[Pattern],
    held_out: bool,
    slots: dict[str, str],
    *,
    everything: bool = False,
) -> str | None:
    """A question before typing noise, whose wording is on the wanted side; None if none was found.

    `slots` fixes slot values and receives those that were drawn for the question returned. With `everything`
    all wordings are on the training side.
    """
    if everything and held_out:
        return None
    for _ in range(TRIES):
        drawn = dict(slots)
        text = pick(rng, patterns).expand(rng, tables(), drawn)
        if (everything or is_wording_held_out(text) == held_out) and not is_unseen(text):
            slots.update(drawn)
            return text
    return None


def phrase(rng: Random, patterns: Sequence[Pattern], **slots: str) -> str:
    """One sentence from one of `patterns`."""
    return pick(rng, patterns).expand(rng, tables(), slots)


def typed_for_training(
    text: str, rng: Random, *, keep: Collection[str] = (), keep_case: bool = False, loose: bool = False
) -> str:
    """`text` as somebody types it, never turned by a typo into a question that is held out."""
    noisy = typed(text, rng, keep=keep, keep_case=keep_case, loose=loose)
    changed = normalised(noisy) != normalised(text)
    return text if changed and (is_wording_held_out(noisy) or is_unseen(noisy)) else noisy
