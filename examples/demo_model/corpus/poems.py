"""Short rhymes about nearly anything, put together from `data/stories.toml`."""

from functools import cache
from random import Random

from .checks import Tale
from .exchange import Exchange, Maker
from .grammar import Pattern
from .heroes import Hero, held_out_hero, next_animal
from .lexicon import load
from .phrases import compile_patterns, phrase, typed_for_training, ways, wording
from .stories import asks

SHORTEST = 20
"""Words that a poem has at least."""


@cache
def _verses() -> dict[str, tuple[Pattern, ...]]:
    return {name: compile_patterns(sources) for name, sources in load("stories")["poems"].items()}


def rhyme(rng: Random, noun: str) -> str:
    """Four or six lines about `noun`."""
    return phrase(rng, _verses()["first"], hero=noun) + phrase(rng, _verses()["second"])


def poem(rng: Random, held_out: bool) -> Exchange | None:
    """A rhyme, about something or about anything."""
    if rng.random() < 0.25:
        question = wording(rng, asks()["poem_any"], held_out, {})
        if question is None:
            return None
        text = typed_for_training(question, rng)
        return Exchange(text, rhyme(rng, "flower"), Tale("", SHORTEST), _follow_ups("flower"))
    hero = held_out_hero(rng, held_out)
    if hero is None or not hero.noun or hero.friend:
        return None
    return _told(rng, phrase(rng, asks()["poem_about"], about=hero.asked), hero)


def _told(rng: Random, question: str, hero: Hero) -> Exchange:
    text = typed_for_training(question, rng, keep=(*hero.asked.split(), hero.noun))
    return Exchange(text, rhyme(rng, hero.noun), Tale(hero.noun, SHORTEST), _follow_ups(hero.noun))


def _follow_ups(noun: str) -> tuple[Maker, ...]:
    """Asks "another one" and "and about a dog?" after a poem about a `noun`."""

    def another(rng: Random, held_out: bool) -> Exchange | None:
        question = wording(rng, ways("stories.another"), held_out, {})
        if question is None:
            return None
        hero = next_animal(noun)
        text = typed_for_training(question, rng)
        return Exchange(text, rhyme(rng, hero.noun), Tale("", SHORTEST), _follow_ups(hero.noun))

    def about(rng: Random, held_out: bool) -> Exchange | None:
        hero = held_out_hero(rng, held_out)
        if hero is None or not hero.noun:
            return None
        return _told(rng, phrase(rng, ways("stories.and_about"), about=hero.asked), hero)

    return another, about
