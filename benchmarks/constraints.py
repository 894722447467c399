"""Libraries that hold a reply to a JSON Schema: what compiles, what is obeyed, and what it costs.

    python -m benchmarks.constraints [--full]

Each library compiles every schema of `SCHEMAS`, for a byte-level vocabulary that is trained here on the
standard library's sources. Replies are then drawn from what the masks allow, in favour of what ends things,
and checked by jsonschema. A schema is obeyed where all finished replies are valid, and one at least has
finished. Every schema is tried in a process of its own, since a library may need minutes, or all memory, for
one.
"""

import argparse
import json
import multiprocessing
import random
import resource
import sys
import sysconfig
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import version
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Protocol, cast

import jsonschema
import numpy as np
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from benchmarks.report import Report

VOCABULARY = 32_000
FULL_VOCABULARY = 128_000
END = "</s>"
REPLIES = 8
"""Of each schema."""
MOST_TOKENS = 300
SCHEMA_SECONDS = 60.0
MOST_BYTES = 8 * 2**30
"""Of memory that one schema may take."""
ENDS = ('"', "}", "]", "]}", '"}', '",', '":', ",", "0", "1", "7", "@", ".")


def of(**properties: Any) -> dict[str, Any]:
    """An object with all of these, and nothing else."""
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


TEXT, WHOLE, NUMBER = {"type": "string"}, {"type": "integer"}, {"type": "number"}
NODE = of(name=TEXT, children={"type": "array", "items": {"$ref": "#/$defs/node"}, "maxItems": 2})
SCHEMAS: dict[str, dict[str, Any]] = {
    "a flat object": of(name=TEXT, age=WHOLE, height=NUMBER, is_member={"type": "boolean"}),
    "optional properties": {"type": "object", "properties": {"a": WHOLE, "b": TEXT}, "required": ["b"]},
    "other properties of a type": {"type": "object", "additionalProperties": WHOLE, "maxProperties": 3},
    "nested objects": of(a=of(b=of(c=of(d=WHOLE)))),
    "any object": {"type": "object"},
    "an array": {"type": "array", "items": WHOLE, "minItems": 2, "maxItems": 4},
    "an array of objects": {"type": "array", "items": of(x=NUMBER, y=NUMBER), "maxItems": 3},
    "a tuple": {"type": "array", "prefixItems": [TEXT, WHOLE], "items": False, "minItems": 2},
    "enums": of(colour={"enum": ["red", "green", "blue"]}, size={"enum": [1, 2, None, "big"]}),
    "constants": of(kind={"const": "circle"}, version={"const": 3}),
    "a nullable type": of(note={"type": ["string", "null"]}),
    "one of several types": {"type": ["integer", "string", "null"]},
    "any of": {"anyOf": [of(a=WHOLE), of(b=TEXT)]},
    "one of, told apart by a constant": {
        "oneOf": [of(kind={"const": "a"}, a=WHOLE), of(kind={"const": "b"}, b=TEXT)]
    },
    "one of, told apart by a number": {"oneOf": [{"multipleOf": 3}, {"multipleOf": 5}], "type": "integer"},
    "all of": {
        "allOf": [
            {"type": "object", "properties": {"a": WHOLE}, "required": ["a"]},
            {"properties": {"b": TEXT}, "required": ["b"]},
        ]
    },
    "definitions": {"$defs": {"point": of(x=NUMBER)}, **of(from_={"$ref": "#/$defs/point"})},
    "a recursive definition": {"$defs": {"node": NODE}, **NODE},
    "itself": {"type": "object", "properties": {"next": {"$ref": "#"}}, "additionalProperties": False},
    "the length of strings": of(code={"type": "string", "minLength": 3, "maxLength": 5}),
    "a pattern": of(plate={"type": "string", "pattern": "^[A-Z]{2}-[0-9]{1,4}$"}),
    "a pattern without anchors": of(word={"type": "string", "pattern": "ab+", "maxLength": 20}),
    "a date": of(day={"type": "string", "format": "date"}),
    "a date and time": of(at={"type": "string", "format": "date-time"}),
    "a UUID": of(id={"type": "string", "format": "uuid"}),
    "an address": of(mail={"type": "string", "format": "email"}),
    "bounds": of(age={"type": "integer", "minimum": 18, "maximum": 99}),
    "bounds of numbers": of(share={"type": "number", "exclusiveMinimum": 0, "maximum": 1}),
    "multiples": of(even={"type": "integer", "multipleOf": 2, "minimum": 0, "maximum": 100}),
    "names by pattern": {
        "type": "object",
        "patternProperties": {"^x_[a-z]$": WHOLE},
        "additionalProperties": False,
        "maxProperties": 3,
    },
    "a least number of properties": {"type": "object", "additionalProperties": WHOLE, "minProperties": 2},
    "unique items": {"type": "array", "items": {"enum": [1, 2, 3]}, "uniqueItems": True, "minItems": 2},
    "what must not be": {"type": "object", "properties": {"a": {"not": {"type": "string"}}}},
    "a condition": {
        **of(kind={"enum": ["a", "b"]}, value={}),
        "if": {"properties": {"kind": {"const": "a"}}},
        "then": {"properties": {"value": WHOLE}},
        "else": {"properties": {"value": TEXT}},
    },
    "what goes together": {
        "type": "object",
        "properties": {"card": WHOLE, "address": TEXT},
        "dependentRequired": {"card": ["address"]},
        "additionalProperties": False,
    },
    "what it contains": {"type": "array", "items": WHOLE, "contains": {"const": 7}, "maxItems": 5},
    "letters beyond ASCII": of(größe={"enum": ["groß", "klein", "😀"]}),
    "many properties": of(**{f"field_{index}": TEXT if index % 2 else WHOLE for index in range(30)}),
    "many optional properties": {
        "type": "object",
        "properties": {f"field_{index}": WHOLE for index in range(40)},
        "additionalProperties": False,
    },
    "a large enum": of(word={"enum": [f"word number {index}" for index in range(1000)]}),
    "a long array": {"type": "array", "items": WHOLE, "maxItems": 1000},
    "a long string": {"type": "string", "maxLength": 5000},
    "anything": {},
    "nothing": {"type": "object", "properties": {"a": False}, "required": ["a"]},
}


class Matcher(Protocol):
    """A reply that is held to a schema."""

    def mask(self) -> "np.ndarray[Any, np.dtype[np.bool_]]":
        """Which tokens may come, [vocabulary]."""
        ...

    def accept(self, token: int) -> bool:
        """Whether the reply is over."""
        ...


Compile = Callable[[dict[str, Any]], Callable[[], Matcher]]
"""A schema becomes what begins replies. Raises for one that it cannot hold them to."""


@dataclass(slots=True)
class Tried:
    """What became of one schema."""

    compile_seconds: float | None = None
    mask_seconds: list[float] = field(default_factory=lambda: list[float]())
    finished: int = 0
    wrong: str = ""
    """A reply that is not what was asked for."""
    refused: str = ""


def bits(words: "np.ndarray[Any, Any]", size: int) -> "np.ndarray[Any, np.dtype[np.bool_]]":
    return np.unpackbits(words.view(np.uint8), bitorder="little")[:size].astype(bool)


# ---- the libraries ----------------------------------------------------------------------------


def llguidance(tokenizer: PreTrainedTokenizerFast) -> Compile:
    from llguidance import LLMatcher
    from llguidance.hf import from_tokenizer

    wrapped, size = from_tokenizer(tokenizer), len(tokenizer)

    class Guided:
        def __init__(self, matcher: Any) -> None:
            self._matcher = matcher

        def mask(self) -> Any:
            return bits(np.frombuffer(self._matcher.compute_bitmask(), np.uint8), size)

        def accept(self, token: int) -> bool:
            if not self._matcher.consume_token(token):
                raise ValueError(self._matcher.get_error())
            return self._matcher.is_stopped()

    def compile_schema(schema: dict[str, Any]) -> Callable[[], Matcher]:
        matcher = LLMatcher(wrapped, LLMatcher.grammar_from_json_schema(schema))
        if matcher.is_error():
            raise ValueError(matcher.get_error())
        return lambda: Guided(matcher.deep_copy())

    return compile_schema


def xgrammar(tokenizer: PreTrainedTokenizerFast) -> Compile:
    import xgrammar  # pyright: ignore[reportMissingImports]

    size = len(tokenizer)
    info = xgrammar.TokenizerInfo.from_huggingface(
        tokenizer, vocab_size=size, stop_token_ids=cast(int, tokenizer.eos_token_id)
    )

    class Guided:
        def __init__(self, grammar: Any) -> None:
            self._matcher = xgrammar.GrammarMatcher(grammar)
            self._words = xgrammar.allocate_token_bitmask(1, size)

        def mask(self) -> Any:
            self._words.fill_(-1)  # it writes nothing where everything may come
            self._matcher.fill_next_token_bitmask(self._words)
            return bits(self._words.numpy()[0], size)

        def accept(self, token: int) -> bool:
            if not self._matcher.accept_token(token):
                raise ValueError("a token that the mask allows is refused")
            return self._matcher.is_terminated()

    def compile_schema(schema: dict[str, Any]) -> Callable[[], Matcher]:
        compiler = xgrammar.GrammarCompiler(info, max_threads=1, cache_enabled=False)
        grammar = compiler.compile_json_schema(schema, strict_mode=False)
        return lambda: Guided(grammar)

    return compile_schema


def outlines_core(tokenizer: PreTrainedTokenizerFast) -> Compile:
    from outlines_core import Guide, Index, Vocabulary  # pyright: ignore[reportMissingImports]
    from outlines_core.json_schema import (  # pyright: ignore[reportMissingImports]
        build_regex_from_schema,  # pyright: ignore[reportUnknownVariableType]
    )

    from corolla.token_texts import TokenTexts

    texts, size = TokenTexts(tokenizer), len(tokenizer)
    said: dict[bytes, list[int]] = {}
    for token in range(size):
        if raw := texts.raw(token):
            said.setdefault(raw, []).append(token)
    end: Any = tokenizer.eos_token_id
    vocabulary = Vocabulary(end, cast(Any, said))

    class Guided:
        def __init__(self, index: Any) -> None:
            self._guide = Guide(index)

        def mask(self) -> Any:
            allowed = np.zeros(size, dtype=bool)
            allowed[self._guide.get_tokens()] = True
            return allowed

        def accept(self, token: int) -> bool:
            if token == tokenizer.eos_token_id:
                return True
            self._guide.advance(token)
            return False

    def compile_schema(schema: dict[str, Any]) -> Callable[[], Matcher]:
        index = Index(build_regex_from_schema(json.dumps(schema)), vocabulary)
        return lambda: Guided(index)

    return compile_schema


LIBRARIES: dict[str, Callable[[PreTrainedTokenizerFast], Compile]] = {
    "llguidance": llguidance,
    "xgrammar": xgrammar,
    "outlines-core": outlines_core,
}


# ---- trying -----------------------------------------------------------------------------------


def train_tokenizer(size: int, megabytes: float) -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=[END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_sources(megabytes), trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=END)


def _sources(megabytes: float) -> Iterator[str]:
    left = megabytes * 2**20
    paths = sysconfig.get_paths()
    for folder in (paths["stdlib"], paths["purelib"]):
        for path in sorted(Path(folder).rglob("*.py")):
            text = path.read_text("utf-8", errors="ignore")
            left -= len(text)
            if left < 0:
                return
            yield text


def try_schema(compile_schema: Compile, schema: dict[str, Any], tokenizer: PreTrainedTokenizerFast) -> Tried:
    tried = Tried()
    started = time.perf_counter()
    try:
        begin = compile_schema(schema)
    except Exception as error:  # noqa: BLE001 - each library has its own
        tried.refused = f"{type(error).__name__}: {error}"[:120]
        return tried
    tried.compile_seconds = time.perf_counter() - started
    weights = np.ones(len(tokenizer))
    for text in (*ENDS, END):
        weights[cast(int, tokenizer.convert_tokens_to_ids(text))] = len(tokenizer) / 10
    weights[cast(int, tokenizer.eos_token_id)] = len(tokenizer) * 10.0
    random_source = random.Random(7)
    for _ in range(REPLIES):
        try:
            _draw(begin(), schema, tokenizer, weights, random_source, tried)
        except Exception as error:  # noqa: BLE001
            tried.wrong = f"{type(error).__name__}: {error}"[:120]
    return tried


def _draw(
    matcher: Matcher,
    schema: dict[str, Any],
    tokenizer: PreTrainedTokenizerFast,
    weights: "np.ndarray[Any, np.dtype[np.float64]]",
    random_source: random.Random,
    tried: Tried,
) -> None:
    ids: list[int] = []
    is_over = False
    while not is_over and len(ids) < MOST_TOKENS:
        started = time.perf_counter()
        allowed = matcher.mask()
        tried.mask_seconds.append(time.perf_counter() - started)
        chances = np.cumsum(weights * allowed)
        if not chances[-1]:
            raise ValueError("nothing may come")
        token = int(np.searchsorted(chances, random_source.random() * chances[-1], side="right"))
        is_over = matcher.accept(token)
        ids.append(token)
    if not is_over:
        return
    text = str(tokenizer.decode(ids, skip_special_tokens=True))
    tried.finished += 1
    try:
        checker = jsonschema.Draft202012Validator(
            schema, format_checker=jsonschema.Draft202012Validator.FORMAT_CHECKER
        )
        checker.validate(json.loads(text))
    except (ValueError, jsonschema.ValidationError) as error:
        tried.wrong = f"{text[:80]!r}: {str(error).splitlines()[0][:80]}"


def _in_process(work: Callable[[], Tried]) -> Tried:
    """Done in a process of its own, which is given up on when it takes too long."""
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe(duplex=False)

    def run(pipe: Connection) -> None:
        resource.setrlimit(resource.RLIMIT_AS, (MOST_BYTES, MOST_BYTES))
        pipe.send(work())

    process = context.Process(target=run, args=(theirs,), daemon=True)
    process.start()
    theirs.close()
    try:
        if ours.poll(SCHEMA_SECONDS):
            return ours.recv()
        return Tried(refused=f"took more than {SCHEMA_SECONDS:g} s")
    except EOFError:
        return Tried(refused="the process died")
    finally:
        process.kill()
        process.join()


def figures_of(tried: dict[str, Tried]) -> dict[str, Any]:
    compiled = {name: one for name, one in tried.items() if one.compile_seconds is not None}
    obeyed = [name for name, one in compiled.items() if one.finished and not one.wrong]
    compile_ms = np.array([1000 * (one.compile_seconds or 0) for one in compiled.values()])
    masks = np.array([1e6 * one for trial in compiled.values() for one in trial.mask_seconds])
    return {
        "compiled": len(compiled) / len(tried),
        "obeyed": len(obeyed) / len(tried),
        "disobeyed": {name: one.wrong for name, one in compiled.items() if one.wrong},
        "unfinished": [name for name, one in compiled.items() if not one.finished and not one.wrong],
        "refused": {name: one.refused for name, one in tried.items() if one.refused},
        "compile_ms": _spread(compile_ms),
        "mask_us": _spread(masks),
    }


def _spread(values: "np.ndarray[Any, Any]") -> dict[str, float]:
    p50, p99 = np.percentile(values, [50, 99]) if len(values) else (0.0, 0.0)
    return {"p50": round(float(p50), 2), "p99": round(float(p99), 2)}


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--full", action="store_true", help="a vocabulary of 128,000 tokens, not 32,000")
    full = parser.parse_args().full
    tokenizer = train_tokenizer(FULL_VOCABULARY if full else VOCABULARY, 60.0 if full else 12.0)
    report = Report("constraints", full)
    report.figures["vocabulary"] = len(tokenizer)
    report.figures["schemas"] = len(SCHEMAS)
    for name, library in LIBRARIES.items():
        try:
            compile_schema = library(tokenizer)
        except ImportError as error:
            print(f"{name} is left out: {error}; pip install 'corolla[compared]' brings it", flush=True)
            continue
        tried: dict[str, Tried] = {}
        for title, schema in SCHEMAS.items():
            tried[title] = one = _in_process(partial(try_schema, compile_schema, schema, tokenizer))
            print(f"{name}: {title}: {one.refused or one.wrong or f'{one.finished} finished'}", flush=True)
        report.figures[name] = {"version": version(name), **figures_of(tried)}
    report.print_last_line()
    return 0


if __name__ == "__main__":
    sys.exit(main())
