"""Tasks on the letters of a word: spelling, turning around, counting letters, capitals.

The word is what is held out, whatever the task. Answers that need the letters write them down first, which is
what lets a small model get them right.
"""

from dataclasses import dataclass
from random import Random

from .checks import Check, Contains, Number
from .exchange import TRIES, Exchange, Maker
from .grammar import pick
from .lexicon import any_word
from .phrases import phrase, typed_for_training, ways
from .split import are_operands_held_out

CONTINUED = ("spell", "reverse", "upper", "length")


@dataclass(frozen=True, slots=True)
class Task:
    """One task on one word: the slots of its question, the answer and the check."""

    kind: str
    slots: dict[str, str]
    answer: str
    check: Check


def _dashed(word: str) -> str:
    return "-".join(word)


def _task(rng: Random, kind: str, word: str) -> Task:
    slots = {"w": word}
    if kind == "spell":
        shown = word.capitalize() if rng.random() < 0.15 else word
        return Task(kind, {"w": shown}, _dashed(shown), Contains(_dashed(shown)))
    if kind == "reverse":
        turned = word[::-1]
        answer = f"{_dashed(word)} backwards is {_dashed(turned)}: {turned}"
        return Task(kind, slots, answer, Contains(turned))
    if kind == "upper":
        return Task(kind, slots, word.upper(), Contains(word.upper()))
    if kind == "lower":
        shown = word.capitalize() if rng.random() < 0.3 else word.upper()
        return Task(kind, {"w": shown}, word, Contains(word))
    if kind == "length":
        return Task(kind, slots, f"{_dashed(word)}: {len(word)} letters.", Number(len(word)))
    if kind in ("first", "last"):
        letter = word[0] if kind == "first" else word[-1]
        return Task(kind, slots, f"The {kind} letter of {word} is {letter}.", Contains(f"is {letter}"))
    return _letter_task(rng, kind, word)


def _letter_task(rng: Random, kind: str, word: str) -> Task:
    letter = pick(rng, word) if rng.random() < 0.65 else pick(rng, "abcdefghijklmnoprstuvwy")
    slots, times = {"w": word, "c": letter}, word.count(letter)
    if kind == "has":
        said = (
            f"Yes, {word} has the letter {letter}."
            if times
            else f"No, {word} does not have the letter {letter}."
        )
        return Task(kind, slots, f"{_dashed(word)}: {said}", Contains(said.split(",")[0]))
    noun = "time" if times == 1 else "times"
    return Task(kind, slots, f"{_dashed(word)}: the letter {letter} appears {times} {noun}.", Number(times))


def letters(*kinds: str) -> Maker:
    """A maker of letter tasks of the given kinds."""

    def make(rng: Random, held_out: bool) -> Exchange | None:
        word = _word(rng, held_out)
        if word is None:
            return None
        task = _task(rng, pick(rng, kinds), word)
        return _asked(rng, task, phrase(rng, ways(f"words.{task.kind}"), **task.slots), word)

    return make


def _word(rng: Random, held_out: bool) -> str | None:
    for _ in range(TRIES):
        word = any_word(rng)
        if are_operands_held_out("word", word) == held_out:
            return word
    return None


def _asked(rng: Random, task: Task, question: str, word: str) -> Exchange:
    follow: tuple[Maker, ...] = (_next_word(task.kind),) if task.kind in CONTINUED else ()
    if task.kind == "spell":
        follow += (_turned(word),)
    text = typed_for_training(question, rng, keep=tuple(task.slots.values()), keep_case=True)
    return Exchange(text, task.answer, task.check, follow)


def _next_word(kind: str) -> Maker:
    """Asks "and banana?" after the same task on another word."""

    def make(rng: Random, held_out: bool) -> Exchange | None:
        word = _word(rng, held_out)
        if word is None:
            return None
        task = _task(rng, kind, word)
        return _asked(rng, task, phrase(rng, ways("words.and_now"), **task.slots), word)

    return make


def _turned(word: str) -> Maker:
    """Asks "and backwards?" after spelling `word`."""

    def make(rng: Random, held_out: bool) -> Exchange | None:
        if are_operands_held_out("word", word) != held_out:
            return None
        question = typed_for_training(phrase(rng, ways("words.now_backwards")), rng)
        return Exchange(question, _dashed(word[::-1]), Contains(_dashed(word[::-1])))

    return make
