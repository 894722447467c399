"""Questions about one number or two: bigger, even or odd, double, half, square, before and after.

The numbers are what is held out.
"""

from collections.abc import Callable
from random import Random

from .arithmetic import shown_number
from .checks import Check, Contains, Number
from .exchange import TRIES, Exchange
from .grammar import pick
from .lexicon import in_words
from .phrases import phrase, typed_for_training, ways
from .split import are_operands_held_out


def _compared(rng: Random, x: int, y: int) -> tuple[str, str, Check]:
    """Question, answer and check for two different numbers."""
    high, low = max(x, y), min(x, y)
    slots = {"x": shown_number(rng, x), "y": shown_number(rng, y)}
    roll = rng.random()
    if roll < 0.35:
        answer = pick(rng, (f"{high} is bigger than {low}.", f"{high} is bigger."))
        return phrase(rng, ways("arithmetic.bigger"), **slots), answer, Contains(f"{high} is bigger")
    if roll < 0.6:
        answer = pick(rng, (f"{low} is smaller than {high}.", f"{low} is smaller."))
        return phrase(rng, ways("arithmetic.smaller"), **slots), answer, Contains(f"{low} is smaller")
    asked_bigger = roll < 0.85
    question = phrase(rng, ways("arithmetic.is_bigger" if asked_bigger else "arithmetic.is_smaller"), **slots)
    word = "bigger" if asked_bigger else "smaller"
    if (x > y) == asked_bigger:
        return question, f"Yes, {x} is {word} than {y}.", Contains(f"Yes, {x} is {word}")
    other = "smaller" if asked_bigger else "bigger"
    return question, f"No, {x} is {other} than {y}.", Contains(f"No, {x} is {other}")


def compare(rng: Random, held_out: bool) -> Exchange | None:
    """Which of two numbers is bigger or smaller."""
    for _ in range(TRIES):
        top = pick(rng, (20, 100, 100, 1000))
        x, y = rng.randint(0, top), rng.randint(0, top)
        if x != y and are_operands_held_out("compare", min(x, y), max(x, y)) == held_out:
            question, answer, check = _compared(rng, x, y)
            keep = tuple(in_words(n) for n in (x, y) if n <= 100)
            return Exchange(typed_for_training(question, rng, keep=keep), answer, check)
    return None


def _single(rng: Random, x: int) -> tuple[str, str, Check]:
    """Question, answer and check for one number."""
    shown = shown_number(rng, x)
    even = x % 2 == 0

    def parity() -> tuple[str, str, Check]:
        question = phrase(rng, ways("arithmetic.even" if rng.random() < 0.75 else "arithmetic.odd"), x=shown)
        answer = f"{x} is an even number." if even else f"{x} is an odd number."
        return question, answer, Contains(answer[:-1])

    def double() -> tuple[str, str, Check]:
        return phrase(rng, ways("arithmetic.double"), x=shown), f"Double {x} is {2 * x}.", Number(2 * x, (x,))

    def half() -> tuple[str, str, Check]:
        return (
            phrase(rng, ways("arithmetic.half"), x=shown),
            f"Half of {x} is {x // 2}.",
            Number(x // 2, (x,)),
        )

    def after() -> tuple[str, str, Check]:
        return phrase(rng, ways("arithmetic.next"), x=shown), f"After {x} comes {x + 1}.", Number(x + 1, (x,))

    def before() -> tuple[str, str, Check]:
        return (
            phrase(rng, ways("arithmetic.before"), x=shown),
            f"Before {x} comes {x - 1}.",
            Number(x - 1, (x,)),
        )

    def square() -> tuple[str, str, Check]:
        return (
            phrase(rng, ways("arithmetic.square"), x=str(x)),
            f"{x} \u00d7 {x} = {x * x}.",
            Number(x * x, (x,)),
        )

    makers: tuple[Callable[[], tuple[str, str, Check]], ...] = (
        parity,
        parity,
        double,
        after,
        before,
        *([half] * even),
        *([square] * (x <= 20)),
    )
    return pick(rng, makers)()


def single(rng: Random, held_out: bool) -> Exchange | None:
    """Even or odd, double, half, the number after or before."""
    for _ in range(TRIES):
        x = rng.randint(1, 100 if rng.random() < 0.7 else 400)
        if are_operands_held_out("single", x) == held_out:
            question, answer, check = _single(rng, x)
            return Exchange(
                typed_for_training(question, rng, keep=(in_words(x) if x <= 100 else "",)), answer, check
            )
    return None
