"""Small sums: plus, minus, times, divided by, three in a row, and sums told as a little story.

Exact answers from -100 to about 1000; larger numbers are declined. Operand pairs are split, whatever the
wording, except for the times table up to 12, which has to be learnt by heart: there the wording is held out.
"""

from random import Random

from .checks import Number, Says
from .exchange import TRIES, Exchange, Maker
from .grammar import pick
from .lexicon import in_words
from .phrases import phrase, typed_for_training, ways, wording
from .split import are_operands_held_out

SIGNS = {"plus": "+", "minus": "-", "times": "\u00d7", "over": "/"}
THINGS = [
    "apples",
    "pears",
    "oranges",
    "books",
    "pens",
    "coins",
    "balls",
    "stones",
    "shells",
    "cookies",
    "cakes",
    "eggs",
    "flowers",
    "stamps",
    "cards",
    "toys",
    "marbles",
    "tickets",
]


def _pair(rng: Random, kind: str) -> tuple[int, int, int]:
    """Operands and result for one operation, mostly within 100."""
    top = 10 if rng.random() < 0.2 else 100 if rng.random() < 0.75 else 999
    if kind == "plus":
        x = rng.randint(0, top)
        y = rng.randint(0, top if rng.random() < 0.6 else max(1, top - x) if top > x else top)
        return x, y, x + y
    if kind == "minus":
        x, y = rng.randint(0, top), rng.randint(0, top)
        if x < y and rng.random() < (0.85 if top <= 100 else 1.0):
            x, y = y, x
        return x, y, x - y
    if kind == "times":
        x, y = (
            (rng.randint(0, 12), rng.randint(0, 12))
            if rng.random() < 0.6
            else (rng.randint(2, 99), rng.randint(2, 10))
        )
        return (x, y, x * y) if rng.random() < 0.5 else (y, x, x * y)
    y, z = rng.randint(1, 12), rng.randint(0 if rng.random() < 0.2 else 1, 12)
    return y * z, y, z


def _by_heart(kind: str, x: int, y: int) -> bool:
    return kind == "over" or (kind == "times" and x <= 12 and y <= 12)


def is_sum_held_out(kind: str, x: int, y: int) -> bool:
    """Whether this pair is only for the score. A sum and its mirror image are one pair."""
    low, high = sorted((x, y)) if kind in ("plus", "times") else (x, y)
    return not _by_heart(kind, x, y) and are_operands_held_out(kind, low, high)


def _answer(rng: Random, kind: str, x: int, y: int, z: int) -> str:
    patterns = ways("arithmetic.sum_answers" if rng.random() < 0.88 else "arithmetic.sum_short_answers")
    return phrase(rng, patterns, x=str(x), op=SIGNS[kind], y=str(y), z=str(z))


def shown_number(rng: Random, number: int) -> str:
    """`number` in digits, or now and then in words."""
    return in_words(number) if 0 <= number <= 100 and rng.random() < 0.14 else str(number)


def sums(kind: str) -> Maker:
    """A maker of one operation: "plus", "minus", "times" or "over"."""
    patterns = ways(f"arithmetic.{kind}")

    def make(rng: Random, held_out: bool) -> Exchange | None:
        for _ in range(TRIES):
            x, y, z = _pair(rng, kind)
            by_heart = _by_heart(kind, x, y)
            if not by_heart and is_sum_held_out(kind, x, y) != held_out:
                continue
            slots = {"x": shown_number(rng, x), "y": shown_number(rng, y)}
            question: str | None = phrase(rng, patterns, **slots)
            if by_heart:
                question = wording(rng, patterns, held_out, slots)
            if question is not None:
                return _sum(rng, question, (kind, x, y, z))
        return None

    return make


def _sum(rng: Random, question: str, parts: tuple[str, int, int, int]) -> Exchange:
    kind, x, y, z = parts
    answer = _answer(rng, kind, x, y, z)
    follow = (_carry_on("plus", z), _carry_on("minus", z), _carry_on("plus", z), _another(kind))
    words = (in_words(x) if 0 <= x <= 100 else "", in_words(y) if 0 <= y <= 100 else "")
    return Exchange(typed_for_training(question, rng, keep=words), answer, Number(z, (x, y)), follow)


def _carry_on(kind: str, before: int) -> Maker:
    """Asks "and 5 more?" after a sum whose result was `before`."""

    def make(rng: Random, held_out: bool) -> Exchange | None:
        if not 0 <= before <= 900:
            return None
        for _ in range(TRIES):
            y = rng.randint(1, 10 if rng.random() < 0.6 else 60)
            after = before + y if kind == "plus" else before - y
            if after < 0 or is_sum_held_out(kind, before, y) != held_out:
                continue
            question = phrase(
                rng, ways("arithmetic.more" if kind == "plus" else "arithmetic.less"), y=shown_number(rng, y)
            )
            answer = f"{before} {SIGNS[kind]} {y} = {after}."
            follow = (_carry_on("plus", after), _carry_on("minus", after))
            return Exchange(
                typed_for_training(question, rng, keep=(in_words(y),)),
                answer,
                Number(after, (before, y)),
                follow,
            )
        return None

    return make


def _another(kind: str) -> Maker:
    """Asks "and 3 + 4?" after a sum of the same kind."""

    def make(rng: Random, held_out: bool) -> Exchange | None:
        for _ in range(TRIES):
            x, y, z = _pair(rng, kind)
            if is_sum_held_out(kind, x, y) == held_out:
                sign = SIGNS[kind] if rng.random() < 0.7 or kind == "over" else kind
                question = phrase(rng, ways("arithmetic.what_about"), x=str(x), y=str(y), op=sign)
                return _sum(rng, question, (kind, x, y, z))
        return None

    return make


def too_big(rng: Random, held_out: bool) -> Exchange | None:
    """A sum that is out of reach, and is declined."""
    kind = pick(rng, ("plus", "minus", "times", "over"))
    patterns = ways(f"arithmetic.{kind}")
    for _ in range(TRIES):
        x, y = rng.randint(1000, 99999) * pick(rng, (1, 1, 137)), rng.randint(1000, 99999)
        if kind in ("times", "over") and rng.random() < 0.6:
            x, y = rng.randint(101, 9999), rng.randint(101, 9999)
        if are_operands_held_out("too big", x, y) == held_out:
            question = phrase(rng, patterns, x=str(x), y=str(y))
            return _declined(rng, question)
    return None


def beyond(rng: Random, held_out: bool) -> Exchange | None:
    """Percent, decimals, powers and roots: declined too."""
    for _ in range(TRIES):
        x, y = rng.randint(2, 99), rng.randint(2, 999)
        if are_operands_held_out("beyond", x, y) == held_out:
            slots = {"x": str(x), "y": str(y), "z": str(rng.randint(1, 9)), "z2": str(rng.randint(1, 99))}
            return _declined(rng, phrase(rng, ways("arithmetic.beyond"), **slots))
    return None


def _declined(rng: Random, question: str) -> Exchange:
    answer = phrase(rng, ways("arithmetic.too_big"))
    return Exchange(typed_for_training(question, rng), answer, Says(("small demonstration model",)))


def chain(rng: Random, held_out: bool) -> Exchange | None:
    """Three numbers added, one after the other."""
    for _ in range(TRIES):
        x, y, w = (rng.randint(0, pick(rng, (10, 10, 40))) for _ in range(3))
        if are_operands_held_out("chain", x, y, w) != held_out or (
            is_sum_held_out("plus", x, y) and not held_out
        ):
            continue
        question = phrase(rng, ways("arithmetic.chain"), x=str(x), y=str(y), w=str(w))
        answer = f"{x} + {y} = {x + y}, and {x + y} + {w} = {x + y + w}."
        return Exchange(typed_for_training(question, rng), answer, Number(x + y + w, (x, y, w, x + y)))
    return None


def told(rng: Random, held_out: bool) -> Exchange | None:
    """A sum told as a little story."""
    kind = pick(rng, ("plus", "minus"))
    for _ in range(TRIES):
        x, y = rng.randint(1, 60), rng.randint(1, 40)
        if kind == "minus" and x < y:
            x, y = y, x
        if is_sum_held_out(kind, x, y) != held_out:
            continue
        z = x + y if kind == "plus" else x - y
        things = pick(rng, THINGS)
        question = phrase(
            rng,
            ways(f"arithmetic.story_{kind}"),
            x=shown_number(rng, x),
            y=shown_number(rng, y),
            things=things,
        )
        ending = pick(
            rng, (f"So there are {z} {things}.", f"The answer is {z}.", f"That makes {z} {things}.")
        )
        answer = f"{x} {SIGNS[kind]} {y} = {z}. {ending}"
        keep = (in_words(x), in_words(y), things)
        return Exchange(typed_for_training(question, rng, keep=keep), answer, Number(z, (x, y)))
    return None
