"""`POST /v1/responses`: the text of OpenAI's Responses API, with its own client."""

import asyncio
from typing import Any

import httpx
import openai
import pytest
from pydantic import BaseModel

from schema.errors import KVCacheFull
from schema.generation import JsonFormat, Message, ScoredToken, ToolCall
from schema.messages import CallMade, Cancel, Delta, Generate
from tests.relay.core.peers import MODEL, PROMPT_TOKENS, ScriptedPeer, answer, fail, finish, say_texts
from tests.relay.core.rest_client import answered, assert_error
from tests.relay.core.support import RunningRelay

RESPONSES = "/v1/responses"
QUESTION: dict[str, Any] = {"model": MODEL, "input": "hello"}
WEATHER: Any = {
    "type": "function",
    "name": "weather",
    "description": "Of a place.",
    "parameters": {"type": "object"},
    "strict": True,
}


async def call(head: ScriptedPeer, text: str = "") -> Generate:
    """Let a head answer the next request with a text and a call."""
    asked = await head.hear(Generate)
    if text:
        await say_texts(head, asked, text)
    made = CallMade(index=0, name="weather", arguments='{"place": "Ulm"}')
    await head.say(Delta(request=asked.request, text="", tokens=1, call=made))
    await finish(head, asked, reason="tool_calls")
    return asked


async def test_openais_client_gets_a_response(head: ScriptedPeer, assistant: openai.AsyncOpenAI) -> None:
    request = assistant.responses.create(
        **QUESTION,
        instructions="Be short.",
        temperature=0.5,
        top_p=0.9,
        max_output_tokens=9,
        metadata={"a": "b"},
    )
    asked, reply = await answered(head, request, "Hel", "lo")
    assert asked.body.messages == [Message("system", "Be short."), Message("user", "hello")]
    assert (asked.body.sampling.temperature, asked.body.sampling.top_p) == (0.5, 0.9)
    assert asked.body.stopping.max_tokens == 9
    assert (reply.output_text, reply.status, reply.instructions) == ("Hello", "completed", "Be short.")
    assert (reply.metadata, reply.max_output_tokens, reply.error) == ({"a": "b"}, 9, None)
    assert reply.usage
    assert (reply.usage.input_tokens, reply.usage.output_tokens) == (PROMPT_TOKENS, 2)
    assert reply.store is False


async def test_a_response_that_reached_its_length_says_so(
    head: ScriptedPeer, assistant: openai.AsyncOpenAI
) -> None:
    _, reply = await answered(head, assistant.responses.create(**QUESTION), "cut", reason="length")
    assert reply.status == "incomplete"
    assert reply.incomplete_details
    assert reply.incomplete_details.reason == "max_output_tokens"


async def test_an_empty_response_is_a_response(head: ScriptedPeer, assistant: openai.AsyncOpenAI) -> None:
    _, reply = await answered(head, assistant.responses.create(**QUESTION))
    assert (reply.output_text, reply.status, len(reply.output)) == ("", "completed", 1)


async def test_openais_client_streams_a_response(head: ScriptedPeer, assistant: openai.AsyncOpenAI) -> None:
    async def streamed() -> list[Any]:
        return [event async for event in await assistant.responses.create(**QUESTION, stream=True)]

    _, events = await answered(head, streamed(), "Hel", "lo")
    assert [event.type for event in events] == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
        "response.output_text.delta",
        "response.output_text.delta",
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.completed",
    ]
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert (events[6].text, events[-1].response.output_text) == ("Hello", "Hello")
    assert {event.item_id for event in events[3:8]} == {events[2].item.id}


async def test_the_clients_own_helper_follows_the_stream(
    head: ScriptedPeer, assistant: openai.AsyncOpenAI
) -> None:
    async def streamed() -> Any:
        async with assistant.responses.stream(**QUESTION, tools=[WEATHER]) as stream:
            async for _ in stream:
                pass
            return await stream.get_final_response()

    _, reply = await asyncio.gather(call(head, "Let me see."), streamed())
    assert [item.type for item in reply.output] == ["message", "function_call"]
    assert reply.output_text == "Let me see."
    assert (reply.output[1].name, reply.output[1].arguments) == ("weather", '{"place": "Ulm"}')


async def test_calls_and_their_results_go_before(head: ScriptedPeer, assistant: openai.AsyncOpenAI) -> None:
    asked, reply = await asyncio.gather(
        call(head, "Let me see."),
        assistant.responses.create(**QUESTION, tools=[WEATHER], tool_choice="required"),
    )
    assert asked.body.tools
    assert ([one.name for one in asked.body.tools.functions], asked.body.tools.must_call) == (
        ["weather"],
        True,
    )
    made: Any = reply.output[1]
    result: Any = {"type": "function_call_output", "call_id": made.call_id, "output": "rain"}
    history: Any = [{"role": "user", "content": "hello"}, *reply.output, result]
    asked, _ = await answered(head, assistant.responses.create(model=MODEL, input=history), "fine")
    assert asked.body.messages == [
        Message("user", "hello"),
        Message("assistant", "Let me see.", [ToolCall(made.call_id, "weather", made.arguments)]),
        Message("tool", "rain", tool_call_id=made.call_id, name="weather"),
    ]


@pytest.mark.parametrize("way", ["model_dump", "to_dict"])
async def test_what_the_client_writes_out_may_go_before(
    head: ScriptedPeer, assistant: openai.AsyncOpenAI, way: str
) -> None:
    _, reply = await asyncio.gather(
        call(head, "Let me see."), assistant.responses.create(**QUESTION, tools=[WEATHER])
    )
    items: Any = [getattr(item, way)() for item in reply.output]
    asked, _ = await answered(head, assistant.responses.create(model=MODEL, input=items), "fine")
    assert asked.body.messages
    (turn,) = asked.body.messages
    assert (turn.content, [one.name for one in turn.tool_calls]) == ("Let me see.", ["weather"])


class Answer(BaseModel):
    """A schema as pydantic writes it."""

    number: int


async def test_openais_client_parses_a_response_of_a_schema(
    head: ScriptedPeer, assistant: openai.AsyncOpenAI
) -> None:
    request = assistant.responses.parse(**QUESTION, text_format=Answer)
    asked, reply = await answered(head, request, '{"number"', ": 5}")
    assert asked.body.format
    assert asked.body.format.schema
    assert reply.output_parsed == Answer(number=5)


async def test_openais_blocking_client_does_the_same(
    relay: RunningRelay, head: ScriptedPeer, token: str
) -> None:
    def ask() -> tuple[str, list[str]]:
        with openai.OpenAI(base_url=f"{relay.url}/v1", api_key=token, max_retries=0) as client:
            whole = client.responses.create(**QUESTION).output_text
            return whole, [event.type for event in client.responses.create(**QUESTION, stream=True)]

    asking = asyncio.create_task(asyncio.to_thread(ask))
    for _ in range(2):
        await answer(head, "Hel", "lo")
    whole, kinds = await asking
    assert (whole, kinds[0], kinds[-1]) == ("Hello", "response.created", "response.completed")


async def test_parts_of_messages_are_joined(head: ScriptedPeer, assistant: openai.AsyncOpenAI) -> None:
    parts: Any = [{"type": "input_text", "text": "a"}, {"type": "input_text", "text": "b"}]
    items: Any = [
        {"role": "developer", "content": "x"},
        {"role": "user", "content": parts, "type": "message"},
    ]
    asked, _ = await answered(head, assistant.responses.create(model=MODEL, input=items), "x")
    assert asked.body.messages == [Message("system", "x"), Message("user", "ab")]


async def test_a_format_is_held_to(head: ScriptedPeer, assistant: openai.AsyncOpenAI) -> None:
    form: Any = {"type": "json_schema", "name": "answer", "schema": {"type": "object"}, "strict": True}
    request = assistant.responses.create(**QUESTION, text={"format": form})
    asked, reply = await answered(head, request, "{}")
    assert asked.body.format == JsonFormat({"type": "object"})
    assert reply.text
    assert reply.text.format
    assert reply.text.format.type == "json_schema"


async def test_scores_are_told_where_they_are_asked_for(
    head: ScriptedPeer, assistant: openai.AsyncOpenAI
) -> None:
    async def say() -> Generate:
        asked = await head.hear(Generate)
        token = ScoredToken("x", b"x", -0.5)
        await head.say(Delta(request=asked.request, text="x", tokens=1, ids=[1], scored=[token]))
        await finish(head, asked)
        return asked

    include: Any = ["message.output_text.logprobs"]
    request = assistant.responses.create(**QUESTION, include=include, top_logprobs=2)
    asked, reply = await asyncio.gather(say(), request)
    assert asked.body.logprobs == 2
    message: Any = reply.output[0]
    assert [(one.token, one.logprob) for one in message.content[0].logprobs] == [("x", -0.5)]


async def test_a_stream_that_breaks_off_is_no_complete_response(
    head: ScriptedPeer, assistant: openai.AsyncOpenAI
) -> None:
    async def streamed() -> list[Any]:
        return [event async for event in await assistant.responses.create(**QUESTION, stream=True)]

    async def break_off() -> None:
        asked = await head.hear(Generate)
        await say_texts(head, asked, "half")
        await fail(head, asked, KVCacheFull("no room"))

    events, _ = await asyncio.gather(streamed(), break_off())
    assert events[-1].type == "response.failed"
    assert (events[-1].response.status, events[-1].response.error.code) == ("failed", "kv_cache_full")
    assert [event.sequence_number for event in events] == list(range(len(events)))


async def test_a_failure_before_the_first_token_is_a_status(
    head: ScriptedPeer, http: httpx.AsyncClient
) -> None:
    posting = asyncio.create_task(http.post(RESPONSES, json=QUESTION | {"stream": True}))
    await fail(head, await head.hear(Generate), KVCacheFull("no room", retry_after=2.0))
    assert_error(await posting, 503, "kv_cache_full", "server_error")


@pytest.mark.parametrize("stream", [False, True])
async def test_a_client_that_leaves_cancels(
    relay: RunningRelay, head: ScriptedPeer, http: httpx.AsyncClient, stream: bool
) -> None:
    posting = asyncio.create_task(http.post(RESPONSES, json=QUESTION | {"stream": stream}))
    asked = await head.hear(Generate)
    await say_texts(head, asked, "half")
    posting.cancel()
    assert await head.hear(Cancel) == Cancel(request=asked.request)
    assert len(relay.services.replies) == 0


@pytest.mark.parametrize(
    ("changes", "param"),
    [
        ({"store": True}, "store"),
        ({"previous_response_id": "resp_1"}, "previous_response_id"),
        ({"conversation": "conv_1"}, "conversation"),
        ({"background": True}, "background"),
        ({"reasoning": {"effort": "low"}}, "reasoning"),
        ({"truncation": "auto"}, "truncation"),
        ({"include": ["reasoning.encrypted_content"]}, "include"),
        ({"top_logprobs": 2}, "top_logprobs"),
        ({"tools": [{"type": "web_search"}]}, "tools"),
        ({"text": {"verbosity": "low"}}, "text"),
        ({"stop": "x"}, "stop"),
        ({"input": []}, "input"),
        ({"input": [{"role": "user"}]}, "input"),
        ({"input": [{"type": "function_call_output", "call_id": "c", "output": "x"}]}, "input"),
        ({"input": [{"type": "reasoning", "id": "r", "summary": []}]}, "input"),
        ({"input": [{"role": "user", "content": [{"type": "input_image"}]}]}, "input"),
    ],
    ids=lambda value: str(value)[:40],
)
async def test_what_is_not_served_is_refused_by_name(
    http: httpx.AsyncClient, changes: dict[str, Any], param: str
) -> None:
    response = await http.post(RESPONSES, json=QUESTION | changes)
    assert assert_error(response, 400, "invalid_request", "invalid_request_error")["param"] == param
