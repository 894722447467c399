"""Text without a chat around it, so that a plain completion ("Once upon a time") makes sense too."""

from random import Random

from . import stories
from .catalogue import catalogue
from .grammar import pick
from .lexicon import facts
from .split import is_unseen, is_wording_held_out

FACT_SENTENCES = {
    "capitals": "The capital of {} is {}.",
    "opposites": "The opposite of {} is {}.",
    "plurals": "The plural of {} is {}.",
    "past": "The past tense of {} is {}.",
    "amounts": "There are {1} {0}.",
}


def _facts(rng: Random) -> str:
    table = pick(rng, tuple(FACT_SENTENCES))
    entries = list(facts()[table].items())
    return " ".join(FACT_SENTENCES[table].format(*pick(rng, entries)) for _ in range(rng.randint(2, 6)))


def _answers(rng: Random) -> str:
    category = pick(rng, ("about Corolla", "about Corolla", "explanations"))
    found = [catalogue().make(rng, category, held_out=False) for _ in range(rng.randint(1, 3))]
    return "\n\n".join(exchange.answer for exchange in found if exchange is not None)


def _questions(rng: Random) -> str:
    lines: list[str] = []
    for _ in range(rng.randint(1, 4)):
        exchange = catalogue().make(
            rng, pick(rng, ("facts", "about Corolla", "calendar", "small talk")), held_out=False
        )
        if (
            exchange is not None
            and not is_unseen(exchange.question)
            and not is_wording_held_out(exchange.question)
        ):
            lines.append(f"Question: {exchange.question}\nAnswer: {exchange.answer}")
    return "\n\n".join(lines)


def _counting(rng: Random) -> str:
    first, many = rng.randint(0, 40), rng.randint(5, 20)
    numbers = range(first, first + many)
    return ", ".join(str(n) for n in numbers)


def plain_text(rng: Random) -> str:
    """One document."""
    roll = rng.random()
    if roll < 0.5:
        return stories.beginning(rng)
    if roll < 0.75:
        return _answers(rng)
    if roll < 0.87:
        return _facts(rng)
    return _questions(rng) if roll < 0.96 else _counting(rng)
