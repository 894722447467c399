"""Counting, sorting and looking through lists of numbers or words. The list or the range is held out."""

from random import Random

from .checks import Check, Contains, Number, Series
from .exchange import TRIES, Exchange, Maker
from .grammar import pick
from .lexicon import NUMBER_WORDS, any_word, in_words, plain_words
from .phrases import phrase, typed_for_training, ways
from .split import are_operands_held_out


def _joined(items: list[str], rng: Random) -> str:
    """A list as people type it."""
    roll = rng.random()
    if roll < 0.35:
        return ", ".join(items)
    if roll < 0.7:
        return " ".join(items)
    if roll < 0.85 and len(items) > 1:
        return ", ".join(items[:-1]) + " and " + items[-1]
    return pick(rng, (",", "; ", " , ", "\n")).join(items)


def _comma(numbers: list[int]) -> str:
    return ", ".join(str(number) for number in numbers)


def _shown(rng: Random, number: int) -> str:
    return in_words(number) if 0 <= number <= 100 and rng.random() < 0.3 else str(number)


def _range(rng: Random) -> tuple[str, list[int], dict[str, str]]:
    """A way of counting, the numbers, and the slots of its question."""
    kind = pick(rng, ("to", "to", "from", "down", "off", "by"))
    if kind == "to":
        top = rng.randint(2, 30) if rng.random() < 0.8 else rng.randint(31, 100)
        return kind, list(range(1, top + 1)), {"y": _shown(rng, top)}
    if kind == "by":
        step = pick(rng, (2, 2, 3, 4, 5, 5, 10, 10))
        times = rng.randint(3, 12)
        start = step if rng.random() < 0.6 else rng.randint(0, 10)
        names = {2: "two", 3: "three", 4: "four", 5: "five", 10: "ten"}
        numbers = [start + step * n for n in range(times)]
        return (
            kind,
            numbers,
            {"step": names[step], "step_number": str(step), "x": str(start), "y": str(numbers[-1])},
        )
    x = rng.randint(2, 90)
    y = x + rng.randint(2, 20)
    if kind == "from":
        return kind, list(range(x, y + 1)), {"x": _shown(rng, x), "y": _shown(rng, y)}
    if kind == "off":
        top = rng.randint(3, 30)
        return kind, list(range(top, 0, -1)), {"x": _shown(rng, top)}
    return kind, list(range(y, x - 1, -1)), {"x": _shown(rng, y), "y": _shown(rng, x)}


def count(rng: Random, held_out: bool) -> Exchange | None:
    """Counting up, down and in steps."""
    for _ in range(TRIES):
        kind, numbers, slots = _range(rng)
        if are_operands_held_out("count", numbers[0], numbers[-1], len(numbers)) != held_out:
            continue
        question = phrase(rng, ways(f"sequences.count_{kind}"), **slots)
        if kind == "by" and slots["x"] not in question.split() and slots["x"] != slots["step_number"]:
            continue
        return Exchange(
            typed_for_training(question, rng, keep=tuple(slots.values())),
            _comma(numbers),
            Series(tuple(numbers)),
            (_backwards(numbers), _onwards(numbers)),
        )
    return None


def _backwards(numbers: list[int]) -> Maker:
    turned = numbers[::-1]

    def make(rng: Random, held_out: bool) -> Exchange | None:
        if are_operands_held_out("count", numbers[0], numbers[-1], len(numbers)) != held_out:
            return None
        question = phrase(rng, ways("sequences.backwards"))
        return Exchange(typed_for_training(question, rng), _comma(turned), Series(tuple(turned)))

    return make


def _onwards(numbers: list[int]) -> Maker:
    def make(rng: Random, held_out: bool) -> Exchange | None:
        step = numbers[1] - numbers[0]
        more = [numbers[-1] + step * n for n in range(1, 6)]
        if min(more) < 0 or are_operands_held_out("count", numbers[0], numbers[-1], len(numbers)) != held_out:
            return None
        question = phrase(rng, ways("sequences.go_on"))
        return Exchange(
            typed_for_training(question, rng), _comma(more), Series(tuple(more)), (_onwards(more),)
        )

    return make


def _numbers(rng: Random, most: int) -> list[int]:
    top = pick(rng, (10, 20, 100, 100, 100, 1000))
    length = rng.randint(3, most)
    return [rng.randint(0, top) for _ in range(length)]


def sort_numbers(rng: Random, held_out: bool) -> Exchange | None:
    """Sorting 3 to 9 numbers, up or down."""
    for _ in range(TRIES):
        numbers = _numbers(rng, 7 if rng.random() < 0.8 else 9)
        if are_operands_held_out("sort", *sorted(numbers)) != held_out:
            continue
        down = rng.random() < 0.25
        ordered = sorted(numbers, reverse=down)
        patterns = ways("sequences.sort_down" if down else "sequences.sort")
        question = phrase(rng, patterns, list=_joined([str(n) for n in numbers], rng))
        answer = _comma(ordered)
        return Exchange(
            typed_for_training(question, rng), answer, Series(tuple(ordered)), (_backwards_sort(ordered),)
        )
    return None


def _backwards_sort(ordered: list[int]) -> Maker:
    turned = ordered[::-1]

    def make(rng: Random, held_out: bool) -> Exchange | None:
        if are_operands_held_out("sort", *sorted(ordered)) != held_out:
            return None
        question = phrase(rng, ways("sequences.backwards"))
        return Exchange(typed_for_training(question, rng), _comma(turned), Series(tuple(turned)))

    return make


def sort_words(rng: Random, held_out: bool) -> Exchange | None:
    """Sorting 3 to 6 words by the alphabet."""
    for _ in range(TRIES):
        many = rng.randint(3, 6)
        words = [any_word(rng) if rng.random() < 0.3 else pick(rng, plain_words()) for _ in range(many)]
        words = list(dict.fromkeys(words))
        if len(words) < 3 or are_operands_held_out("sort", *sorted(words)) != held_out:
            continue
        question = phrase(rng, ways("sequences.sort_words"), list=_joined(words, rng))
        answer = ", ".join(sorted(words))
        return Exchange(
            typed_for_training(question, rng, keep=words, keep_case=True), answer, Contains(answer)
        )
    return None


def look_through(rng: Random, held_out: bool) -> Exchange | None:
    """The largest or smallest of a list, how long it is, or what comes next."""
    for _ in range(TRIES):
        kind = pick(rng, ("largest", "smallest", "length", "next"))
        numbers = _numbers(rng, 7)
        if kind == "next":
            start, step = rng.randint(0, 30), pick(rng, (1, 1, 2, 2, 3, 5, 10, -1, -2))
            numbers = [start + step * n + (30 if step < 0 else 0) for n in range(rng.randint(3, 6))]
        if are_operands_held_out(kind, *sorted(numbers)) != held_out:
            continue
        listed = _joined([str(n) for n in numbers], rng)
        question, answer, check = _looked(rng, kind, numbers, listed)
        return Exchange(typed_for_training(question, rng), answer, check)
    return None


def _looked(rng: Random, kind: str, numbers: list[int], listed: str) -> tuple[str, str, Check]:
    if kind == "largest":
        value, answer = max(numbers), f"The largest number is {max(numbers)}."
    elif kind == "smallest":
        value, answer = min(numbers), f"The smallest number is {min(numbers)}."
    elif kind == "length":
        value, answer = len(numbers), f"There are {len(numbers)} numbers in the list."
    else:
        value = numbers[-1] + numbers[1] - numbers[0]
        answer = f"The next number is {value}."
    return phrase(rng, ways(f"sequences.{kind}"), list=listed), answer, Number(value)


def number_words(rng: Random, held_out: bool) -> Exchange | None:
    """42 in words, and "forty-two" in digits."""
    for _ in range(TRIES):
        number = rng.randint(0, 100)
        if are_operands_held_out("in words", number) != held_out:
            continue
        text = in_words(number)
        if rng.random() < 0.5:
            question = phrase(rng, ways("sequences.in_words"), x=str(number))
            return Exchange(
                typed_for_training(question, rng), f"{number} in words is {text}.", Contains(text)
            )
        question = phrase(
            rng, ways("sequences.in_digits"), x=text if rng.random() < 0.6 else text.replace("-", " ")
        )
        keep = (*NUMBER_WORDS, *text.split("-"))
        return Exchange(
            typed_for_training(question, rng, keep=keep), f"{text} is {number}.".capitalize(), Number(number)
        )
    return None
