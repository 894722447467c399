"""What the user said about themselves earlier in the chat, and questions about it later."""

from dataclasses import dataclass, field
from random import Random

from .checks import Contains, Says
from .exchange import TRIES, Exchange
from .grammar import capital, pick
from .lexicon import pseudo_word, tables
from .phrases import phrase, typed_for_training, ways, wording
from .split import are_operands_held_out

KINDS = (
    "colour",
    "animal",
    "food",
    "drink",
    "fruit",
    "sport",
    "city",
    "flower",
    "bird",
    "hobby",
    "tree",
    "vegetable",
)


@dataclass
class Memory:
    """Owned by one conversation while it is being made."""

    name: str | None = None
    favourites: dict[str, str] = field(default_factory=dict[str, str])


def tell_name(rng: Random, held_out: bool, memory: Memory) -> Exchange | None:
    """The user says their name."""
    for _ in range(TRIES):
        name = pick(rng, tables()["name"]) if rng.random() < 0.7 else pseudo_word(rng).capitalize()
        if are_operands_held_out("name", name) == held_out:
            memory.name = name
            question = typed_for_training(phrase(rng, ways("memory.my_name"), n=name), rng, keep=(name,))
            return Exchange(question, phrase(rng, ways("memory.meet"), n=name), Contains(name))
    return None


def ask_name(rng: Random, held_out: bool, memory: Memory) -> Exchange | None:
    """The user asks for it back."""
    question = wording(rng, ways("memory.who_am_i"), held_out, {})
    if question is None:
        return None
    if memory.name is None:
        return Exchange(
            typed_for_training(question, rng), phrase(rng, ways("memory.no_name")), Says(("not told me",))
        )
    return Exchange(
        typed_for_training(question, rng),
        phrase(rng, ways("memory.your_name"), n=memory.name),
        Contains(memory.name),
    )


def tell_favourite(rng: Random, held_out: bool, memory: Memory) -> Exchange | None:
    """The user says what they like best."""
    kind = pick(rng, KINDS)
    for _ in range(TRIES):
        value = pick(rng, tables()[kind]) if rng.random() < 0.8 else pseudo_word(rng)
        if are_operands_held_out("favourite", kind, value) == held_out:
            memory.favourites[kind] = value
            question = typed_for_training(
                phrase(rng, ways("memory.my_thing"), k=kind, v=value), rng, keep=(kind, *value.split())
            )
            return Exchange(
                question, phrase(rng, ways("memory.noted"), k=kind, v=value), Says((value.lower(),))
            )
    return None


def ask_favourite(rng: Random, held_out: bool, memory: Memory) -> Exchange | None:
    """The user asks for that back, or for something never said."""
    kind = (
        pick(rng, tuple(memory.favourites)) if memory.favourites and rng.random() < 0.8 else pick(rng, KINDS)
    )
    question = wording(rng, ways("memory.which_thing"), held_out, {"k": kind})
    if question is None:
        return None
    value = memory.favourites.get(kind)
    text = typed_for_training(question, rng, keep=(kind,))
    if value is None:
        return Exchange(text, phrase(rng, ways("memory.no_thing"), k=kind), Says(("not told me",)))
    return Exchange(text, phrase(rng, ways("memory.your_thing"), k=kind, v=value), Says((value.lower(),)))


def ask_last(rng: Random, last_question: str) -> Exchange:
    """The user asks what they wrote before."""
    answer = f'You wrote: "{last_question}"'
    question = typed_for_training(phrase(rng, ways("memory.last_question")), rng)
    return Exchange(question, answer, Says((capital(last_question).lower(),)))
