"""Every kind of question the model learns, with its share of the training text.

The score is reported by these names.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import accumulate
from random import Random
from typing import Generic, TypeVar

from . import arithmetic, dates, echo, facts, listing, numbers, poems, sequences, snippets, stories, words
from .exchange import TRIES, Exchange, Maker
from .intents import Concepts, HowTos, Intent, Unknown, read_intents
from .split import is_unseen

T = TypeVar("T")


@dataclass(frozen=True)
class Weighted(Generic[T]):
    """Draws one of `options` with its weight."""

    options: tuple[T, ...]
    sums: tuple[float, ...]

    @classmethod
    def of(cls, pairs: Sequence[tuple[T, float]]) -> "Weighted[T]":
        """From (option, weight) pairs."""
        return cls(tuple(option for option, _ in pairs), tuple(accumulate(weight for _, weight in pairs)))

    def draw(self, rng: Random) -> T:
        """One option."""
        point = rng.random() * self.sums[-1]
        low, high = 0, len(self.sums) - 1
        while low < high:
            middle = (low + high) // 2
            low, high = (low, middle) if point < self.sums[middle] else (middle + 1, high)
        return self.options[low]


@dataclass(frozen=True)
class Intents:
    """All intents of one file, as one maker."""

    drawn: Weighted[Intent]

    @classmethod
    def of(cls, file: str) -> "Intents":
        """The intents of `data/<file>.toml`."""
        return cls(Weighted.of([(intent, intent.weight) for intent in read_intents(file)]))

    def __call__(self, rng: Random, held_out: bool) -> Exchange | None:
        return self.drawn.draw(rng).make(rng, held_out)

    def brief(self, rng: Random, held_out: bool) -> Exchange | None:
        """The short answer, where an intent has one."""
        return self.drawn.draw(rng).make(rng, held_out, brief=True)


@dataclass(frozen=True)
class Catalogue:
    """The makers by category, and how often each is drawn."""

    makers: dict[str, Maker]
    drawn: Weighted[str]
    brief: dict[str, Maker]

    def make(self, rng: Random, category: str, held_out: bool, brief: bool = False) -> Exchange | None:
        """An exchange of `category`; None if the category has none on that side of the split."""
        maker = self.brief.get(category, self.makers[category]) if brief else self.makers[category]
        for _ in range(TRIES):
            exchange = maker(rng, held_out)
            if exchange is not None and (held_out or not is_unseen(exchange.question)):
                return exchange
        return None


@cache
def catalogue() -> Catalogue:
    """The whole catalogue, compiled once per process."""
    about, identity, smalltalk = Intents.of("about"), Intents.of("identity"), Intents.of("smalltalk")
    entries: list[tuple[str, float, Maker]] = [
        ("about Corolla", 20, about),
        ("the model itself", 10, identity),
        ("small talk", 14, smalltalk),
        ("explanations", 7, Concepts.read().make),
        ("not known", 9, Unknown.read().make),
        ("addition", 6, arithmetic.sums("plus")),
        ("subtraction", 5, arithmetic.sums("minus")),
        ("multiplication", 6, arithmetic.sums("times")),
        ("division", 1.5, arithmetic.sums("over")),
        ("word problems", 2.5, arithmetic.told),
        ("comparing numbers", 2.5, numbers.compare),
        ("one number", 2.5, numbers.single),
        ("sums of three", 1.5, arithmetic.chain),
        ("sums too big", 0.8, arithmetic.too_big),
        ("sums beyond it", 0.8, arithmetic.beyond),
        ("counting", 4, sequences.count),
        ("sorting numbers", 6, sequences.sort_numbers),
        ("sorting words", 8, sequences.sort_words),
        ("looking through lists", 3.5, sequences.look_through),
        ("numbers in words", 1.5, sequences.number_words),
        ("spelling", 8, words.letters("spell")),
        ("reversing words", 5, words.letters("reverse")),
        ("capitals", 4, words.letters("upper", "upper", "lower")),
        ("counting letters", 5, words.letters("length", "length", "first", "last", "has", "often")),
        ("saying back", 4, echo.say),
        ("facts", 8, facts.known),
        ("unknown capitals", 0.6, facts.no_capital),
        ("translations", 1.5, facts.translate),
        ("kinds of things", 2, facts.kind_of),
        ("animals", 0.7, facts.about_animal),
        ("calendar", 2, dates.calendar),
        ("lists", 4, listing.listing),
        ("how-tos", 2.5, HowTos.read().make),
        ("stories", 8, stories.story),
        ("poems", 2.5, poems.poem),
        ("code", 4.5, snippets.code),
    ]
    makers = {name: maker for name, _, maker in entries}
    brief: dict[str, Maker] = {
        "about Corolla": about.brief,
        "the model itself": identity.brief,
        "small talk": smalltalk.brief,
    }
    return Catalogue(makers, Weighted.of([(name, weight) for name, weight, _ in entries]), brief)
