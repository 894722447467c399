"""The main promise: blocks spread over processes that only dialled out answer as the whole model does."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
import torch
from openai.types.chat import ChatCompletionMessageParam
from transformers import AutoTokenizer, LlamaForCausalLM

import corolla
from benchmarks.processes import relay, volunteers
from corolla.exchange import Exchange
from corolla.link import LinkOptions, dial
from corolla.models.head import HeadModel
from corolla.models.source import ModelSource
from corolla.session import open_session
from corolla.tensors import from_wire, to_wire
from schema.frames import Header
from schema.messages import FromRelay
from tests.conftest import DEMO_MODEL, EXACT, Swarm

DEMO_FOLDER = Path(corolla.__file__).parent / "demo_model"
QUESTION: list[ChatCompletionMessageParam] = [
    {"role": "user", "content": "Tell me a short story about a fox."}
]
TOKENS = 64


@pytest.fixture(scope="module")
def one_volunteer() -> Iterator[Swarm]:
    """The whole demo model on a single volunteer."""
    with relay(DEMO_MODEL) as server, volunteers(server, {"alone": "0:12"}, *EXACT) as running:
        yield Swarm(server, running, server.token("client", "tests"))


def client(swarm: Swarm) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{swarm.url}/v1", api_key=swarm.client_token, max_retries=0)


def encoded_question() -> list[int]:
    tokenizer = AutoTokenizer.from_pretrained(DEMO_FOLDER)
    return tokenizer.apply_chat_template(QUESTION, add_generation_prompt=True)["input_ids"]


def whole_model(prompt: list[int], **options: int) -> list[int]:
    """Greedy tokens of `generate` on all blocks in this process."""
    model: Any = LlamaForCausalLM.from_pretrained(DEMO_FOLDER, dtype=torch.float32).eval()
    with torch.no_grad():
        output = model.generate(torch.tensor([prompt]), do_sample=False, **options)
    return output[0, len(prompt) :].tolist()


class Client:
    """A driver with a head of its own: what a researcher's process is to the swarm."""

    def __init__(self) -> None:
        self.exchange = Exchange()
        self.head = HeadModel.load(ModelSource.open(str(DEMO_FOLDER)))

    def on_frame(self, header: Header, message: bytes) -> None:
        self.exchange.on_frame(header, message)

    def on_message(self, message: FromRelay) -> None:
        self.exchange.on_message(message)

    async def greedy(self, prompt: list[int], tokens: int) -> list[int]:
        """Tokens over the swarm; end tokens do not end it."""
        chosen: list[int] = []
        async with await open_session(self.exchange, DEMO_MODEL) as session:
            assert [hop.name for hop in session.grant.hops] == ["anemone", "bellis", "crocus"]
            hidden = await session.prefill([to_wire(self.head.embed(torch.tensor([prompt])))])
            while len(chosen) < tokens:
                logits = self.head.logits(from_wire(hidden, "cpu", torch.float32))
                chosen.append(int(logits[0, -1].argmax()))
                step = self.head.embed(torch.tensor([chosen[-1:]]), position=session.position)
                hidden = await session.decode(to_wire(step))
        return chosen


async def test_64_greedy_tokens_are_those_of_the_whole_model(swarm: Swarm) -> None:
    prompt = encoded_question()
    driver = Client()
    link = await dial(LinkOptions(swarm.url, swarm.client_token, "driver", "tests"))
    driver.exchange.attach(link)
    running = asyncio.create_task(link.run(driver))
    try:
        over_the_swarm = await driver.greedy(prompt, TOKENS)
    finally:
        link.close()
        await running
    tokenizer = AutoTokenizer.from_pretrained(DEMO_FOLDER)
    expected = whole_model(prompt, max_new_tokens=TOKENS, eos_token_id=-1)
    assert len(expected) == TOKENS
    assert over_the_swarm == expected, tokenizer.decode(over_the_swarm)


def test_a_greedy_chat_says_what_the_whole_model_says(swarm: Swarm) -> None:
    with client(swarm) as api:
        reply = api.chat.completions.create(
            model=DEMO_MODEL, messages=QUESTION, temperature=0, max_tokens=200
        )
    expected = whole_model(encoded_question(), max_new_tokens=200)
    tokenizer = AutoTokenizer.from_pretrained(DEMO_FOLDER)
    assert reply.choices[0].message.content == tokenizer.decode(expected, skip_special_tokens=True)
    assert reply.usage is not None
    assert reply.usage.completion_tokens == len(expected)


def test_seeded_sampling_is_equal_on_one_volunteer_and_on_three(swarm: Swarm, one_volunteer: Swarm) -> None:
    def sampled(where: Swarm) -> str | None:
        with client(where) as api:
            reply = api.chat.completions.create(
                model=DEMO_MODEL, messages=QUESTION, temperature=1.3, seed=11, max_tokens=TOKENS
            )
        return reply.choices[0].message.content

    first = sampled(swarm)
    assert first
    assert sampled(one_volunteer) == first
