"""Puts exchanges together into whole chats: system prompts, follow-up questions, things said earlier."""

from collections.abc import Iterator
from dataclasses import dataclass
from random import Random

from . import memory as remembered
from .catalogue import catalogue
from .checks import Contains
from .exchange import Exchange
from .grammar import pick
from .lexicon import tables
from .memory import Memory
from .phrases import phrase, typed_for_training, ways, wording

CHARACTERS = 6400
"""About as much text as fits the context of 2048 tokens."""


@dataclass(frozen=True, slots=True)
class Conversation:
    """A chat: an optional system prompt, then exchanges in order."""

    system: str | None
    exchanges: tuple[Exchange, ...]

    def messages(self) -> list[dict[str, str]]:
        """The chat as the list of messages that a chat template takes."""
        found = [{"role": "system", "content": self.system}] if self.system else []
        for exchange in self.exchanges:
            found.append({"role": "user", "content": exchange.question})
            found.append({"role": "assistant", "content": exchange.answer})
        return found


@dataclass(frozen=True, slots=True)
class Setting:
    """What the system prompt says: the prompt, whether answers are short, and the name it gives to the
    assistant.
    """

    prompt: str | None
    brief: bool = False
    name: str | None = None


def draw_setting(rng: Random) -> Setting:
    """A system prompt, in about half of the chats."""
    roll = rng.random()
    if roll < 0.55:
        return Setting(None)
    if roll < 0.85:
        return Setting(phrase(rng, ways("conversation.generic")))
    if roll < 0.92:
        return Setting(phrase(rng, ways("conversation.brief")), brief=True)
    name = pick(rng, tables()["name"] if rng.random() < 0.7 else tables()["pseudo"]).capitalize()
    return Setting(phrase(rng, ways("conversation.named"), n=name), name=name)


def named_answer(rng: Random, held_out: bool, name: str) -> Exchange | None:
    """Asks "who are you?" where the system prompt gave a name."""
    question = wording(rng, ways("conversation.ask_name"), held_out, {})
    if question is None:
        return None
    return Exchange(
        typed_for_training(question, rng),
        phrase(rng, ways("conversation.name_answer"), n=name),
        Contains(name),
    )


def _recalled(rng: Random, memory: Memory, done: list[Exchange]) -> Exchange | None:
    roll = rng.random()
    if roll < 0.3:
        return (
            remembered.tell_name(rng, False, memory)
            if memory.name is None
            else remembered.ask_name(rng, False, memory)
        )
    if roll < 0.4:
        return remembered.ask_name(rng, False, memory)
    if roll < 0.65:
        return remembered.tell_favourite(rng, False, memory)
    if roll < 0.9 or not done or "\n" in done[-1].question:
        return remembered.ask_favourite(rng, False, memory)
    return remembered.ask_last(rng, done[-1].question)


def _next(rng: Random, setting: Setting, memory: Memory, done: list[Exchange]) -> Exchange | None:
    if done and done[-1].follow_ups and rng.random() < 0.4:
        return pick(rng, done[-1].follow_ups)(rng, False)
    if rng.random() < 0.06:
        return _recalled(rng, memory, done)
    if setting.name is not None and rng.random() < (0.5 if not done else 0.15):
        return named_answer(rng, False, setting.name)
    category = catalogue().drawn.draw(rng)
    if setting.name is not None and category in ("the model itself", "small talk"):
        return None
    return catalogue().make(rng, category, held_out=False, brief=setting.brief)


def converse(rng: Random) -> Conversation:
    """One chat of the training text: often a single question, sometimes as long as the context."""
    roll = rng.random()
    budget = 1 if roll < 0.4 else int(rng.random() * 1500) if roll < 0.8 else int(rng.random() * CHARACTERS)
    setting = draw_setting(rng)
    memory = Memory()
    done: list[Exchange] = []
    size = len(setting.prompt or "")
    while not done or size < budget:
        exchange = _next(rng, setting, memory, done)
        if exchange is not None:
            done.append(exchange)
            size += len(exchange.question) + len(exchange.answer)
    return Conversation(setting.prompt, tuple(done))


def conversations(seed: str) -> Iterator[Conversation]:
    """An endless stream of training chats; the same seed gives the same chats."""
    rng = Random(seed)
    while True:
        yield converse(rng)
