"""Questions about small tables of facts and what kind of thing a word is.

The wording is held out; the facts themselves have to be learnt by heart, so they are in training.
"""

from functools import cache
from random import Random

from .checks import Check, Contains, Says
from .exchange import Exchange, Maker
from .grammar import capital, pick, with_article
from .lexicon import categories, categorised_words, explained_words, facts, pseudo_word, tables, translations
from .phrases import phrase, typed_for_training, ways, wording

OFTEN = ("capitals",) * 6 + ("opposites",) * 4 + ("amounts",) * 3
ALSO = (
    ("animal", "bird"), ("animal", "fish"), ("animal", "insect"),
    ("food", "fruit"), ("food", "vegetable"), ("food", "drink"),
    ("name", "city"), ("name", "flower"), ("name", "country_simple"), ("hobby", "sport"), ("sport", "hobby"),
)  # fmt: skip
"""Pairs of which one does not rule out the other: a robin is a bird, and an animal too."""
WITH_ARTICLE = ("sounds", "babies", "homes", "legs", "sides", "eats", "products")


def known(rng: Random, held_out: bool) -> Exchange | None:
    """One fact of one table."""
    table = pick(rng, OFTEN) if rng.random() < 0.45 else pick(rng, tuple(facts()))
    x = pick(rng, tuple(facts()[table]))
    question = wording(rng, ways(f"facts.known.{table}.ask"), held_out, {"x": x})
    return None if question is None else _told(rng, question, table, x)


def _told(rng: Random, question: str, table: str, x: str) -> Exchange:
    y = facts()[table][x]
    answer = phrase(rng, ways(f"facts.known.{table}.answer"), x=x, y=y).replace("..", ".")
    check: Check = Contains(y) if y.isascii() and y.isalnum() else Says((answer.lower().rstrip("."),))
    return Exchange(typed_for_training(question, rng, keep=(x,)), answer, check, (_other(table),))


def _other(table: str) -> Maker:
    """Asks "and Italy?" after a question about France."""

    def make(rng: Random, held_out: bool) -> Exchange | None:
        x = pick(rng, tuple(facts()[table]))
        shown = with_article(x) if table in WITH_ARTICLE else x
        question = wording(rng, ways("facts.and_other"), held_out, {"x": shown})
        return None if question is None else _told(rng, question, table, x)

    return make


def no_capital(rng: Random, held_out: bool) -> Exchange | None:
    """The capital of a land that is in no table."""
    land = pseudo_word(rng).capitalize() + pick(rng, ("", "ia", "land", "stan", "istan", "onia"))
    question = wording(rng, ways("facts.known.capitals.ask"), held_out, {"x": land})
    if question is None:
        return None
    answer = phrase(rng, ways("facts.no_capital"), x=land)
    return Exchange(typed_for_training(question, rng, keep=(land,)), answer, Says(("sorry", "not know")))


def translate(rng: Random, held_out: bool) -> Exchange | None:
    """One of a few words in French, Spanish, German or Italian."""
    language = pick(rng, tuple(translations()))
    word = pick(rng, tuple(translations()[language]))
    question = wording(rng, ways("facts.translate"), held_out, {"w": word, "l": language})
    if question is None:
        return None
    there = translations()[language][word]
    answer = f'"{capital(word)}" in {language} is "{there}".'
    return Exchange(
        typed_for_training(question, rng, keep=(*word.split(), language)), answer, Contains(there)
    )


def _named(word: str, table: str) -> str:
    """`word` as a sentence names it: "a trout", but "tea" and "France"."""
    bare = word[0].isupper() or table in ("colour", "drink", "sport", "food", "hobby")
    return word if bare else with_article(word)


def kind_of(rng: Random, held_out: bool) -> Exchange | None:
    """What a word is: "A trout is a fish."."""
    word = pick(rng, tuple(categorised_words()))
    table = categorised_words()[word]
    if rng.random() < 0.55:
        return _is_it(rng, held_out, word, table)
    if word in explained_words():
        return None
    named, kind = _named(word, table), with_article(categories()[table])
    question = wording(rng, ways("facts.kind_of"), held_out, {"w": named})
    if question is None:
        return None
    return Exchange(
        typed_for_training(question, rng, keep=(word,)),
        f"{capital(named)} is {kind}.",
        Contains(f"is {kind}"),
    )


def _is_it(rng: Random, held_out: bool, word: str, table: str) -> Exchange | None:
    true = rng.random() < 0.55
    asked = table if true else pick(rng, [name for name in categories() if word not in tables()[name]])
    if not true and (asked, table) in ALSO:
        return None
    named = _named(word, table)
    question = wording(rng, ways("facts.is_it"), held_out, {"w": named, "k": categories()[asked]})
    if question is None:
        return None
    answer = f"{'Yes' if true else 'No'}, {named} is {with_article(categories()[table])}."
    return Exchange(typed_for_training(question, rng, keep=(word,)), answer, Contains(answer.split(",")[0]))


def about_animal(rng: Random, held_out: bool) -> Exchange | None:
    """What the tables know about one animal, put together."""
    animal = pick(rng, _described_animals())
    question = wording(rng, ways("facts.about_animal"), held_out, {"w": animal})
    if question is None:
        return None
    kind = categorised_words().get(animal, "animal")
    a = capital(with_article(animal))
    said = [f"{a} is {with_article(categories()[kind])}."]
    if animal in facts()["sounds"]:
        said.append(f"It says {facts()['sounds'][animal]}.")
    if animal in facts()["legs"]:
        said.append(f"It has {facts()['legs'][animal]} legs.")
    if animal in facts()["eats"]:
        said.append(f"It eats {facts()['eats'][animal]}.")
    if animal in facts()["babies"]:
        said.append(f"Its baby is called {with_article(facts()['babies'][animal])}.")
    if animal in facts()["homes"]:
        said.append(f"It lives in {facts()['homes'][animal]}.")
    return Exchange(
        typed_for_training(question, rng, keep=(animal,)),
        " ".join(said),
        Says((said[0].lower(), said[-1].lower())),
    )


@cache
def _described_animals() -> list[str]:
    """Animals of which at least two tables know something, and which `explain.toml` does not explain."""
    rich = [
        name for name in tables()["animal"] if sum(name in facts()[table] for table in _ANIMAL_TABLES) >= 2
    ]
    return [name for name in rich if name not in explained_words()]


_ANIMAL_TABLES = ("sounds", "legs", "eats", "babies", "homes")
