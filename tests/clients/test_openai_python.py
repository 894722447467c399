"""The `openai` package for Python: all that it can ask of a text model, over real volunteers."""

import asyncio
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import openai
import pytest
from openai.types.chat import ChatCompletionMessageParam, ChatCompletionToolParam
from pydantic import BaseModel
from tokenizers import Tokenizer
from tokenizers.decoders import ByteLevel as ByteLevelDecoder
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel
from transformers import PreTrainedTokenizerFast

from benchmarks.models import TINY, make_llama
from benchmarks.processes import relay, volunteer
from tests.conftest import DEMO_MODEL, Swarm
from tests.garden import MODEL, wait_until

pytestmark = pytest.mark.slow

QUESTION: list[ChatCompletionMessageParam] = [
    {"role": "user", "content": "Tell me a short story about a fox."}
]
ASKED: dict[str, Any] = {"model": DEMO_MODEL, "messages": QUESTION, "max_tokens": 24, "temperature": 0}
WEATHER: ChatCompletionToolParam = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather of a city.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"enum": ["Oslo", "Rome"]}},
            "required": ["city"],
            "additionalProperties": False,
        },
    },
}
TOOL_TEMPLATE = (
    "{% for tool in tools or [] %}{{ tool | tojson }}\n{% endfor %}"
    "{% for message in messages %}{{ message.content or '' }}"
    "{% for call in message.tool_calls or [] %}"
    "<tool_call>{{ call.function | tojson }}</tool_call>{% endfor %}"
    "\n{% endfor %}"
)
END = "<end>"
LONG = 400
"""Tokens, in which the demo model comes to its end."""
LETTERS = sorted(ByteLevel.alphabet())
"""The tokens of the model that knows tools: a byte each, in the letters of byte-level tokenizers."""
TERSE = {str(LETTERS.index(space)): -100 for space in "\u0120\u010a\u0109\u010d"} | {
    str(LETTERS.index("]")): 100
}
"""A bias against white space, and for the end of a list: a random model has no sense of either."""


def asked(**changes: Any) -> dict[str, Any]:
    """A chat's fields, but for these."""
    return ASKED | changes


class Fox(BaseModel):
    """What a reply is held to."""

    model_config = {"extra": "forbid"}
    is_red: bool
    legs: int


def client_of(url: str, token: str) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{url}/v1", api_key=token, max_retries=0)


@pytest.fixture(scope="module")
def client(swarm: Swarm) -> Iterator[openai.OpenAI]:
    with client_of(swarm.url, swarm.client_token) as made:
        yield made


@pytest.fixture(scope="module")
def assistant(tmp_path_factory: pytest.TempPathFactory) -> Iterator[openai.OpenAI]:
    """Of a relay whose only model knows tools."""
    folder = model_with_tools(tmp_path_factory.mktemp("tools"))
    with (
        relay(MODEL) as server,
        volunteer(server, "alone", "--blocks", "0:12", "--model", f"{MODEL}={folder}"),
        client_of(server.url, server.token("client", "tests")) as made,
    ):
        server.wait_until_serving(["alone"])
        yield made


class TestChats:
    def test_are_the_same_streamed_and_whole_and_asynchronous(
        self, client: openai.OpenAI, swarm: Swarm
    ) -> None:
        whole = client.chat.completions.create(**ASKED)
        streamed = client.chat.completions.create(**ASKED, stream=True)
        pieces = [chunk.choices[0].delta.content or "" for chunk in streamed]

        async def at_once() -> list[str | None]:
            async with openai.AsyncOpenAI(base_url=f"{swarm.url}/v1", api_key=swarm.client_token) as other:
                replies = await asyncio.gather(*(other.chat.completions.create(**ASKED) for _ in range(3)))
            return [reply.choices[0].message.content for reply in replies]

        text = whole.choices[0].message.content
        assert text
        assert "".join(pieces) == text
        assert asyncio.run(at_once()) == [text] * 3

    def test_tell_log_probabilities_that_fit_their_tokens(self, client: openai.OpenAI) -> None:
        reply = client.chat.completions.create(**ASKED, logprobs=True, top_logprobs=3)
        scored = reply.choices[0].logprobs
        assert scored is not None
        assert scored.content is not None
        assert "".join(one.token for one in scored.content) == reply.choices[0].message.content
        assert all(one.logprob == one.top_logprobs[0].logprob for one in scored.content), "it is greedy"
        assert {len(one.top_logprobs) for one in scored.content} == {3}

    def test_that_are_several_differ_and_come_again_with_their_seed(self, client: openai.OpenAI) -> None:
        drawn = asked(temperature=1.5, n=3, seed=5)
        first, again = (client.chat.completions.create(**drawn) for _ in range(2))
        texts = [choice.message.content for choice in first.choices]
        assert len(set(texts)) == 3
        assert [choice.message.content for choice in again.choices] == texts

    def test_are_held_to_a_class_of_pydantic(self, client: openai.OpenAI) -> None:
        reply = client.chat.completions.parse(**asked(max_tokens=200), response_format=Fox)
        assert isinstance(reply.choices[0].message.parsed, Fox)

    def test_whose_tools_the_model_does_not_know_are_refused_by_name(self, client: openai.OpenAI) -> None:
        with pytest.raises(openai.BadRequestError, match="tool"):
            client.chat.completions.create(**ASKED, tools=[WEATHER])


def test_a_completion_echoes_its_prompt_with_scores(client: openai.OpenAI) -> None:
    prompt = "Once upon a time"
    said = client.completions.create(model=DEMO_MODEL, prompt=prompt, max_tokens=0, echo=True, logprobs=1)
    scored = said.choices[0].logprobs
    assert said.choices[0].text == prompt
    assert scored is not None
    assert scored.token_logprobs is not None
    assert scored.token_logprobs[0] is None
    assert all(logprob < 0 for logprob in scored.token_logprobs[1:])


def test_a_response_is_the_chats_reply(client: openai.OpenAI) -> None:
    chat = client.chat.completions.create(**asked(max_tokens=LONG))
    said: dict[str, Any] = {"model": DEMO_MODEL, "max_output_tokens": LONG, "temperature": 0}
    response = client.responses.create(**said, input="Tell me a short story about a fox.")
    with client.responses.stream(**said, input="Tell me a short story about a fox.") as stream:
        streamed = stream.until_done().get_final_response()
    assert response.output_text == streamed.output_text == chat.choices[0].message.content


def test_vectors_of_like_texts_are_nearer(client: openai.OpenAI) -> None:
    texts = ["The fox lived in a small town.", "The fox lived in a large town.", "4 + 5 = 9"]
    found = client.embeddings.create(model=DEMO_MODEL, input=texts)
    first, like, other = ([*one.embedding] for one in found.data)
    assert sum(a * b for a, b in zip(first, like, strict=True)) > sum(
        a * b for a, b in zip(first, other, strict=True)
    )


def test_a_batch_answers_each_of_its_lines(client: openai.OpenAI) -> None:
    lines = [
        {"custom_id": f"line {n}", "method": "POST", "url": "/v1/chat/completions", "body": ASKED}
        for n in range(5)
    ]
    lines.append(lines[0] | {"custom_id": "odd", "body": asked(model="nothing")})
    content = "\n".join(map(json.dumps, lines)).encode()
    file = client.files.create(file=("lines.jsonl", content), purpose="batch")
    batch = client.batches.create(
        input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h"
    )
    wait_until(
        lambda: client.batches.retrieve(batch.id).status in ("completed", "failed", "expired"), "it has ended"
    )
    done = client.batches.retrieve(batch.id)
    assert done.status == "completed"
    assert done.request_counts
    assert (done.request_counts.completed, done.request_counts.failed) == (5, 1)
    output = [json.loads(line) for line in client.files.content(done.output_file_id or "").text.splitlines()]
    answers = [one["response"]["body"]["usage"] for one in output]
    assert done.usage
    assert done.usage.input_tokens == sum(one["prompt_tokens"] for one in answers) > 0
    assert done.usage.output_tokens == sum(one["completion_tokens"] for one in answers) > 0
    assert done.usage.total_tokens == done.usage.input_tokens + done.usage.output_tokens
    cached = sum(one.get("prompt_tokens_details", {}).get("cached_tokens", 0) for one in answers)
    assert done.usage.input_tokens_details.cached_tokens == cached
    assert done.usage.output_tokens_details.reasoning_tokens == 0
    alone = client.chat.completions.create(**ASKED).choices[0].message.content
    assert [one["custom_id"] for one in output] == [f"line {n}" for n in range(5)]
    assert {one["response"]["body"]["choices"][0]["message"]["content"] for one in output} == {alone}
    (error,) = client.files.content(done.error_file_id or "").text.splitlines()
    assert json.loads(error)["custom_id"] == "odd"


class TestTools:
    """Of a random model whose template knows tools: what it must call, it calls, with what it must."""

    def test_are_called_where_they_must_be(self, assistant: openai.OpenAI) -> None:
        reply = assistant.chat.completions.create(
            **asked(model=MODEL, max_tokens=LONG, logit_bias=TERSE),
            tools=[WEATHER],
            tool_choice="required",
        )
        (choice,) = reply.choices
        assert choice.finish_reason == "tool_calls"
        assert choice.message.tool_calls
        for call in choice.message.tool_calls:
            assert call.type == "function"
            assert call.function.name == "weather"
            assert json.loads(call.function.arguments)["city"] in ("Oslo", "Rome")

    def test_are_called_in_a_stream_too_and_their_results_go_back(self, assistant: openai.OpenAI) -> None:
        tersely = asked(model=MODEL, max_tokens=LONG, logit_bias=TERSE)
        with assistant.chat.completions.stream(
            **tersely, tools=[WEATHER], tool_choice="required", parallel_tool_calls=False
        ) as stream:
            message = stream.get_final_completion().choices[0].message
        assert message.tool_calls
        (call,) = message.tool_calls
        conversation: list[Any] = [
            *QUESTION,
            message,
            {"role": "tool", "tool_call_id": call.id, "content": "rain"},
        ]
        after = assistant.chat.completions.create(**tersely | {"messages": conversation, "max_tokens": 8})
        assert after.choices[0].finish_reason == "length"


def model_with_tools(folder: Path) -> Path:
    """A random Llama of one token for each byte."""
    make_llama(folder, replace(TINY, vocabulary=len(LETTERS) + 1))
    tokenizer = Tokenizer(BPE(vocab={letter: index for index, letter in enumerate(LETTERS)}, merges=[]))
    tokenizer.pre_tokenizer = ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = ByteLevelDecoder()
    wrapped = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=END)
    wrapped.chat_template = TOOL_TEMPLATE
    wrapped.save_pretrained(folder)
    return folder
