"""Several replicas of the relay are one relay: volunteers and clients may be on any of them."""

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import openai
import pytest

from corolla.link import LinkOptions, dial
from tests.conftest import DEMO_MODEL, DEMO_SPANS, EXACT
from tests.replicated import Replicated, replicated, shared
from tests.test_token_travels import QUESTION, TOKENS, Client, encoded_question, whole_model

pytestmark = [pytest.mark.slow, pytest.mark.postgres]
NEAR = {"anemone": 0, "bellis": 1, "crocus": 0}
"""The replica that each volunteer is connected to."""


@pytest.fixture(scope="module")
def relay() -> Iterator[Replicated]:
    """The demo model over three volunteers on two replicas."""
    with shared() as between, replicated(between, DEMO_MODEL) as running:
        for name, span in DEMO_SPANS.items():
            running.plant(name, NEAR[name], "--blocks", span, *EXACT)
        running.wait_until_serving()
        yield running


@pytest.fixture(scope="module")
def expected() -> list[int]:
    return whole_model(encoded_question(), max_new_tokens=TOKENS, eos_token_id=-1)


@pytest.mark.parametrize("number", [0, 1])
async def test_64_greedy_tokens_are_those_of_the_whole_model(
    relay: Replicated, expected: list[int], number: int
) -> None:
    driver = Client()
    link = await dial(LinkOptions(relay.urls[number], relay.token("tests"), "driver", "tests"))
    driver.exchange.attach(link)
    running = asyncio.create_task(link.run(driver))
    try:
        over_the_swarm = await driver.greedy(encoded_question(), TOKENS)
    finally:
        link.close()
        await running
    assert over_the_swarm == expected


def test_a_chat_says_the_same_through_every_replica(relay: Replicated) -> None:
    token = relay.token("tests")

    def ask(url: str) -> str | None:
        with openai.OpenAI(base_url=f"{url}/v1", api_key=token, max_retries=0) as api:
            reply = api.chat.completions.create(
                model=DEMO_MODEL, messages=QUESTION, temperature=0, max_tokens=TOKENS
            )
        return reply.choices[0].message.content

    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(ask, relay.urls)
    assert first
    assert second == first
