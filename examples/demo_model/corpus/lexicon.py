"""The word tables, the facts and the made-up words that all makers draw from. Loaded once, never changed."""

import tomllib
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

from .grammar import Pattern, pick

DATA = Path(__file__).parent / "data"
KEYBOARD = "asdfghjklqwertyuiopzxcvbnm"

SMALL_NUMBERS = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen"
)
NUMBER_WORDS = (*SMALL_NUMBERS.split(), "sixteen", "seventeen", "eighteen", "nineteen")
TENS = ("", "", "twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
MONTHS = (
    "January", "February", "March", "April", "May", "June",
    "July", "August", "September", "October", "November", "December",
)  # fmt: skip
MONTH_DAYS = (31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)


@cache
def load(name: str) -> dict[str, Any]:
    """The parsed `data/<name>.toml`."""
    with (DATA / f"{name}.toml").open("rb") as file:
        return tomllib.load(file)


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.replace("\n", " ").split(",") if word.strip()]


@cache
def tables() -> Mapping[str, Sequence[str]]:
    """Every word table by its name, with the made-up ones `gibberish` and `pseudo` beside them."""
    rng = Random("corolla word tables")
    found: dict[str, Sequence[str]] = {name: _words(text) for name, text in load("words")["tables"].items()}
    found["pseudo"] = [pseudo_word(rng) for _ in range(4000)]
    found["gibberish"] = [_gibberish(rng) for _ in range(4000)]
    return found


@cache
def facts() -> dict[str, dict[str, str]]:
    """The fact tables (capitals, opposites, …): name -> question word -> answer word."""
    return {name: table for name, table in load("facts").items() if name != "translations"}


@cache
def translations() -> dict[str, dict[str, str]]:
    """Language -> English word -> word in that language."""
    return load("facts")["translations"]


@cache
def _pieces() -> dict[str, list[str]]:
    return {name: _words(text) for name, text in load("words")["pieces"].items()}


def pseudo_word(rng: Random) -> str:
    """A made-up word that looks English, 3 to about 10 letters."""
    pieces = _pieces()
    word = ""
    for _ in range(1 if rng.random() < 0.45 else 2):
        word += pick(rng, pieces["onset"]) + pick(rng, pieces["middle"])
    return word + (pick(rng, pieces["coda"]) if rng.random() < 0.85 else "")


def _gibberish(rng: Random) -> str:
    return "".join(pick(rng, KEYBOARD) for _ in range(3 + int(rng.random() * 9)))


@cache
def plain_words() -> tuple[str, ...]:
    """Every single lower-case word of the tables, once: what people ask to spell, sort or turn around."""
    skip = {"topic", "verb_phrase", "person_name", "gibberish", "pseudo"}
    found = {word for name, words in tables().items() if name not in skip for word in words}
    for table in facts().values():
        found.update(table)
    return tuple(
        sorted(
            word for word in found if word.isascii() and word.isalpha() and word.islower() and len(word) > 1
        )
    )


@cache
def categories() -> dict[str, str]:
    """Word table -> what one of its words is: "fruit" -> "fruit", "body" -> "part of the body"."""
    return load("words")["categories"]


@cache
def categorised_words() -> dict[str, str]:
    """Word -> its category; where two tables have a word, the smaller and so more exact one wins."""
    found: dict[str, str] = {}
    for table in sorted(categories(), key=lambda name: len(tables()[name])):
        for word in tables()[table]:
            found.setdefault(word, table)
    return found


@cache
def explained_words() -> frozenset[str]:
    """Every single word in the names of `explain.toml`, and Corolla's own words."""
    names = " ".join(name for concept in load("explain")["concept"] for name in concept["names"])
    return frozenset(names.lower().split()) | {intent.split("_")[0] for intent in load("about")}


def any_word(rng: Random) -> str:
    """A real word, or (one time in three) a made-up one."""
    return pseudo_word(rng) if rng.random() < 0.34 else pick(rng, plain_words())


def in_words(number: int) -> str:
    """`number` from 0 to 100 in English words."""
    if number < 20:
        return NUMBER_WORDS[number]
    if number == 100:
        return "one hundred"
    ten, one = divmod(number, 10)
    return TENS[ten] + (f"-{NUMBER_WORDS[one]}" if one else "")


def expand(pattern: Pattern, rng: Random, **slots: str) -> str:
    """One sentence of `pattern` with the word tables, and with `slots` fixed beforehand."""
    return pattern.expand(rng, tables(), slots)
