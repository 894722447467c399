"""Requests for a tiny program, answered with a fenced block and a sentence (`data/snippets.toml`)."""

from dataclasses import dataclass
from functools import cache
from random import Random

from .checks import Code
from .exchange import Exchange
from .grammar import Pattern, pick
from .lexicon import load, plain_words, tables
from .phrases import compile_patterns, typed_for_training, wording

OPENINGS = ("", "Here you are:\n\n", "Here it is:\n\n", "Here is a small example:\n\n", "Sure!\n\n")


@dataclass(frozen=True)
class Snippet:
    """One program: the patterns that ask for it, its code, and the sentence after it."""

    ask: tuple[Pattern, ...]
    code: str
    language: str
    note: str
    default_n: int


@cache
def snippets() -> tuple[Snippet, ...]:
    """All programs of `data/snippets.toml`."""
    data = load("snippets")
    found: list[Snippet] = []
    for entry in data["snippet"]:
        names = "{" + "|".join(entry["names"]) + "}"
        names = names.replace("%N%", "<n>").replace("%WORD%", "<code_word>")
        ask = compile_patterns(pattern.replace("<name>", names) for pattern in data["ask"])
        found.append(Snippet(ask, entry["code"], entry["language"], entry["note"], entry.get("default_n", 5)))
    return tuple(found)


def code(rng: Random, held_out: bool) -> Exchange | None:
    """One request for code."""
    snippet = pick(rng, snippets())
    number = str(rng.randint(2, 20))
    word = pick(rng, tables()["name"]) if "greet" in snippet.code else pick(rng, plain_words())
    question = wording(rng, snippet.ask, held_out, {"n": number, "code_word": word})
    if question is None:
        return None
    if number not in question.split() and f"{number}{question[-1]}" not in question:
        number = str(snippet.default_n)
    if word not in question.split():
        word = "World" if "greet" in snippet.code else "hello"

    def filled(text: str) -> str:
        return text.replace("%N%", number).replace("%WORD%", word)

    body = filled(snippet.code).strip("\n")
    answer = f"{pick(rng, OPENINGS)}```{snippet.language}\n{body}\n```\n\n{filled(snippet.note)}"
    lines = tuple(line for line in body.splitlines() if line.strip())
    text = typed_for_training(question, rng, keep=(word,), keep_case=word != "hello")
    return Exchange(text, answer, Code(snippet.language, (lines[0], lines[-1])))
