"""Where the time of a real swarm's reply went, as a page is told: nothing made up, nothing counted twice."""

from contextlib import AsyncExitStack

import msgspec
from websockets.asyncio.client import ClientConnection, connect

from schema import browser
from schema.generation import HopTiming, Message, Sampling, Stopping, Timing
from tests.conftest import DEMO_MODEL, DEMO_SPANS, Swarm

TOKENS = 40
_to_page: msgspec.json.Decoder[browser.ToPage] = msgspec.json.Decoder(browser.ToPage)


async def asked(page: ClientConnection, reply: str) -> Timing:
    chat = browser.Chat(
        id=reply,
        model=DEMO_MODEL,
        messages=[Message("user", "Tell me a short story about a fox.")],
        sampling=Sampling(temperature=0.0),
        stopping=Stopping(max_tokens=TOKENS),
    )
    await page.send(msgspec.json.encode(chat).decode())
    async for text in page:
        message = _to_page.decode(text)
        if isinstance(message, browser.ReplyDone):
            assert message.timing is not None
            assert message.usage is not None
            assert message.usage.completion_tokens == TOKENS
            return message.timing
        assert not isinstance(message, browser.PageError), message
    raise AssertionError("the page was closed")


def seconds(hops: list[HopTiming]) -> list[tuple[float, float, float]]:
    """What is known of each hop: computing, waiting, travelling."""
    found: list[tuple[float, float, float]] = []
    for hop in hops:
        assert hop.compute is not None
        assert hop.queue is not None
        assert hop.wire is not None
        found.append((hop.compute, hop.queue, hop.wire))
    return found


async def test_each_hops_computing_waiting_and_way_are_known_and_are_no_more_than_the_steps(
    swarm: Swarm,
) -> None:
    async with AsyncExitStack() as stack:
        address = swarm.url.replace("http", "ws", 1) + "/ws/chat"
        page = await stack.enter_async_context(connect(address, compression=None, proxy=None))
        timing = await asked(page, "1")
    assert [(hop.name, f"{hop.start}:{hop.end}") for hop in timing.route] == list(DEMO_SPANS.items())
    assert (len(timing.prefill), timing.repairs) == (3, 0)
    decode, prefill = seconds(timing.route), seconds(timing.prefill)
    assert all(min(parts) >= 0 and parts[0] > 0 for parts in decode + prefill)
    assert sum(wire for _, _, wire in decode) > 0
    (steps,) = {hop.steps for hop in timing.route}
    assert 2 <= steps < TOKENS / 8
    assert timing.head is not None
    assert timing.head.steps == TOKENS
    decoding = timing.total - timing.first_token
    assert steps * sum(map(sum, decode)) <= decoding
    assert timing.head.compute * (TOKENS - 1) <= timing.total
    assert sum(map(sum, prefill)) <= timing.first_token  # one slice
