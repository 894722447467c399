"""The questions of the score: the other side of the split, by category, with a check each. Deterministic."""

import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from random import Random

from .catalogue import catalogue
from .checks import Check, Says
from .conversation import Conversation, converse, draw_setting, named_answer
from .exchange import TRIES, Exchange
from .grammar import pick
from .intents import Unknown, read_intents
from .lexicon import tables
from .memory import Memory, ask_favourite, ask_name, tell_favourite, tell_name
from .phrases import phrase, ways
from .split import DATA, are_operands_held_out

SEED = "corolla held out 1"
FOLLOWED = (
    "about Corolla", "addition", "subtraction", "counting", "sorting numbers",
    "spelling", "facts", "lists", "stories", "poems",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Question:
    """One scored question: the chat up to and with the user's last message, and how the reply is judged."""

    category: str
    messages: tuple[dict[str, str], ...]
    check: Check
    fitting: str
    """A fitting answer, for the reader of a transcript."""


def _question(category: str, chat: Conversation) -> Question:
    *before, last = chat.messages()
    return Question(category, tuple(before), chat.exchanges[-1].check, last["content"])


def _lead(rng: Random) -> tuple[Exchange, ...]:
    """What was said before: nothing, for most questions."""
    return converse(rng).exchanges[-3:] if rng.random() < 0.25 else ()


def _single(category: str, rng: Random) -> Question | None:
    exchange = catalogue().make(rng, category, held_out=True)
    if exchange is None:
        return None
    system = draw_setting(rng).prompt if rng.random() < 0.3 else None
    if system is not None and not system.startswith("You are a"):
        system = None
    return _question(category, Conversation(system, (*_lead(rng), exchange)))


def _followed(category: str, rng: Random) -> Question | None:
    for _ in range(TRIES):
        first = catalogue().make(rng, pick(rng, FOLLOWED), held_out=True)
        if first is None or not first.follow_ups:
            continue
        second = pick(rng, first.follow_ups)(rng, True)
        if second is not None:
            return _question(category, Conversation(None, (*_lead(rng), first, second)))
    return None


def _remembered(category: str, rng: Random) -> Question | None:
    memory = Memory()
    tell, ask = pick(rng, ((tell_name, ask_name), (tell_favourite, ask_favourite)))
    told = tell(rng, True, memory)
    made = [catalogue().make(rng, category, held_out=False) for category in ("facts", "addition", "stories")]
    between = tuple(exchange for exchange in made if exchange is not None and rng.random() < 0.4)
    asked = ask(rng, False, memory)
    if told is None or asked is None or "not told" in asked.answer:
        return None
    return _question(category, Conversation(None, (told, *between, asked)))


def _named(category: str, rng: Random) -> Question | None:
    for _ in range(TRIES):
        name = pick(rng, tables()["pseudo"]).capitalize()
        exchange = named_answer(rng, False, name)
        if exchange is not None and are_operands_held_out("system name", name):
            return _question(
                category, Conversation(phrase(rng, ways("conversation.named"), n=name), (exchange,))
            )
    return None


def _unseen(category: str) -> Iterator[Question]:
    with (DATA / "unseen.toml").open("rb") as file:
        data = tomllib.load(file)
    must = {
        f"{file}.{intent.name}": intent.must
        for file in ("about", "identity", "smalltalk")
        for intent in read_intents(file)
    }
    must["unknown"] = Unknown.read().must
    for name, texts in data["intents"].items():
        for text in texts:
            yield Question(category, ({"role": "user", "content": text},), Says(must[name]), name)
    for entry in data["exact"]:
        for text in entry["ask"]:
            yield Question(
                category,
                ({"role": "user", "content": text},),
                Says(tuple(entry["says"])),
                " … ".join(entry["says"]),
            )


def held_out_questions(per_category: int) -> list[Question]:
    """Up to `per_category` different questions of each category, and all hand-written ones, in a fixed
    order.
    """
    makers: dict[str, Callable[[str, Random], Question | None]] = dict.fromkeys(catalogue().makers, _single)
    makers |= {"follow-ups": _followed, "remembering": _remembered, "name in the system prompt": _named}
    found: list[Question] = []
    for category, make in makers.items():
        rng = Random(f"{SEED} {category}")
        seen: set[str] = set()
        for _ in range(TRIES * 5):
            question = make(category, rng) if len(seen) < per_category else None
            text = question.messages[-1]["content"].lower() if question else ""
            if question and (
                text not in seen or category in ("follow-ups", "remembering", "name in the system prompt")
            ):
                seen.add(f"{text} {len(seen)}" if text in seen else text)
                found.append(question)
    return found + list(_unseen("unseen wording"))
