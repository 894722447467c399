"""Who stories and poems are about, and how a user asks for them. The request is what is held out."""

from dataclasses import dataclass, replace
from random import Random

from .exchange import TRIES
from .grammar import pick, with_article
from .lexicon import pseudo_word, tables
from .split import are_operands_held_out

SHE = frozenset(["girl", "woman", "queen", "princess", "nun", "witch", "mermaid", "grandmother"])
HE = frozenset(["boy", "man", "king", "prince", "monk", "grandfather"])


@dataclass(frozen=True)
class Hero:
    """Who a story is about, and how the request and the text call them."""

    noun: str
    asked: str
    name: str | None = None
    quality: str | None = None
    friend: str | None = None
    pronoun: str = "it"

    @property
    def who(self) -> str:
        """How sentences after the first name the hero."""
        return self.name or f"the {self.noun}"


def _noun(rng: Random) -> str:
    words = tables()
    roll = rng.random()
    if roll < 0.34:
        return pick(rng, words["animal"])
    if roll < 0.5:
        return pick(rng, words["person"])
    if roll < 0.64:
        return pick(rng, words["creature"])
    if roll < 0.8:
        return pick(
            rng, words[pick(rng, ("thing", "food", "vehicle", "job", "flower", "tool", "instrument"))]
        )
    return pseudo_word(rng)


def _pronoun(rng: Random, noun: str) -> str:
    if noun in SHE or noun in HE:
        return "she" if noun in SHE else "he"
    human = noun in tables()["person"] or noun in tables()["job"]
    return pick(rng, ("she", "he")) if human else "it"


def _plural(noun: str) -> str:
    if noun.endswith(("s", "x", "ch", "sh")):
        return noun + "es"
    return noun[:-1] + "ies" if noun.endswith("y") and noun[-2:-1] not in "aeiou" else noun + "s"


def make_hero(rng: Random) -> Hero:
    """Somebody to tell about, and the words a user might ask with."""
    noun = _noun(rng)
    hero = Hero(noun, with_article(noun), pronoun=_pronoun(rng, noun))
    roll = rng.random()
    if roll < 0.42:
        return hero
    if roll < 0.6:
        quality = pick(rng, tables()["adjective"])
        return replace(hero, asked=with_article(f"{quality} {noun}"), quality=quality)
    if roll < 0.7:
        return replace(hero, asked=_plural(noun))
    if roll < 0.78:
        return replace(hero, asked=f"{pick(rng, ('the', 'my', 'our', ''))} {noun}".strip())
    name = pick(
        rng, tables()["pet_name"] if noun in tables()["animal"] and rng.random() < 0.6 else tables()["name"]
    )
    if roll < 0.88:
        asked = f"{with_article(noun)} {pick(rng, ('called', 'named'))} {name}"
        return replace(hero, asked=pick(rng, (asked, asked, f"my {noun} {name}")), name=name)
    if roll < 0.95:
        friend = pick(rng, tables()["animal"])
        return (
            hero
            if friend == noun
            else replace(hero, asked=f"{with_article(noun)} and {with_article(friend)}", friend=friend)
        )
    person = pick(rng, tables()["name"])
    return Hero("", person, name=person, pronoun=pick(rng, ("she", "he")))


def held_out_hero(rng: Random, held_out: bool) -> Hero | None:
    """Somebody whose request is on the wanted side of the split."""
    for _ in range(TRIES):
        hero = make_hero(rng)
        if are_operands_held_out("story", hero.asked) == held_out:
            return hero
    return None


def any_animal(rng: Random) -> Hero:
    """An animal or a person without anything special."""
    hero = make_hero(rng)
    plain = hero.noun in tables()["animal"] or hero.noun in tables()["person"]
    return replace(hero, quality=None) if plain else animal("fox")


def animal(noun: str) -> Hero:
    """The animal of this name."""
    return Hero(noun, with_article(noun))


def next_animal(noun: str) -> Hero:
    """The animal after `noun` in the table: for "another one", so that the second story is not the first
    again.
    """
    animals = tables()["animal"]
    at = animals.index(noun) + 1 if noun in animals else 0
    return animal(animals[at % len(animals)])
