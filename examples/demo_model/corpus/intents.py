"""Questions with a fixed meaning and many wordings, read from `data/*.toml`.

These are: about Corolla, the model itself, small talk, explanations, how-tos, and what the model does not
know. This module knows the shape of those files, not their content.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from random import Random
from typing import Any

from .checks import Check, Items, Says
from .exchange import Exchange, Maker
from .grammar import Pattern, pick
from .lexicon import categorised_words, explained_words, load, tables
from .phrases import compile_patterns, phrase, typed_for_training, ways, wording


@dataclass(frozen=True)
class Intent:
    """One meaning: how it is asked, how it is answered, and the phrases that a right answer has.

    `train_all` keeps all wordings for training and none for the score: where a wrong answer would do harm.
    With `in_turn` "another one" gets the answer that follows in the list.
    """

    name: str
    ask: tuple[Pattern, ...]
    answer: tuple[Pattern, ...]
    short: tuple[Pattern, ...]
    must: tuple[str, ...]
    weight: float = 1.0
    train_all: bool = False
    in_turn: bool = False

    @classmethod
    def read(cls, name: str, entry: dict[str, Any]) -> "Intent":
        """The intent of one TOML table."""
        return cls(
            name,
            compile_patterns(entry["ask"]),
            compile_patterns(entry["answer"]),
            compile_patterns(entry.get("short", [])),
            tuple(entry["must"]),
            entry.get("weight", 1.0),
            entry.get("train_all", False),
            entry.get("in_turn", False),
        )

    def check(self) -> Check:
        """What every right answer has."""
        return Says(self.must)

    def make(self, rng: Random, held_out: bool, brief: bool = False) -> Exchange | None:
        """Ask and answer; `brief` gives the short answer where there is one."""
        slots: dict[str, str] = {}
        question = wording(rng, self.ask, held_out, slots, everything=self.train_all)
        if question is None:
            return None
        patterns = self.short if brief and self.short else self.answer
        at = rng.randrange(len(patterns))
        answer = phrase(rng, patterns[at : at + 1])
        return self._exchange(typed_for_training(question, rng, loose=True), answer, at)

    def _exchange(self, question: str, answer: str, at: int) -> Exchange:
        """The exchange whose answer came from the pattern at index `at`."""
        follow: tuple[Maker, ...] = (self._another(at),) * 3 if self.in_turn else (self._again(answer),)
        if self.short:
            follow += (self._shorter,)
        return Exchange(question, answer, self.check(), follow)

    def _shorter(self, rng: Random, held_out: bool) -> Exchange | None:
        question = wording(rng, ways("intents.again_shorter"), held_out, {})
        if question is None:
            return None
        said = Says(("|".join(pattern.source.lower() for pattern in self.short),))
        return Exchange(typed_for_training(question, rng), phrase(rng, self.short), said)

    def _again(self, answer: str) -> Maker:
        def make(rng: Random, held_out: bool) -> Exchange | None:
            question = wording(rng, ways("intents.again"), held_out, {})
            if question is None:
                return None
            return Exchange(typed_for_training(question, rng), answer, self.check())

        return make

    def _another(self, before: int) -> Maker:
        def make(rng: Random, held_out: bool) -> Exchange | None:
            question = wording(rng, ways("intents.another"), held_out, {"kind": self.name.replace("_", " ")})
            if question is None:
                return None
            at = (before + 1) % len(self.answer)
            return self._exchange(
                typed_for_training(question, rng), phrase(rng, self.answer[at : at + 1]), at
            )

        return make


def read_intents(file: str) -> list[Intent]:
    """All intents of `data/<file>.toml`."""
    return [Intent.read(name, entry) for name, entry in load(file).items()]


@dataclass(frozen=True)
class Concepts:
    """Explanations: every concept is asked with the same patterns."""

    ask: tuple[Pattern, ...]
    entries: tuple[tuple[tuple[str, ...], tuple[Pattern, ...], tuple[str, ...]], ...]

    @classmethod
    def read(cls) -> "Concepts":
        """The concepts of `data/explain.toml`."""
        data = load("explain")
        entries = [
            (tuple(c["names"]), compile_patterns(c["text"]), tuple(c["must"])) for c in data["concept"]
        ]
        return cls(compile_patterns(data["ask"]), tuple(entries))

    def make(self, rng: Random, held_out: bool) -> Exchange | None:
        """Ask for one concept by one of its names."""
        names, texts, must = pick(rng, self.entries)
        question = wording(rng, self.ask, held_out, {"concept": pick(rng, names)})
        if question is None:
            return None
        return Exchange(typed_for_training(question, rng), phrase(rng, texts), Says(must))


@dataclass(frozen=True)
class HowTos:
    """Numbered steps and bulleted tips."""

    data: dict[str, Any]
    ask: dict[str, tuple[Pattern, ...]] = field(default_factory=dict[str, tuple[Pattern, ...]])

    @classmethod
    def read(cls) -> "HowTos":
        """The how-tos of `data/howto.toml`."""
        data = load("howto")
        return cls(
            data, {name: compile_patterns(data[name]) for name in ("ask", "tips_ask", "open", "tips_open")}
        )

    def make(self, rng: Random, held_out: bool) -> Exchange | None:
        """Ask for the steps of a task, or for tips."""
        tips = rng.random() < 0.35
        entries: dict[str, Sequence[str]] = self.data["tips" if tips else "steps"]
        task = pick(rng, list(entries))
        lines = entries[task]
        slots = {"task": task, "doing": _doing(task)}
        question = wording(rng, self.ask["tips_ask" if tips else "ask"], held_out, slots)
        if question is None:
            return None
        yours = task.replace(" my ", " your ")
        opening = phrase(rng, self.ask["tips_open" if tips else "open"], task=yours)
        marks = ["-" if tips else f"{n}." for n in range(1, len(lines) + 1)]
        answer = (
            opening + "\n\n" + "\n".join(f"{mark} {line}" for mark, line in zip(marks, lines, strict=True))
        )
        allowed = frozenset(line.rstrip(".").lower() for line in lines)
        return Exchange(typed_for_training(question, rng), answer, Items(len(lines), allowed))


def _doing(task: str) -> str:
    """Says "making tea" for "make tea"."""
    verb, _, rest = task.partition(" ")
    irregular = {"tie": "tying", "wrap": "wrapping"}
    stem = verb.removesuffix("e")
    return f"{irregular.get(verb, stem + 'ing')} {rest}".strip()


@cache
def _unexplained_words() -> tuple[str, ...]:
    """Plain nouns that no explanation, no word of Corolla's and no category covers."""
    return tuple(
        word for word in tables()["noun"] if word not in explained_words() and word not in categorised_words()
    )


@dataclass(frozen=True)
class Unknown:
    """Questions that the model cannot answer and kindly declines."""

    ask: tuple[Pattern, ...]
    answer: tuple[Pattern, ...]
    echo: tuple[Pattern, ...]
    must: tuple[str, ...]

    @classmethod
    def read(cls) -> "Unknown":
        """The patterns of `data/unknown.toml`."""
        data = load("unknown")
        ask, answer, echo = (compile_patterns(data[name]) for name in ("ask", "answer", "echo"))
        return cls(ask, answer, echo, tuple(data["must"]))

    def make(self, rng: Random, held_out: bool) -> Exchange | None:
        """Ask something unknown; the answer names the subject where the question has one."""
        subject = self._subject(rng)
        words = tables()
        slots = {
            "subject": subject,
            "subject2": self._subject(rng),
            "somebody": pick(rng, words["person_name"]) if rng.random() < 0.6 else self._somebody(rng),
            "deed": pick(rng, words["verb_phrase"]) if rng.random() < 0.5 else self._deed(rng),
        }
        question = wording(rng, self.ask, held_out, slots)
        if question is None:
            return None
        named = next((slots[slot] for slot in ("subject", "somebody") if slots[slot] in question), None)
        echoed = named is not None and rng.random() < 0.8
        answer = phrase(rng, self.echo, subject=named or "") if echoed else phrase(rng, self.answer)
        return Exchange(typed_for_training(question, rng, keep=(named or "",)), answer, Says(self.must))

    @staticmethod
    def _subject(rng: Random) -> str:
        roll = rng.random()
        if roll < 0.6:
            return pick(rng, tables()["topic"])
        if roll < 0.7:
            return pick(rng, _unexplained_words())
        return pick(rng, tables()["pseudo"]) + pick(rng, ("", "s", " theory", " music", "ism"))

    @staticmethod
    def _deed(rng: Random) -> str:
        words = tables()
        what = pick(rng, words["thing"] if rng.random() < 0.7 else words["pseudo"])
        return f"{pick(rng, words['verb'])} {pick(rng, ('the', 'a', 'my', 'an old', 'some'))} {what}"

    @staticmethod
    def _somebody(rng: Random) -> str:
        words = tables()
        return f"{pick(rng, words['name'])} {pick(rng, words['pseudo']).capitalize()}"
