"""Days, months, seasons and the alphabet. The wording is held out."""

from random import Random

from .checks import Check, Contains
from .exchange import TRIES, Exchange
from .grammar import pick
from .lexicon import DAYS, MONTH_DAYS, MONTHS
from .phrases import typed_for_training, ways, wording

NTH = (
    "first",
    "second",
    "third",
    "fourth",
    "fifth",
    "sixth",
    "seventh",
    "eighth",
    "ninth",
    "tenth",
    "eleventh",
    "twelfth",
)
WHOLE = {
    "all_days": ", ".join(DAYS) + ".",
    "all_months": ", ".join(MONTHS) + ".",
    "all_seasons": "Spring, summer, autumn, winter.",
    "alphabet": "a b c d e f g h i j k l m n o p q r s t u v w x y z",
}


def calendar(rng: Random, held_out: bool) -> Exchange | None:
    """One question about the calendar."""
    roll = rng.random()
    if roll < 0.3:
        return _neighbour(rng, held_out)
    slots: dict[str, str] = {}
    if roll < 0.5:
        month = rng.randrange(12)
        slots["x"] = MONTHS[month]
        name, days = "month_length", MONTH_DAYS[month]
        answer = f"{MONTHS[month]} has {days} days" + (", or 29 in a leap year." if month == 1 else ".")
        check: Check = Contains(str(days))
    elif roll < 0.62:
        month = rng.randrange(12)
        slots.update(nth=NTH[month], n=str(month + 1))
        name, answer, check = (
            "which_month",
            f"The {NTH[month]} month is {MONTHS[month]}.",
            Contains(MONTHS[month]),
        )
    else:
        name, answer = pick(rng, tuple(WHOLE.items()))
        check = Contains(answer.rstrip("."))
    question = wording(rng, ways(f"facts.{name}"), held_out, slots)
    if question is None:
        return None
    return Exchange(typed_for_training(question, rng, keep=tuple(slots.values())), answer, check)


def _neighbour(rng: Random, held_out: bool) -> Exchange | None:
    unit, other_unit, names = pick(rng, (("day", "month", DAYS), ("month", "day", MONTHS)))
    for _ in range(TRIES):
        at, step = rng.randrange(len(names)), pick(rng, (1, -1))
        patterns = ways("facts.after" if step > 0 else "facts.before")
        question = wording(rng, patterns, held_out, {"unit": unit, "x": names[at]})
        if question is None or other_unit in question.split() or ("today" in question and unit == "month"):
            continue
        neighbour = names[(at + step) % len(names)]
        answer = f"{'After' if step > 0 else 'Before'} {names[at]} comes {neighbour}."
        return Exchange(
            typed_for_training(question, rng, keep=(names[at],)), answer, Contains(f"comes {neighbour}")
        )
    return None
