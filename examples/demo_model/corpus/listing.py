"""Lists of things of one kind ("name three fruits"), as Markdown. The wording is held out."""

from functools import cache
from random import Random

from .checks import Items, Says
from .exchange import Exchange, Maker
from .grammar import capital, pick, with_article
from .lexicon import categories, in_words, load, tables
from .phrases import typed_for_training, ways, wording

MANY = (2, 3, 3, 4, 5, 5, 6, 7, 8, 10)


@cache
def _listed_tables() -> tuple[str, ...]:
    return (*categories(), "animal", "animal", "fruit", "fruit", "colour", "food")


def _kinds(table: str) -> str:
    plurals: dict[str, str] = load("words")["category_plurals"]
    return plurals.get(table) or categories()[table] + "s"


def listing(rng: Random, held_out: bool) -> Exchange | None:
    """Some words of a table, or one of them."""
    table = pick(rng, _listed_tables())
    if rng.random() < 0.12:
        return _one(rng, held_out, table)
    many = pick(rng, MANY)
    if rng.random() < 0.2:
        many, question = 5, wording(rng, ways("facts.list_any"), held_out, {"ks": _kinds(table)})
    else:
        number = str(many) if rng.random() < 0.5 else in_words(many)
        question = wording(rng, ways("facts.list"), held_out, {"ks": _kinds(table), "n": number})
    words = tables()[table]
    start = 0 if rng.random() < 0.6 else rng.randrange(max(1, len(words) - many))
    return None if question is None else _listed(rng, question, table, (start, min(len(words), start + many)))


def _listed(rng: Random, question: str, table: str, part: tuple[int, int]) -> Exchange:
    """The words of the table from the first to before the second index of `part`: in order, so that none
    comes twice.
    """
    words = tables()[table][slice(*part)]
    opening = pick(rng, ("Here are {} {}:", "{} {}:")).format(in_words(len(words)), _kinds(table))
    answer = capital(opening) + "\n\n" + "\n".join(f"- {word}" for word in words)
    check = Items(len(words), frozenset(word.lower() for word in tables()[table]))
    return Exchange(typed_for_training(question, rng), answer, check, (_more(table, part),))


def _more(table: str, before: tuple[int, int]) -> Maker:
    """Asks for three more: the words that follow in the table."""

    def make(rng: Random, held_out: bool) -> Exchange | None:
        many = rng.randint(2, 5)
        number = str(many) if rng.random() < 0.6 else in_words(many)
        question = wording(rng, ways("facts.and_more"), held_out, {"n": number})
        if question is None or before[1] + many > len(tables()[table]):
            return None
        return _listed(rng, question, table, (before[1], before[1] + many))

    return make


def _one(rng: Random, held_out: bool, table: str) -> Exchange | None:
    question = wording(rng, ways("facts.one"), held_out, {"k": with_article(categories()[table])})
    if question is None:
        return None
    word = pick(rng, tables()[table])
    answer = pick(rng, (f"For example: {word}.", f"How about this one: {word}."))
    return Exchange(
        typed_for_training(question, rng), answer, Says(("|".join(w.lower() for w in tables()[table]),))
    )
