"""Little stories about nearly anything, put together from `data/stories.toml`."""

from collections.abc import Sequence
from functools import cache
from random import Random
from zlib import crc32

from .checks import Tale
from .exchange import Exchange, Maker
from .grammar import Pattern, capital, pick
from .heroes import Hero, animal, any_animal, held_out_hero, make_hero, next_animal
from .lexicon import load, tables
from .phrases import compile_patterns, phrase, typed_for_training, ways, wording

SHORTEST = 34
"""Words that a story has at least."""
PRONOUNS = {"she": ("she", "her"), "he": ("he", "his"), "it": ("it", "its")}
QUALITIES = (
    "little", "small", "young", "old", "brave", "clever", "shy",
    "kind", "curious", "cheerful", "quiet", "friendly", "gentle",
)  # fmt: skip


@cache
def asks() -> dict[str, tuple[Pattern, ...]]:
    """The ways to ask for a story or a poem."""
    return {name: compile_patterns(sources) for name, sources in load("stories")["asks"].items()}


@cache
def _parts() -> dict[str, tuple[Pattern, ...]]:
    return {name: compile_patterns(sources) for name, sources in load("stories")["story"].items()}


@cache
def _plots(kind: str) -> dict[str, tuple[Pattern, ...]]:
    return {name: compile_patterns(sources) for name, sources in load("stories")[kind].items()}


def _by_letter(rng: Random, hero: Hero, slot: str, options: Sequence[str]) -> str:
    """One of `options`, four times out of five tied to the hero's first or last letter.

    A model that always takes its most likely word would else tell the same story about everybody.
    """
    if rng.random() < 0.2:
        return pick(rng, options)
    called = (hero.noun or hero.who).lower()
    letter = called[0] if slot in ("plot", "friend", "quality", "thing") else called[-1]
    return options[crc32(f"{slot} {letter}".encode()) % len(options)]


def _habits(rng: Random, hero: Hero) -> dict[str, str]:
    """The words that fill a story about `hero`."""
    words = tables()
    found = {slot: _by_letter(rng, hero, slot, words[slot]) for slot in ("home", "place", "thing", "meal")}
    found["quality"] = hero.quality or _by_letter(rng, hero, "quality", QUALITIES)
    friends = [animal for animal in words["animal"] if animal != hero.noun]
    found["friend"] = hero.friend or _by_letter(rng, hero, "friend", friends)
    return found


def tell(rng: Random, hero: Hero, short: bool = False, plot: str | None = None) -> str:
    """A story, in one or two paragraphs; `plot` names its plot, else the hero decides."""
    it, its = PRONOUNS[hero.pronoun]
    slots = {
        "hero": hero.noun,
        "who": hero.who,
        "it": it,
        "its": its,
        "dear": hero.name or f"little {hero.noun}",
    }
    slots |= _habits(rng, hero)
    parts = _parts()
    opening = (
        parts["opening"]
        if hero.name is None
        else parts["opening_named"]
        if hero.noun
        else parts["opening_person"]
    )
    plots = _plots("short_plots" if short else "plots")
    sentences = plots[plot or _by_letter(rng, hero, "plot", tuple(plots))]
    middle = [pattern.expand(rng, tables(), slots) for pattern in sentences]
    ending = [phrase(rng, parts["end"])] if rng.random() < 0.75 else []
    ending += [phrase(rng, parts["moral"])] if rng.random() < 0.45 else []
    half = (len(middle) + 1) // 2
    first = [pick(rng, opening).expand(rng, tables(), slots), *middle[:half]]
    return " ".join(first) + ("\n\n" if len(middle) > 4 else " ") + " ".join([*middle[half:], *ending])


def story(rng: Random, held_out: bool) -> Exchange | None:
    """A story: about somebody, about anybody, or about something such as friendship."""
    roll = rng.random()
    if roll < 0.25:
        return _about_anybody(rng, held_out)
    return _themed(rng, held_out) if roll < 0.34 else _about_somebody(rng, held_out)


def _about_anybody(rng: Random, held_out: bool) -> Exchange | None:
    question = wording(rng, asks()["any"], held_out, {})
    if question is None:
        return None
    hero = any_animal(rng)
    answer = tell(rng, hero, "short" in question.lower())
    return Exchange(typed_for_training(question, rng), answer, Tale("", SHORTEST), _follow_ups(hero.noun))


def _about_somebody(rng: Random, held_out: bool) -> Exchange | None:
    hero = held_out_hero(rng, held_out)
    if hero is None:
        return None
    return _told(rng, phrase(rng, asks()["about"], about=hero.asked), hero)


def _told(rng: Random, question: str, hero: Hero) -> Exchange:
    answer = tell(rng, hero, "short" in question.lower())
    text = typed_for_training(question, rng, keep=(*hero.asked.split(), hero.noun))
    return Exchange(text, answer, Tale(hero.name or hero.noun, SHORTEST), _follow_ups(hero.noun))


def _themed(rng: Random, held_out: bool) -> Exchange | None:
    themes: dict[str, list[str]] = load("stories")["themes"]
    plot = pick(rng, tuple(themes))
    theme = pick(rng, themes[plot])
    question = wording(rng, asks()["about"], held_out, {"about": theme})
    if question is None:
        return None
    hero = animal(pick(rng, tables()["animal"]))
    text = typed_for_training(question, rng, keep=theme.split())
    return Exchange(text, tell(rng, hero, plot=plot), Tale("", SHORTEST), _follow_ups(hero.noun))


def _follow_ups(noun: str) -> tuple[Maker, ...]:
    """Asks "another one" and "and about a dog?" after a story about a `noun`."""

    def another(rng: Random, held_out: bool) -> Exchange | None:
        question = wording(rng, ways("stories.another"), held_out, {})
        if question is None:
            return None
        hero = next_animal(noun)
        text = typed_for_training(question, rng)
        return Exchange(text, tell(rng, hero), Tale("", SHORTEST), _follow_ups(hero.noun))

    def about(rng: Random, held_out: bool) -> Exchange | None:
        hero = held_out_hero(rng, held_out)
        if hero is None:
            return None
        return _told(rng, phrase(rng, ways("stories.and_about"), about=hero.asked), hero)

    return another, about


def beginning(rng: Random) -> str:
    """A whole story as plain text, for the model's life outside a chat."""
    return capital(tell(rng, make_hero(rng)))
