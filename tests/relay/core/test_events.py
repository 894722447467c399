"""relay/events.py and relay/feed.py: readers are told what changes, and when they have missed something."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import msgspec
import pytest
from jsonschema import ValidationError

from relay import events, feed
from relay.feed import MOST_WAITING, changes
from relay.handover import hand_over
from schema.credentials import TokenKind, parse_credential
from schema.overview import SwarmEvent
from schema.swarm import ModelStatus, SwarmStatus, VolunteerStatus
from tests.described import assert_described, assert_event_described
from tests.relay.core.peers import ScriptedPeer, offer
from tests.relay.core.rest_client import assert_error, client_of
from tests.relay.core.support import RunningRelay
from tests.relay.core.waiting import DEADLINE, eventually

PATH = "/api/events"


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed, "PACE_SECONDS", 0.0)


class Listener:
    """Reads one stream, event by event."""

    def __init__(self, answer: httpx.Response) -> None:
        self.answer = answer
        self._lines = answer.aiter_lines()

    async def next(self) -> tuple[str, Any]:
        """The next event: its name and its data, which are as described."""
        async with asyncio.timeout(DEADLINE):
            name = ""
            async for line in self._lines:
                field, _, value = line.partition(": ")
                if field == "event":
                    name = value
                elif field == "data":
                    data = msgspec.json.decode(value)
                    assert_event_described(PATH, data)
                    assert name == data.get("type", "error")
                    return name, data
        raise AssertionError("the stream has ended")

    async def named(self, name: str) -> Any:
        """The data of the next event of this name."""
        while True:
            found, data = await self.next()
            if found == name:
                return data

    async def comment(self) -> str:
        async with asyncio.timeout(DEADLINE):
            return await anext(line async for line in self._lines if line.startswith(":"))

    async def end(self) -> None:
        """Return when the stream is over."""
        async with asyncio.timeout(DEADLINE):
            async for _ in self._lines:
                pass


@asynccontextmanager
async def listening(http: httpx.AsyncClient) -> AsyncIterator[Listener]:
    async with http.stream("GET", PATH) as answer:
        assert answer.status_code == 200
        assert_described(answer)
        assert answer.headers["Content-Type"] == "text/event-stream; charset=utf-8"
        yield Listener(answer)


async def test_a_reader_is_told_the_swarm_and_then_what_changes(
    relay: RunningRelay, http: httpx.AsyncClient
) -> None:
    async with listening(http) as listener:
        name, first = await listener.next()
        assert (name, first["type"], first["swarm"]["volunteers"]) == ("swarm", "swarm", [])
        volunteer = await relay.serving(head=True, name="Ada")
        assert (await listener.named("joined"))["volunteer"]["name"] == "Ada"
        assert (await listener.named("serving"))["volunteer"]["id"] == volunteer.id
        assert (await listener.named("model"))["model"]["complete"] is True
        await volunteer.close()
        assert (await listener.named("left"))["volunteer"]["id"] == volunteer.id
        assert (await listener.named("model"))["model"]["complete"] is False


async def test_nothing_is_compared_for_nobody(relay: RunningRelay, http: httpx.AsyncClient) -> None:
    async with listening(http) as listener:
        await listener.next()
        assert len(relay.services.feed) == 1
    await eventually(lambda: not len(relay.services.feed))
    await relay.serving()
    async with listening(http) as listener:
        assert len((await listener.named("swarm"))["swarm"]["volunteers"]) == 1


async def test_silence_is_filled_so_that_proxies_see_life(
    relay: RunningRelay, http: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "SILENCE_SECONDS", 0.01)
    async with listening(http) as listener:
        await listener.next()
        assert await listener.comment() == ": the swarm is as it was"


async def test_a_stream_ends_with_the_reason_when_its_token_is_revoked(
    relay: RunningRelay, http: httpx.AsyncClient, token: str
) -> None:
    async with listening(http) as listener:
        await listener.next()
        relay.services.hub.end_revoked([parse_credential(token).id])
        error = (await listener.named("error"))["error"]
        assert error["code"] == "unauthorized"
        await listener.end()
    assert relay.refusals("unauthorized") == 1


async def test_a_replica_that_stops_waits_for_no_reader(relay: RunningRelay, http: httpx.AsyncClient) -> None:
    async with listening(http) as listener:
        await listener.next()
        await hand_over(relay.services, lambda: False)
        await listener.end()


async def test_too_many_readers_are_told_when_to_come_back(
    relay: RunningRelay, http: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed, "MOST_READERS", 1)
    async with listening(http) as listener:
        await listener.next()
        response = await http.get(PATH)
    assert_error(response, 503, "unavailable", "server_error")
    assert_described(response)
    assert int(response.headers["Retry-After"]) > 0


async def test_one_token_may_read_only_so_often(
    relay: RunningRelay, http: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed, "MOST_READERS_OF_ONE", 1)
    async with listening(http) as listener:
        await listener.next()
        response = await http.get(PATH)
        error = assert_error(response, 429, "rate_limit_exceeded", "rate_limit_error")
        assert_described(response)
        assert "end one" in error["message"]
        async with (
            client_of(relay, await relay.token("client", "other")) as other,
            listening(other) as second,
        ):
            await second.next()
    await eventually(lambda: not len(relay.services.feed))
    async with listening(http) as listener:
        await listener.next()


@pytest.mark.parametrize(("kind", "status"), [(None, 401), ("volunteer", 403)])
async def test_who_may_not_read_is_refused_as_described(
    relay: RunningRelay, kind: TokenKind | None, status: int
) -> None:
    async with client_of(relay, None if kind is None else await relay.token(kind)) as stranger:
        response = await stranger.get(PATH)
    assert response.status_code == status
    assert_described(response)


async def test_who_asks_for_the_headers_alone_gets_them(http: httpx.AsyncClient) -> None:
    response = await http.head(PATH)
    assert (response.status_code, response.headers["Content-Type"]) == (
        200,
        "text/event-stream; charset=utf-8",
    )


# ---- what a slow reader misses ----


async def test_a_slow_reader_is_told_that_it_has_missed_something(
    relay: RunningRelay, head: ScriptedPeer
) -> None:
    with relay.services.feed.reader() as reader:
        model = SwarmEvent(type="model")
        reader.put([model] * (MOST_WAITING + 10))
        taken = await reader.take()
        assert (taken[0].type, len(taken)) == ("swarm", MOST_WAITING + 1)
        assert taken[-1] == SwarmEvent(type="missed", missed=11)
        assert_event_described(PATH, msgspec.to_builtins(taken[-1]))
        reader.put([model])
        assert await reader.take() == [model]


async def test_a_slow_reader_keeps_nobody_waiting(relay: RunningRelay) -> None:
    with relay.services.feed.reader() as slow, relay.services.feed.reader() as quick:
        await quick.take()
        for _ in range(3):
            volunteer = await relay.dial()
            await volunteer.say(offer(0, 4))
            while not any(one.type == "joined" for one in await quick.take()):
                pass
            await volunteer.close()
        assert len(await slow.take()) > 3


# ---- what counts as a change ----

ADA = VolunteerStatus(id="a", name="Ada", state="serving", device="cpu", model="m", start=0, end=4)
LOADING = msgspec.structs.replace(ADA, state="loading", done=45, total=1000)


def picture(*volunteers: VolunteerStatus, complete: bool = False) -> SwarmStatus:
    return SwarmStatus(models=[ModelStatus(id="m", complete=complete)], volunteers=list(volunteers))


@pytest.mark.parametrize(
    ("before", "after", "told"),
    [
        (picture(), picture(ADA), ["joined"]),
        (picture(ADA), picture(), ["left"]),
        (picture(ADA), picture(msgspec.structs.replace(ADA, state="paused")), ["state"]),
        (picture(msgspec.structs.replace(ADA, state="probing")), picture(ADA), ["serving"]),
        (picture(ADA), picture(msgspec.structs.replace(ADA, start=4, end=8)), ["moved"]),
        (
            picture(ADA),
            picture(msgspec.structs.replace(ADA, start=4, end=8, state="loading")),
            ["moved", "state"],
        ),
        (picture(ADA), picture(msgspec.structs.replace(ADA, sessions=3, done=1, score=0.5)), []),
        (picture(LOADING), picture(msgspec.structs.replace(LOADING, done=49)), []),
        (picture(LOADING), picture(msgspec.structs.replace(LOADING, done=50)), ["progress"]),
        (picture(LOADING), picture(msgspec.structs.replace(LOADING, done=50, start=4)), ["moved"]),
        (picture(ADA), picture(ADA, complete=True), ["model"]),
    ],
)
def test_where_somebody_is_does_and_comes_is_told_and_figures_are_not(
    before: SwarmStatus, after: SwarmStatus, told: list[str]
) -> None:
    events = changes(before, after)
    assert [event.type for event in events] == told
    for event in events:
        assert_event_described(PATH, msgspec.to_builtins(event))


@pytest.mark.parametrize("told", [{"type": "withered"}, {"type": "joined", "volunteer": {}}, {}, []])
def test_what_is_no_event_is_not_described(told: object) -> None:
    with pytest.raises(ValidationError):
        assert_event_described(PATH, told)
