"""Tools and formats of chats over REST, with OpenAI's own client."""

import asyncio
from typing import Any

import httpx
import openai
import pytest
from pydantic import BaseModel

from schema.generation import JsonFormat, Message, ToolCall, Tools
from schema.messages import CallMade, Delta, Generate
from tests.relay.core.peers import MODEL, ScriptedPeer, finish, say_texts
from tests.relay.core.rest_client import CHAT, QUESTION, answered, events_of
from tests.relay.core.support import RunningRelay

PLACE = {"type": "object", "properties": {"place": {"type": "string"}}, "required": ["place"]}
WEATHER: Any = {
    "type": "function",
    "function": {"name": "weather", "description": "Of a place.", "parameters": PLACE},
}
TIME: Any = {"type": "function", "function": {"name": "time"}}
CALLS = [("weather", '{"place": "Ulm"}'), ("time", "{}")]


async def call(head: ScriptedPeer, *calls: tuple[str, str], text: str = "") -> Generate:
    """Let a head answer the next request with a text and calls."""
    asked = await head.hear(Generate)
    if text:
        await say_texts(head, asked, text)
    for index, (name, arguments) in enumerate(calls):
        made = CallMade(index=index, name=name, arguments=arguments)
        await head.say(Delta(request=asked.request, text="", tokens=1, call=made))
    await finish(head, asked, reason="tool_calls")
    return asked


async def test_openais_client_gets_calls_and_gives_their_results(
    head: ScriptedPeer, assistant: openai.AsyncOpenAI
) -> None:
    request = assistant.chat.completions.create(**QUESTION, tools=[WEATHER, TIME])
    asked, reply = await asyncio.gather(call(head, *CALLS), request)
    assert asked.body.tools
    assert [one.name for one in asked.body.tools.functions] == ["weather", "time"]
    assert asked.body.tools.functions[0].parameters == PLACE
    assert (asked.body.tools.must_call, asked.body.tools.is_parallel) == (False, True)
    (choice,) = reply.choices
    assert (choice.finish_reason, choice.message.content) == ("tool_calls", None)
    assert choice.message.tool_calls
    made = [one for one in choice.message.tool_calls if one.type == "function"]
    assert [(one.function.name, one.function.arguments) for one in made] == CALLS
    assert len({one.id for one in made}) == 2

    results = [{"role": "tool", "tool_call_id": one.id, "content": one.function.name} for one in made]
    history: Any = [*QUESTION["messages"], choice.message, *results]
    request = assistant.chat.completions.create(model=MODEL, messages=history, tools=[WEATHER, TIME])
    asked, _ = await answered(head, request, "fine")
    assert asked.body.messages == [
        Message("user", "hello"),
        Message("assistant", "", [ToolCall(one.id, *pair) for one, pair in zip(made, CALLS, strict=True)]),
        Message("tool", "weather", tool_call_id=made[0].id, name="weather"),
        Message("tool", "time", tool_call_id=made[1].id, name="time"),
    ]


async def test_what_the_client_writes_out_may_go_before(
    head: ScriptedPeer, assistant: openai.AsyncOpenAI
) -> None:
    _, reply = await asyncio.gather(
        call(head, CALLS[0]), assistant.chat.completions.create(**QUESTION, tools=[WEATHER])
    )
    history: Any = [reply.choices[0].message.model_dump()]
    asked, _ = await answered(head, assistant.chat.completions.create(model=MODEL, messages=history), "x")
    assert asked.body.messages
    assert [one.name for one in asked.body.messages[0].tool_calls] == ["weather"]


async def test_the_clients_own_tools_are_accepted(head: ScriptedPeer, assistant: openai.AsyncOpenAI) -> None:
    tool = openai.pydantic_function_tool(Answer)
    asked, _ = await answered(head, assistant.chat.completions.create(**QUESTION, tools=[tool]), "x")
    assert asked.body.tools
    assert asked.body.tools.functions[0].name == "Answer"


async def test_calls_are_streamed_as_openais_client_expects(
    head: ScriptedPeer, assistant: openai.AsyncOpenAI
) -> None:
    async def streamed() -> Any:
        async with assistant.chat.completions.stream(**QUESTION, tools=[WEATHER, TIME]) as stream:
            kinds = [event.type async for event in stream]
            return kinds, await stream.get_final_completion()

    _, (kinds, reply) = await asyncio.gather(call(head, *CALLS, text="Let me see."), streamed())
    (choice,) = reply.choices
    assert choice.message.content == "Let me see."
    assert [(one.function.name, one.function.arguments) for one in choice.message.tool_calls] == CALLS
    assert choice.finish_reason == "tool_calls"
    assert kinds.count("tool_calls.function.arguments.done") == 2


async def test_a_streamed_call_is_named_first_and_only_once(
    head: ScriptedPeer, http: httpx.AsyncClient
) -> None:
    body = QUESTION | {"tools": [WEATHER], "stream": True}
    _, response = await asyncio.gather(call(head, CALLS[0]), http.post(CHAT, json=body))
    deltas = [event["choices"][0]["delta"] for event in events_of(response.text)[:-1]]
    first, second = [delta["tool_calls"][0] for delta in deltas if "tool_calls" in delta]
    assert first.pop("id").startswith("call_")
    assert first == {"index": 0, "type": "function", "function": {"name": "weather", "arguments": ""}}
    assert second == {"index": 0, "function": {"arguments": CALLS[0][1]}}


@pytest.mark.parametrize(
    ("choice", "names", "must_call"),
    [
        ("auto", ["weather", "time"], False),
        ("required", ["weather", "time"], True),
        ({"type": "function", "function": {"name": "time"}}, ["time"], True),
    ],
)
async def test_which_functions_must_be_called(
    head: ScriptedPeer, http: httpx.AsyncClient, choice: Any, names: list[str], must_call: bool
) -> None:
    body = QUESTION | {"tools": [WEATHER, TIME], "tool_choice": choice, "parallel_tool_calls": False}
    asked, _ = await answered(head, http.post(CHAT, json=body), "x")
    tools = asked.body.tools
    assert isinstance(tools, Tools)
    assert [one.name for one in tools.functions] == names
    assert (tools.must_call, tools.is_parallel) == (must_call, False)


async def test_tools_that_must_not_be_used_are_not_told(head: ScriptedPeer, http: httpx.AsyncClient) -> None:
    asked, _ = await answered(
        head, http.post(CHAT, json=QUESTION | {"tools": [WEATHER], "tool_choice": "none"}), "x"
    )
    assert asked.body.tools is None


class Answer(BaseModel):
    """A schema as pydantic writes it."""

    number: int


async def test_openais_client_parses_a_reply_of_a_schema(
    head: ScriptedPeer, assistant: openai.AsyncOpenAI
) -> None:
    request = assistant.chat.completions.parse(**QUESTION, response_format=Answer)
    asked, reply = await answered(head, request, '{"number"', ": 5}")
    assert asked.body.format
    assert asked.body.format.schema
    assert asked.body.format.schema["required"] == ["number"]
    assert reply.choices[0].message.parsed == Answer(number=5)


async def test_any_json_is_a_format_too(head: ScriptedPeer, http: httpx.AsyncClient) -> None:
    body = QUESTION | {"response_format": {"type": "json_object"}}
    asked, _ = await answered(head, http.post(CHAT, json=body), "{}")
    assert asked.body.format == JsonFormat()


async def test_another_head_makes_no_call_twice(
    relay: RunningRelay, head: ScriptedPeer, assistant: openai.AsyncOpenAI
) -> None:
    request = assistant.chat.completions.create(**QUESTION, tools=[WEATHER, TIME])
    posting = asyncio.create_task(request)
    asked = await head.hear(Generate)
    made = CallMade(index=0, name=CALLS[0][0], arguments=CALLS[0][1])
    await head.say(Delta(request=asked.request, text="", tokens=5, ids=[1, 2, 3, 4, 5], call=made))
    await head.is_served()
    head.reset()
    other = await relay.serving(head=True)
    again = await call(other, *CALLS)
    assert again.generated == [1, 2, 3, 4, 5]
    calls = (await posting).choices[0].message.tool_calls
    assert [one.function.name for one in calls or () if one.type == "function"] == ["weather", "time"]
