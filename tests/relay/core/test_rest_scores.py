"""Log-probabilities and echoed prompts over REST, in the shapes of chats and of text completions."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any, cast

import httpx
import msgspec
import openai
import pytest

from relay import turns
from relay.answering import put_together
from relay.choices import Choices, Numbered
from relay.rendering import ChatRendering, Heading, scores
from schema.generation import ScoredToken, Timing, TokenLogprob, Usage
from schema.messages import Cancel, Delta, Finished, Generate, PromptPart
from tests.relay.core.peers import FACTS, MODEL, ScriptedPeer, finish
from tests.relay.core.rest_client import CHAT, PROMPT, QUESTION, TEXT, assert_error, events_of
from tests.relay.core.support import RunningRelay

LOW = TokenLogprob("yes", b"yes", -9999.0)


def scored(raw: bytes, logprob: float, *top: TokenLogprob, first: bool = False) -> ScoredToken:
    return ScoredToken(raw.decode(errors="replace"), raw, logprob, list(top), first)


def euro(logprob: float) -> list[ScoredToken]:
    """A character of three bytes in two tokens."""
    return [scored(b"\xe2\x82", logprob, LOW), scored(b"\xac", logprob, LOW)]


async def say_scored(head: ScriptedPeer) -> Generate:
    """A reply of three tokens: `a` and a euro sign."""
    asked = await head.hear(Generate)
    first, second = euro(-0.5)
    for text, ids, tokens in (("a", [1], [scored(b"a", -0.25)]), ("", [2], [first]), ("€", [3], [second])):
        await head.say(Delta(request=asked.request, text=text, tokens=ids[0], ids=ids, scored=tokens))
    await finish(head, asked)
    return asked


async def test_a_chats_scores_have_openais_shape(head: ScriptedPeer, assistant: openai.AsyncOpenAI) -> None:
    request = assistant.chat.completions.create(**QUESTION, logprobs=True, top_logprobs=1)
    asked, reply = await asyncio.gather(say_scored(head), request)
    assert asked.body.logprobs == 1
    logprobs = reply.choices[0].logprobs
    assert logprobs
    assert logprobs.content
    assert [(one.token, one.bytes, one.logprob) for one in logprobs.content] == [
        ("a", [97], -0.25),
        ("\ufffd", [0xE2, 0x82], -0.5),
        ("\ufffd", [0xAC], -0.5),
    ]
    (top,) = logprobs.content[1].top_logprobs
    assert (top.token, top.bytes, top.logprob) == ("yes", list(b"yes"), -9999.0)
    assert logprobs.refusal is None


async def test_a_streamed_chat_tells_every_score_once(
    head: ScriptedPeer, assistant: openai.AsyncOpenAI
) -> None:
    async def streamed() -> tuple[str, list[str]]:
        text, tokens = "", []
        async for chunk in await assistant.chat.completions.create(**QUESTION, logprobs=True, stream=True):
            for choice in chunk.choices:
                text += choice.delta.content or ""
                if choice.logprobs and choice.logprobs.content:
                    tokens += [one.token for one in choice.logprobs.content]
        return text, tokens

    asked, (text, tokens) = await asyncio.gather(say_scored(head), streamed())
    assert asked.body.logprobs == 0
    assert (text, tokens) == ("a€", ["a", "\ufffd", "\ufffd"])


async def test_without_being_asked_for_there_are_none(
    head: ScriptedPeer, assistant: openai.AsyncOpenAI
) -> None:
    asked, reply = await asyncio.gather(say_scored(head), assistant.chat.completions.create(**QUESTION))
    assert asked.body.logprobs is None
    assert reply.choices[0].logprobs is None


async def say_prompt(head: ScriptedPeer, *, reply: bool) -> Generate:
    """A prompt of two tokens, and then perhaps a reply of one."""
    asked = await head.hear(Generate)
    prompt = [scored(b"Hi", 0.0, first=True), scored(b" you", -1.5, TokenLogprob(" me", b" me", -1.0))]
    for token in prompt:
        part = PromptPart(text=token.text, scored=[token])
        await head.say(Delta(request=asked.request, text="", tokens=0, prompt=part))
    if reply:
        token = scored(b"!", -0.1, TokenLogprob("!", b"!", -0.1))
        await head.say(Delta(request=asked.request, text="!", tokens=1, ids=[9], scored=[token]))
    await finish(head, asked, reason="length", tokens=int(reply))
    return asked


async def test_an_echoed_prompt_is_scored_without_a_reply(
    head: ScriptedPeer, assistant: openai.AsyncOpenAI
) -> None:
    """What evaluation harnesses ask for."""
    request = assistant.completions.create(model=MODEL, prompt="Hi you", echo=True, logprobs=1, max_tokens=0)
    asked, reply = await asyncio.gather(say_prompt(head, reply=False), request)
    assert (asked.body.echo, asked.body.stopping.max_tokens, asked.body.logprobs) == (True, 0, 1)
    (choice,) = reply.choices
    assert (choice.text, choice.finish_reason) == ("Hi you", "length")
    assert choice.logprobs
    assert choice.logprobs.tokens == ["Hi", " you"]
    assert choice.logprobs.token_logprobs == [None, -1.5]
    assert choice.logprobs.top_logprobs == [None, {" me": -1.0, " you": -1.5}]
    assert choice.logprobs.text_offset == [0, 2]


async def test_a_streamed_echo_goes_before_the_reply_and_offsets_go_on(
    head: ScriptedPeer, assistant: openai.AsyncOpenAI
) -> None:
    async def streamed() -> tuple[str, list[int]]:
        text, offsets = "", []
        asked: dict[str, Any] = {"model": MODEL, "prompt": "Hi you", "echo": True, "logprobs": 1}
        async for chunk in await assistant.completions.create(**asked, max_tokens=1, stream=True):
            for choice in chunk.choices:
                text += choice.text
                offsets += (choice.logprobs and choice.logprobs.text_offset) or []
        return text, offsets

    _, (text, offsets) = await asyncio.gather(say_prompt(head, reply=True), streamed())
    assert (text, offsets) == ("Hi you!", [0, 2, 6])


async def test_tokens_that_are_no_characters_are_told_apart(
    head: ScriptedPeer, assistant: openai.AsyncOpenAI
) -> None:
    request = assistant.completions.create(model=MODEL, prompt="x", logprobs=0)
    _, reply = await asyncio.gather(say_scored(head), request)
    logprobs = reply.choices[0].logprobs
    assert logprobs
    assert logprobs.tokens == ["a", "bytes:\\xe2\\x82", "bytes:\\xac"]
    assert logprobs.text_offset == [0, 1, 1]


async def test_another_head_tells_no_score_and_no_prompt_twice(
    relay: RunningRelay, head: ScriptedPeer, assistant: openai.AsyncOpenAI
) -> None:
    request = assistant.completions.create(model=MODEL, prompt="Hi you", echo=True, logprobs=1)
    posting = asyncio.create_task(request)
    asked = await head.hear(Generate)
    token = scored(b"!", -0.1)
    part = PromptPart(text="Hi you", scored=[scored(b"Hi you", 0.0, first=True)])
    await head.say(Delta(request=asked.request, text="", tokens=0, prompt=part))
    await head.say(Delta(request=asked.request, text="!", tokens=1, ids=[9], scored=[token]))
    await head.is_served()
    head.reset()
    other = await relay.serving(head=True)
    again = await other.hear(Generate)
    assert again.generated == [9]
    everything = Delta(
        request=again.request,
        text="!?",
        tokens=2,
        ids=[9, 8],
        scored=[token, scored(b"?", -0.2)],
        prompt=part,
    )
    await other.say(everything)
    await finish(other, again)
    (choice,) = (await posting).choices
    assert choice.text == "Hi you!?"
    assert choice.logprobs
    assert choice.logprobs.tokens == ["Hi you", "!", "?"]


# ---- answers with many scores ----

RESPONSES = "/v1/responses"
SCORED_CHAT = QUESTION | {"logprobs": True, "top_logprobs": 1}
SCORED_RESPONSE = {"model": MODEL, "input": "hello", "include": ["message.output_text.logprobs"]}


def assert_too_many(response: httpx.Response) -> None:
    error = assert_error(response, 413, "too_large", "invalid_request_error")
    assert "may have 12 log-probabilities" in error["message"]
    assert "ask for fewer tokens, replies or alternatives" in error["message"]


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (CHAT, SCORED_CHAT | {"max_tokens": 7}),
        (CHAT, SCORED_CHAT | {"max_tokens": 3, "n": 3}),
        (TEXT, PROMPT | {"logprobs": 12, "max_tokens": 1}),
        (RESPONSES, SCORED_RESPONSE | {"max_output_tokens": 13}),
        (RESPONSES, SCORED_RESPONSE | {"max_output_tokens": 13, "stream": True}),
    ],
    ids=str,
)
async def test_too_many_scores_are_refused_before_anything_is_made(
    relay: RunningRelay, http: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch, path: str, body: Any
) -> None:
    """Nobody is there who could make it, which would be told otherwise."""
    monkeypatch.setattr(scores, "MAX_ANSWER_SCORES", 12)
    assert_too_many(await http.post(path, json=body))
    assert relay.refusals("too_large") == 1


async def test_a_reply_is_never_longer_than_the_models_context(
    head: ScriptedPeer, http: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scores, "MAX_ANSWER_SCORES", 2 * FACTS.context)
    posting = http.post(CHAT, json=SCORED_CHAT | {"max_tokens": 2 * FACTS.context})
    _, response = await asyncio.gather(say_scored(head), posting)
    assert response.status_code == 200


@pytest.mark.parametrize(("path", "body"), [(CHAT, SCORED_CHAT), (TEXT, PROMPT | {"logprobs": 1})], ids=str)
async def test_scores_that_become_too_many_are_refused_as_they_come(
    head: ScriptedPeer, http: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch, path: str, body: Any
) -> None:
    monkeypatch.setattr(scores, "MAX_ANSWER_SCORES", 12)
    posting = asyncio.create_task(http.post(path, json={**body, "max_tokens": 6}))
    asked = await head.hear(Generate)
    part = PromptPart(text="", scored=[scored(b"a", -1.0)])  # not asked for, and not counted
    await head.say(Delta(request=asked.request, text="", tokens=0, prompt=part))
    many = [scored(b"a", -1.0, LOW)] * 7
    await head.say(Delta(request=asked.request, text="aaaaaaa", tokens=7, ids=[1] * 7, scored=many))
    assert await head.hear(Cancel) == Cancel(request=asked.request)
    assert_too_many(await posting)


async def test_a_stream_that_keeps_no_scores_may_have_any_number(
    head: ScriptedPeer, http: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scores, "MAX_ANSWER_SCORES", 2)
    posting = http.post(CHAT, json=SCORED_CHAT | {"max_tokens": 3, "stream": True})
    _, response = await asyncio.gather(say_scored(head), posting)
    assert events_of(response.text)[-1] == "[DONE]"


async def test_a_response_that_would_say_too_many_at_its_end_breaks_off(
    head: ScriptedPeer, http: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scores, "MAX_ANSWER_SCORES", 2)
    posting = asyncio.create_task(http.post(RESPONSES, json=SCORED_RESPONSE | {"stream": True}))
    asked = await head.hear(Generate)
    await head.say(Delta(request=asked.request, text="a", tokens=1, ids=[1], scored=[scored(b"a", -1.0)]))
    await head.say(Delta(request=asked.request, text="bc", tokens=3, ids=[2, 3], scored=euro(-1.0)))
    assert await head.hear(Cancel) == Cancel(request=asked.request)
    failure = (await posting).text.rstrip().rsplit("data: ", 1)[1]
    assert msgspec.json.decode(failure)["response"]["error"]["code"] == "too_large"


class Said:
    """Replies that are all there already."""

    def __init__(self, *events: Numbered) -> None:
        self._events = events

    async def events(self) -> AsyncIterator[Numbered]:
        for event in self._events:
            yield event


async def test_others_have_their_turn_while_scores_are_put_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "TURN_SECONDS", 0.0)
    delta = Delta(request="r", text="a", tokens=1, ids=[1], scored=[scored(b"a", -1.0, LOW)])
    end = Finished(request="r", reason="stop", usage=Usage(1, 20, 21), timing=Timing(first_token=0, total=0))
    said = cast("Choices", Said(*[(0, delta)] * 20, (0, end)))
    rendering = ChatRendering(Heading("id", MODEL, None), 1, 1, include_usage=False)
    putting = asyncio.create_task(put_together(said, rendering))
    seen = 0
    while not putting.done():
        seen += 1
        await asyncio.sleep(0)
    assert seen >= 20
    answer = msgspec.json.decode(msgspec.json.encode(putting.result()))
    assert len(answer["choices"][0]["logprobs"]["content"]) == 20
