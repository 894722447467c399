"""Replies that have to be JSON: whatever the model would like to say, what comes is what was asked for."""

import json
from collections.abc import Sequence
from threading import current_thread
from typing import Any

import jsonschema
import pytest
import torch
from llguidance import LLMatcher

from corolla.constraints import GRAMMARS_KEPT, MOST_CALLS, Grammars, calls_schema
from corolla.exchange import Exchange
from corolla.generation import Completed, Head, generate
from corolla.reply import TextDelta
from corolla.sampling import Sampler
from corolla.schema_bounds import MAX_LEVELS
from corolla.text import TextCodec
from schema.errors import GenerationFailed, InvalidRequest
from schema.generation import GenerationRequest, JsonFormat, Message, Sampling, Stopping, Tool, Tools
from tests.corolla.fakes import Hops
from tests.corolla.test_token_texts import LOADED
from tests.corolla.test_tools import nested
from tests.corolla.tiny_text import END, byte_codec, scripted_head

GREEDY = Sampling(temperature=0)
POINT = {
    "type": "object",
    "properties": {"x": {"type": "integer"}, "tags": {"type": "array", "items": {"enum": ["a", "b"]}}},
    "required": ["x", "tags"],
    "additionalProperties": False,
}
TREE = {
    "$defs": {"leaf": {"type": "integer"}},
    "type": "object",
    "properties": {"leaf": {"$ref": "#/$defs/leaf"}, "next": {"$ref": "#"}},
    "additionalProperties": False,
}
TOOLS = Tools(
    functions=[Tool("plant", parameters=TREE), Tool("now"), Tool("any", parameters={})], must_call=True
)


@pytest.fixture(scope="module")
def codec() -> TextCodec:
    return byte_codec()


@pytest.fixture
def exchange() -> Exchange:
    made = Exchange()
    Hops(made)
    return made


def asked(
    schema: dict[str, Any] | None = POINT,
    sampling: Sampling = GREEDY,
    max_tokens: int | None = 200,
    stop_token_ids: Sequence[int] = (),
) -> GenerationRequest:
    return GenerationRequest(
        model="tiny",
        prompt="Hi",
        sampling=sampling,
        stopping=Stopping(max_tokens=max_tokens, stop_token_ids=list(stop_token_ids)),
        format=JsonFormat(schema),
    )


def drawn(codec: TextCodec, request: GenerationRequest, seed: int) -> tuple[str, bool]:
    """What a model that likes what ends things says, and whether it comes to an end."""
    constraint = codec.constraint(request)
    assert constraint is not None
    sampler = Sampler(request.sampling, [1], seed, constraint=constraint)
    noise = torch.Generator().manual_seed(seed)
    ids: list[int] = []
    closing = codec.encode_prompt('"}],:1')
    while not constraint.is_complete and len(ids) < 400:
        logits = torch.randn(END + 1, generator=noise)
        logits[closing] += 6.0
        logits[END] += 9.0
        ids.append(sampler.next_token(logits))
        if ids[-1] == END:
            return codec.decode(ids), True
    return codec.decode(ids), constraint.is_complete


async def reply(
    head: Head, exchange: Exchange, request: GenerationRequest, generated: Sequence[int] = ()
) -> tuple[str, Completed]:
    *deltas, end = [event async for event in generate(head, exchange, request, "ada", generated)]
    assert isinstance(end, Completed)
    return "".join(delta.text for delta in deltas if isinstance(delta, TextDelta)), end


@pytest.mark.parametrize("schema", [POINT, TREE, {"enum": ["é😀", 3]}, {"type": ["number", "null"]}])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_whatever_is_drawn_is_of_the_schema(
    codec: TextCodec, schema: dict[str, Any], temperature: float
) -> None:
    finished = 0
    for seed in range(10):
        text, is_over = drawn(codec, asked(schema, Sampling(temperature=temperature)), seed)
        if is_over:
            jsonschema.validate(json.loads(text), schema)
            finished += 1
    assert finished > 5


def test_a_schema_cannot_make_it_anything_but_json(codec: TextCodec) -> None:
    """By options of the library that holds replies to it."""
    options = {"x-guidance": {"item_separator": ";", "key_separator": "=", "whitespace_pattern": "x"}}
    tools = Tools(functions=[Tool("a", parameters=POINT | options)], must_call=True)
    chat = GenerationRequest(model="tiny", messages=[Message("user", "Hi")], tools=tools)
    for request in (asked(POINT | options), chat):
        texts = [text for text, is_over in (drawn(codec, request, seed) for seed in range(10)) if is_over]
        assert texts
        assert all(json.loads(text) for text in texts)


def test_without_a_schema_it_is_an_object(codec: TextCodec) -> None:
    texts = [text for text, is_over in (drawn(codec, asked(None), seed) for seed in range(10)) if is_over]
    assert texts
    assert all(isinstance(json.loads(text), dict) for text in texts)


def test_calls_are_of_the_functions_and_their_arguments(codec: TextCodec) -> None:
    request = GenerationRequest(model="tiny", messages=[Message("user", "Hi")], tools=TOOLS)
    names: set[str] = set()
    for seed in range(30):
        text, is_over = drawn(codec, request, seed)
        if not is_over:
            continue
        calls = json.loads(text)
        assert 1 <= len(calls) <= MOST_CALLS
        jsonschema.validate(calls, calls_schema(TOOLS))
        for call in calls:
            names.add(call["name"])
            jsonschema.validate(call["arguments"], TREE if call["name"] == "plant" else {"type": "object"})
    assert names == {"plant", "now", "any"}


def test_one_call_is_one_where_they_may_not_be_several(codec: TextCodec) -> None:
    one = Tools(functions=[Tool("now")], must_call=True, is_parallel=False)
    request = GenerationRequest(model="tiny", messages=[Message("user", "Hi")], tools=one)
    texts = [text for text, is_over in (drawn(codec, request, seed) for seed in range(10)) if is_over]
    assert {len(json.loads(text)) for text in texts} == {1}


def test_definitions_of_two_functions_are_not_mixed_up(codec: TextCodec) -> None:
    def function(name: str, kind: str) -> Tool:
        definitions = {"value": {"type": kind}}
        properties = {"v": {"$ref": "#/definitions/value"}}
        return Tool(name, parameters={"type": "object", "properties": properties, "definitions": definitions})

    schema = calls_schema(Tools(functions=[function("a", "integer"), function("b", "string")]))
    jsonschema.validate([{"name": "a", "arguments": {"v": 1}}], schema)
    jsonschema.validate([{"name": "b", "arguments": {"v": "1"}}], schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate([{"name": "a", "arguments": {"v": "1"}}], schema)


@pytest.mark.parametrize(
    ("schema", "said"),
    [
        ({"type": "array", "uniqueItems": True}, "uniqueItems"),
        ({"not": {"type": "string"}}, "not"),
        ({"x-guidance": {"lenient": True}, "not": {"type": "string"}}, "not"),
        ({"type": "string", "format": "nobody-knows"}, "nobody-knows"),
        ({"$ref": "https://relay.example/schema.json"}, "schema.json"),
        ({"type": "strange"}, "strange"),
        ({"type": "string", "pattern": "(a"}, "regex.*unclosed group"),
        ({"type": "integer", "multipleOf": 199_999}, "multipleOf"),
        ({"type": "string", "pattern": "^(x{1000}){1000}$"}, "pattern"),
        ({"const": "x" * 2**18}, "bytes"),
        ({"type": "object", "properties": {str(one): {} for one in range(2001)}}, "properties"),
    ],
)
def test_a_schema_that_cannot_be_honoured_is_refused_by_name(
    codec: TextCodec, schema: dict[str, Any], said: str
) -> None:
    with pytest.raises(InvalidRequest, match=said) as caught:
        codec.constraint(asked(schema))
    assert caught.value.param == "response_format"


@pytest.mark.parametrize("levels", [80, 900, 100_000])
def test_what_is_nested_too_deep_is_refused_by_name(codec: TextCodec, levels: int) -> None:
    tools = Tools(functions=[Tool("a", parameters=nested(levels))], must_call=True)
    chat = GenerationRequest(model="tiny", messages=[Message("user", "Hi")], tools=tools)
    for request, param in ((asked(nested(levels)), "response_format"), (chat, "tools")):
        with pytest.raises(InvalidRequest, match="deep") as caught:
            codec.constraint(request)
        assert caught.value.param == param


def test_what_is_as_deep_as_may_be_is_honoured(codec: TextCodec) -> None:
    parameters = nested(MAX_LEVELS // 2 - 1)
    tools = Tools(functions=[Tool("a", parameters=parameters)], must_call=True)
    chat = GenerationRequest(model="tiny", messages=[Message("user", "Hi")], tools=tools)
    assert codec.constraint(asked(parameters)) is not None
    assert codec.constraint(chat) is not None


def test_a_tool_whose_arguments_cannot_be_honoured_is_refused_by_name(codec: TextCodec) -> None:
    tools = Tools(functions=[Tool("a", parameters={"not": {"type": "object"}})], must_call=True)
    request = GenerationRequest(model="tiny", messages=[Message("user", "Hi")], tools=tools)
    with pytest.raises(InvalidRequest, match="not") as caught:
        codec.constraint(request)
    assert caught.value.param == "tools"


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Which schemas were compiled."""
    seen: list[str] = []
    library = LLMatcher.grammar_from_json_schema

    def compiling(schema: str, overrides: Any) -> str:
        seen.append(schema)
        return library(schema, overrides=overrides)

    monkeypatch.setattr(LLMatcher, "grammar_from_json_schema", compiling)
    return seen


def test_a_schema_is_compiled_once_and_each_reply_follows_it_alone(compiled: list[str]) -> None:
    codec = byte_codec()
    first, second = codec.constraint(asked()), codec.constraint(asked())
    assert first is not None
    assert second is not None
    for token in codec.encode_prompt('{"x":1,"tags":[]}'):
        first.accept(token)
    assert (first.is_complete, second.is_complete) == (True, False)
    assert drawn(codec, asked(), 1) == drawn(byte_codec(), asked(), 1)
    assert len(compiled) == 2


def test_only_the_last_grammars_are_kept(compiled: list[str]) -> None:
    codec = byte_codec()
    for index in [*range(GRAMMARS_KEPT + 1), 1, 0]:
        codec.constraint(asked({"const": index}))
    assert compiled.count('{"const": 1}') == 1
    assert compiled.count('{"const": 0}') == 2


def test_calls_in_another_format_are_refused(codec: TextCodec) -> None:
    request = GenerationRequest(
        model="tiny", messages=[Message("user", "Hi")], tools=TOOLS, format=JsonFormat()
    )
    with pytest.raises(InvalidRequest, match="no other format") as caught:
        codec.constraint(request)
    assert caught.value.param == "response_format"


@pytest.mark.parametrize("name", ["metaspace", "word pieces"])
def test_a_tokenizer_that_cannot_be_held_to_anything_says_so(name: str) -> None:
    tokenizer = LOADED[name]
    grammars = Grammars(tokenizer, len(tokenizer), frozenset({2}))
    with pytest.raises(InvalidRequest, match="tokenizer") as caught:
        grammars.constraint(asked(), frozenset({2}))
    assert caught.value.param == "response_format"


@pytest.mark.parametrize("name", ["byte level", "byte fallback"])
def test_tokens_of_several_bytes_are_held_to_it_too(name: str) -> None:
    tokenizer = LOADED[name]
    codec = TextCodec(tokenizer, len(tokenizer) + 3, frozenset({2}))
    constraint = codec.constraint(asked({"enum": ["The quick 😀"]}))
    assert constraint is not None
    ids: list[int] = []
    while not constraint.is_complete:
        scores = constraint.apply(torch.zeros(codec.vocab_size))
        ids.append(int(scores.argmax()))
        constraint.accept(ids[-1])
    assert json.loads(codec.decode(ids)) == "The quick 😀"


class TestAReply:
    async def test_ends_where_it_is_complete(self, exchange: Exchange) -> None:
        text, end = await reply(scripted_head('{"x":12,"tags":["a"]}, he said'), exchange, asked())
        assert (text, end.reason) == ('{"x":12,"tags":["a"]}', "stop")

    async def test_ends_with_the_models_end_token_where_more_could_come(self, exchange: Exchange) -> None:
        text, end = await reply(scripted_head("12"), exchange, asked({"type": "integer"}))
        assert (text, end.reason, end.usage.completion_tokens) == ("12", "stop", 3)

    async def test_says_nothing_else(self, exchange: Exchange) -> None:
        text, end = await reply(scripted_head("Well, maybe."), exchange, asked({"const": {"a": 1}}))
        assert (json.loads(text), end.reason) == ({"a": 1}, "stop")

    async def test_that_is_cut_off_is_not_complete(self, exchange: Exchange) -> None:
        text, end = await reply(scripted_head('{"x":12,"tags":[]}'), exchange, asked(max_tokens=5))
        assert (text, end.reason) == ('{"x":', "length")

    async def test_may_end_with_a_stop_token(self, exchange: Exchange, codec: TextCodec) -> None:
        comma = codec.encode_prompt(",")
        text, end = await reply(scripted_head('{"x":12,"tags":[]}'), exchange, asked(stop_token_ids=comma))
        assert (text, end.reason) == ('{"x":12', "stop")

    async def test_that_another_head_began_goes_on_within_it(
        self, exchange: Exchange, codec: TextCodec
    ) -> None:
        begun = codec.encode_prompt('{"x":1')
        text, end = await reply(scripted_head('2,"tags":["b"]} and'), exchange, asked(), begun)
        assert (text, end.reason) == ('{"x":12,"tags":["b"]}', "stop")

    async def test_that_another_head_began_otherwise_is_failed_by_name(
        self, exchange: Exchange, codec: TextCodec
    ) -> None:
        with pytest.raises(GenerationFailed, match="cannot be held"):
            await reply(scripted_head("x"), exchange, asked(), codec.encode_prompt("Hello"))

    async def test_is_scored_by_what_the_model_would_have_liked(self, exchange: Exchange) -> None:
        request = GenerationRequest(
            model="tiny",
            prompt="Hi",
            sampling=Sampling(temperature=0),
            format=JsonFormat({"const": 7}),
            logprobs=1,
        )
        *deltas, _ = [event async for event in generate(scripted_head("no"), exchange, request)]
        scored = [one for delta in deltas if isinstance(delta, TextDelta) for one in delta.scored]
        assert (scored[0].text, scored[0].top[0].text) == ("7", "n")
        assert scored[0].logprob < scored[0].top[0].logprob

    async def test_waits_for_its_grammar_in_a_thread_of_grammars(
        self, exchange: Exchange, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Neither on the loop nor among the threads that everybody shares."""
        head = scripted_head("7")
        threads: list[str] = []
        made = head.codec.grammars.constraint

        def noting(*given: Any) -> Any:
            threads.append(current_thread().name)
            return made(*given)

        monkeypatch.setattr(head.codec.grammars, "constraint", noting)
        await reply(head, exchange, asked({"const": 7}))
        assert [name.startswith("grammars") for name in threads] == [True]

    async def test_held_to_what_cannot_be_is_refused_before_anything_is_sent(self) -> None:
        exchange = Exchange()
        hops = Hops(exchange)
        with pytest.raises(InvalidRequest):
            await reply(scripted_head("x"), exchange, asked({"not": {}}))
        assert hops.messages == []
