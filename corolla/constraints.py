"""Replies that have to be JSON: which tokens may come next, so that what was asked for comes out.

A grammar (llguidance) follows the reply token by token and says before each one what may come. It refuses
what it cannot hold a reply to, by name, and so does this. Where the grammar is complete the reply is over.
Does not know how a token is drawn among those that may come.
"""

import asyncio
import json
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from threading import Lock
from typing import Any, NamedTuple

import msgspec
import numpy as np
import torch
from llguidance import LLMatcher, LLParserLimits, LLTokenizer
from llguidance.hf import from_tokenizer
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from corolla.schema_bounds import check_bounds, check_size
from schema.errors import GenerationFailed, InvalidRequest
from schema.generation import GenerationRequest, JsonFormat, Tools

MOST_CALLS = 16
"""In one reply that has to be calls."""
GRAMMARS_KEPT = 16
"""Compiled ones, of the schemas that were asked for last: each takes some MB at most."""
MAX_LEXER_STATES, MAX_GRAMMAR_SIZE = 50_000, 50_000
"""What the library may build for one reply: a state takes up to 2 KB. Its own bounds are five and ten
times as large."""
_LIBRARYS_OPTIONS = "x-guidance"
"""What a schema could set some of the library's options with: separators, say, that are none of JSON."""
_CAUSE_CHARS = 300
"""Of the library's words, as much as is told."""
_OPTIONS: Any = {
    "lenient": False,
    # Without a bound, a model that has nothing to say goes on with spaces for ever.
    "whitespace_pattern": r"[ \n\r\t]{1,40}",
}


class GrammarConstraint:
    """Holds one reply to a grammar. Owner: the reply's sampler."""

    def __init__(self, matcher: LLMatcher, ends: frozenset[int]) -> None:
        """`ends`: tokens that end a reply, whatever the grammar says of them."""
        self._matcher = matcher
        self._ends = ends

    @property
    def is_complete(self) -> bool:
        """Nothing may come but the end."""
        return self._matcher.is_stopped()

    def apply(self, scores: Tensor) -> Tensor:
        """The scores [vocab], minus infinity for what must not come next.

        Raises GenerationFailed: nothing may, or it is more than the library takes.
        """
        words = np.frombuffer(self._matcher.compute_bitmask(), dtype=np.uint8)
        if self._matcher.is_error():
            raise self._failed()
        allowed = np.unpackbits(words, count=len(scores), bitorder="little")
        if not allowed.any():
            raise GenerationFailed("No token of this model can go on in the format that was asked for.")
        forbidden = torch.from_numpy(allowed).to(scores.device) == 0
        return scores.masked_fill(forbidden, -torch.inf)

    def accept(self, token: int) -> None:
        """Raises GenerationFailed for a token that may not come; one that another head has drawn, say."""
        if token not in self._ends and not self._matcher.consume_token(token):
            raise self._failed()

    def _failed(self) -> GenerationFailed:
        cause = _in_one_line(self._matcher.get_error())
        return GenerationFailed(f"The reply cannot be held to the format that was asked for: {cause}")


class _Asked(NamedTuple):
    """What a reply is to be held to."""

    format: JsonFormat | Tools
    key: bytes
    """It as JSON."""
    param: str
    """The request's field that asks for it."""


class Grammars:
    """Of one model's tokens. Made once: that takes a second for a large vocabulary. Threads may share it.

    Owns the thread in which grammars are compiled, and those that were compiled last.
    """

    def __init__(self, tokenizer: object, vocabulary: int, ends: frozenset[int]) -> None:
        """`vocabulary`: how wide the model's logits are. `ends`: tokens that end its replies."""
        self._limits = LLParserLimits(max_lexer_states=MAX_LEXER_STATES, max_grammar_size=MAX_GRAMMAR_SIZE)
        self._kept: OrderedDict[bytes, LLMatcher] = OrderedDict()
        self._lock = Lock()
        self._worker = ThreadPoolExecutor(1, "grammars")
        self._tokens: LLTokenizer | None = None
        self._refusal = "it has none of the library's own kind"
        if isinstance(tokenizer, PreTrainedTokenizerFast):
            size = max(vocabulary, len(tokenizer))
            try:
                self._tokens = from_tokenizer(tokenizer, n_vocab=size, eos_token=sorted(ends) or None)
            except ValueError as error:
                self._refusal = str(error)

    async def constraint_aside(
        self, request: GenerationRequest, ends: frozenset[int]
    ) -> GrammarConstraint | None:
        """As `constraint`. What has to be compiled is, in the own thread: one after the other."""
        asked = _asked_of(request)
        if asked is None or self._find(asked.key) is not None:
            return self.constraint(request, ends)
        return await asyncio.get_running_loop().run_in_executor(self._worker, self.constraint, request, ends)

    def constraint(self, request: GenerationRequest, ends: frozenset[int]) -> GrammarConstraint | None:
        """What its reply is to be held to; None: to nothing. `ends`: tokens that end this reply.

        Raises:
            InvalidRequest: a schema that cannot be honoured, or this tokenizer cannot, or that is too large.
        """
        asked = _asked_of(request)
        if asked is None:
            return None
        made = self._find(asked.key) or self._compiled(asked)
        return GrammarConstraint(made.deep_copy(), ends)

    def _find(self, key: bytes) -> LLMatcher | None:
        with self._lock:
            found = self._kept.get(key)
            if found is not None:
                self._kept.move_to_end(key)
            return found

    def _compiled(self, asked: _Asked) -> LLMatcher:
        """At the beginning of a reply; for copies of it, so that it stays there."""
        if self._tokens is None:
            raise InvalidRequest(
                f"This model's replies cannot be held to a format, because of its tokenizer: {self._refusal}",
                param=asked.param,
            )
        schema = _schema_of(asked)
        try:
            grammar = LLMatcher.grammar_from_json_schema(json.dumps(schema), overrides=_OPTIONS)
        except ValueError as error:
            raise _refused(str(error), asked.param) from error
        matcher = LLMatcher(self._tokens, grammar, log_level=0, limits=self._limits)
        cause = matcher.get_error() or "; ".join(matcher.get_grammar_warnings())
        if cause:
            raise _refused(cause, asked.param)
        matcher.compute_bitmask()  # so that what it cannot even begin with is the request's error
        if matcher.is_error():
            raise _refused(matcher.get_error(), asked.param)
        with self._lock:
            self._kept[asked.key] = matcher
            if len(self._kept) > GRAMMARS_KEPT:
                self._kept.popitem(last=False)
        return matcher


def _asked_of(request: GenerationRequest) -> _Asked | None:
    """Raises InvalidRequest for what is too large to look at, or two things at once."""
    tools = request.tools
    if tools is not None and tools.must_call:
        if request.format is not None:
            raise InvalidRequest(
                "A reply that has to be tool calls has no other format.", param="response_format"
            )
        return _asked(tools, "tools")
    return None if request.format is None else _asked(request.format, "response_format")


def _asked(asked: JsonFormat | Tools, param: str) -> _Asked:
    try:
        key = msgspec.json.encode(asked)
    except RecursionError as error:
        raise _refused("it is too deep", param) from error
    check_size(key, param)
    return _Asked(asked, key, param)


def _schema_of(asked: _Asked) -> dict[str, Any]:
    """Raises InvalidRequest for one that asks for too much."""
    if isinstance(asked.format, JsonFormat):
        check_bounds(asked.format.schema, asked.param)
        return format_schema(asked.format)
    check_bounds([function.parameters for function in asked.format.functions], asked.param)
    return calls_schema(asked.format)


def _refused(cause: str, param: str) -> InvalidRequest:
    return InvalidRequest(
        f"No reply can be held to this JSON Schema: {_in_one_line(cause)} Use a simpler one.", param=param
    )


def _in_one_line(cause: str) -> str:
    """The library's words, without the state that it tells behind them."""
    said = cause.split("\n<", 1)[0]
    return " ".join(said.split())[:_CAUSE_CHARS]


def format_schema(asked: JsonFormat) -> dict[str, Any]:
    """The JSON Schema of a reply; of any object where there is none."""
    if asked.schema is None:
        return {"type": "object"}
    return {key: one for key, one in asked.schema.items() if key != _LIBRARYS_OPTIONS}


def calls_schema(tools: Tools) -> dict[str, Any]:
    """The JSON Schema of a reply that has to be calls: an array of names with arguments."""
    nothing: dict[str, Any] = {"properties": {}, "additionalProperties": False}
    definitions: dict[str, Any] = {}
    calls: list[dict[str, Any]] = []
    for index, function in enumerate(tools.functions):
        arguments, own = _relocated({"type": "object"} | (function.parameters or nothing), f"{index}_")
        definitions.update(own)
        calls.append(
            {
                "type": "object",
                "properties": {"name": {"const": function.name}, "arguments": arguments},
                "required": ["name", "arguments"],
                "additionalProperties": False,
            }
        )
    most = MOST_CALLS if tools.is_parallel else 1
    return {"$defs": definitions, "type": "array", "items": {"anyOf": calls}, "minItems": 1, "maxItems": most}


def _relocated(schema: dict[str, Any], prefix: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """A schema that is to be a part of another one, and the definitions that go to the other one's root.

    References are from a document's root: without this they would lead nowhere, or to another function's.
    """
    names = ("$defs", "definitions")
    moved = f"#/$defs/{prefix}"

    def at_root(value: Any) -> Any:
        if isinstance(value, list):
            return [at_root(one) for one in value]
        if not isinstance(value, dict):
            return value
        return {key: _moved(one, moved) if key == "$ref" else at_root(one) for key, one in value.items()}

    left_out = (*names, "$schema", "$id", _LIBRARYS_OPTIONS)
    body = at_root({key: one for key, one in schema.items() if key not in left_out})
    holders = [one for name in names if isinstance(one := schema.get(name), dict)]
    found = {name: one for holder in holders for name, one in holder.items()}
    definitions = {f"{prefix}{name}": at_root(one) for name, one in found.items()}
    definitions[f"{prefix}"] = body
    return body, definitions


def _moved(reference: Any, prefix: str) -> Any:
    if reference == "#":
        return prefix
    for holder in ("#/$defs/", "#/definitions/"):
        if isinstance(reference, str) and reference.startswith(holder):
            return prefix + reference.removeprefix(holder)
    return reference
