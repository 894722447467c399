"""relay/minutes.py, relay/history.py and `GET /api/history`: what a replica has seen in the last day."""

import asyncio
import statistics

import httpx
import pytest

from relay import history as history_module
from relay.history import MOST_EVENTS, HistoryOfSwarm
from relay.minutes import MINUTE, Median
from relay.swarm import Swarm
from schema.errors import GenerationFailed, InvalidRequest
from schema.history import MOST_MINUTES
from schema.messages import Cancel, Delta, Draining, Generate, RouteGrant, RouteRequest
from tests.relay.core.peers import MODEL, ScriptedPeer, answer, fail
from tests.relay.core.rest_client import CHAT, QUESTION, answered, assert_error, client_of
from tests.relay.core.support import RunningRelay
from tests.relay.core.test_swarm import new_swarm, swarm_of, volunteer
from tests.relay.core.waiting import eventually

NOON = 1_800_000_000 // MINUTE * MINUTE
PATH = "/api/history"


# ---- medians ----


@pytest.mark.parametrize("durations", [[0.5], [0.1, 0.2, 0.4], [3.0, 0.001, 3.0, 0.002, 3.0], [10.0**-3] * 9])
def test_a_median_is_near_the_true_one(durations: list[float]) -> None:
    median = Median()
    for seconds in durations:
        median.add(seconds)
    assert median.value() == pytest.approx(statistics.median(durations), rel=0.03)


def test_a_median_has_room_for_any_number_of_any_durations() -> None:
    median = Median()
    for power in range(-300, 300):
        median.add(10.0**power)
    median.add(0.0)
    assert len(median._cells) <= 1000
    assert Median().value() is None


# ---- minutes ----


def history_of(swarm: Swarm | None = None) -> HistoryOfSwarm:
    return HistoryOfSwarm(new_swarm() if swarm is None else swarm, NOON)


def test_replies_count_in_the_minute_in_which_they_end() -> None:
    history = history_of()
    history.finished(11, 0.5, 2.5, NOON + 1)
    history.finished(1, 1.0, 1.0, NOON + 59)
    history.stopped(5, NOON + 61)
    history.failed(NOON + 61)
    first, second = history.shown(2).minutes
    assert (first.at, first.tokens, first.replies, first.failed) == (NOON, 12, 2, 0)
    assert first.first_token == pytest.approx(0.5, rel=0.03)
    assert first.step == pytest.approx(0.2, rel=0.03), "of the one that had steps"
    assert (second.at, second.tokens, second.replies, second.failed) == (NOON + 60, 5, 0, 1)
    assert (second.first_token, second.step) == (None, None)
    assert history.shown(1).minutes == [second]


def test_minutes_in_which_nothing_ended_are_there_and_a_day_is_kept() -> None:
    history = history_of()
    history.finished(1, 0.5, 0.5, NOON)
    history.failed(NOON + 3 * MINUTE)
    assert [one.replies for one in history.shown(10).minutes] == [1, 0, 0, 0]
    history.failed(NOON + 10 * MOST_MINUTES * MINUTE)
    minutes = history.shown(MOST_MINUTES).minutes
    assert len(minutes) == MOST_MINUTES
    assert minutes[-1].at - minutes[0].at == (MOST_MINUTES - 1) * MINUTE
    assert sum(one.failed for one in minutes) == 1


def test_a_clock_that_is_set_back_changes_no_minute_that_is_over() -> None:
    history = history_of()
    history.finished(1, 0.5, 0.5, NOON + MINUTE)
    history.finished(1, 0.5, 0.5, NOON - MINUTE)
    assert [one.replies for one in history.shown(10).minutes] == [0, 2]


# ---- volunteers ----


def told(history: HistoryOfSwarm) -> list[tuple[str, str]]:
    return [(one.type, one.name) for one in history.shown(MOST_MINUTES).events]


async def test_who_comes_moves_and_goes_is_told_and_not_who_was_there_before() -> None:
    swarm = swarm_of(volunteer(1), volunteer(2, 0, 4), volunteer(3))
    history = history_of(swarm)
    await history.look(NOON)
    assert told(history) == []
    assert history.shown(1).minutes[0].serving == 3
    swarm.drop(volunteer(1).peer.id)
    swarm.put(volunteer(2, 4, 8))
    swarm.put(volunteer(4, state="loading"))
    leaving = volunteer(3, state="draining")
    swarm.put(leaving)
    swarm.drop(leaving.peer.id)
    await history.look(NOON + 2)
    assert sorted(told(history)) == [
        ("joined", "volunteer 4"),
        ("left", "volunteer 3"),
        ("lost", "volunteer 1"),
        ("moved", "volunteer 2"),
    ]
    assert history.shown(1).minutes[0].serving == 1


async def test_repairs_are_told_once_with_how_many_they_were() -> None:
    history = history_of(swarm_of(volunteer(1), volunteer(2)))
    for number in (1, 1, 2, 9):
        history.repaired(volunteer(number).peer.id)
    await history.look(NOON + 2)
    await history.look(NOON + 4)
    events = history.shown(1).events
    assert [(one.name, one.type, one.count or 1) for one in events] == [
        ("volunteer 1", "repaired", 2),
        ("volunteer 2", "repaired", 1),
    ]


async def test_events_of_earlier_minutes_are_not_shown_and_the_oldest_are_forgotten() -> None:
    swarm = new_swarm()
    history = history_of(swarm)
    await history.look(NOON)
    swarm.put(volunteer(1))
    await history.look(NOON + 1)
    swarm.put(volunteer(2))
    await history.look(NOON + MINUTE)
    assert [one.name for one in history.shown(1).events] == ["volunteer 2"]
    for number in range(MOST_EVENTS):
        swarm.put(volunteer(number + 10))
    await history.look(NOON + MINUTE + 2)
    assert len(history.shown(MOST_MINUTES).events) == MOST_EVENTS


async def test_a_look_at_what_is_as_it_was_changes_nothing() -> None:
    history = history_of(swarm_of(volunteer(1)))
    await history.look(NOON)
    before = history.version
    await history.look(NOON + 59)
    assert history.version == before
    await history.look(NOON + 60)
    assert history.version != before


async def test_thousands_are_looked_at_less_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history_module, "LOOKED_AT_A_SECOND", 0.1)
    swarm = swarm_of(volunteer(1))
    history = history_of(swarm)
    await history.look(NOON)
    swarm.put(volunteer(2))
    await history.look(NOON + 9)
    assert told(history) == []
    await history.look(NOON + 20)
    assert told(history) == [("joined", "volunteer 2")]


# ---- as the relay tells it ----


async def test_replies_are_told_as_they_end(
    relay: RunningRelay, head: ScriptedPeer, http: httpx.AsyncClient
) -> None:
    await answered(head, http.post(CHAT, json=QUESTION), "a", "b", "c")
    failing = asyncio.create_task(http.post(CHAT, json=QUESTION))
    await fail(head, await head.hear(Generate), GenerationFailed("no luck"))
    mistaken = asyncio.create_task(http.post(CHAT, json=QUESTION))
    await fail(head, await head.hear(Generate), InvalidRequest("no such token"))
    stopped = asyncio.create_task(http.post(CHAT, json=QUESTION))
    asked = await head.hear(Generate)
    await head.say(Delta(request=asked.request, text="two tokens", tokens=2, ids=[1, 2]))
    await head.is_served()
    stopped.cancel()
    await head.hear(Cancel)
    assert [(await one).status_code for one in (failing, mistaken)] == [502, 400]
    minutes = (await http.get(PATH, params={"minutes": 2})).json()["minutes"]
    for name, count in (("replies", 1), ("failed", 1), ("tokens", 5)):
        assert sum(one[name] for one in minutes) == count
    (first_token,) = [one["first_token"] for one in minutes if one["replies"]]
    assert first_token > 0


async def test_the_swarms_events_are_told(
    relay: RunningRelay, head: ScriptedPeer, http: httpx.AsyncClient
) -> None:
    history = relay.services.history
    await history.look(NOON + 0.0)
    other = await relay.serving(0, 4, name="iris")
    await history.look(NOON + 1.0)
    await head.say(RouteRequest(request="r", model=MODEL, session="0" * 32, repairs="peer_gone"))
    await head.hear(RouteGrant)
    await other.say(Draining())
    await other.close()
    await eventually(lambda: relay.services.swarm.get(other.id) is None)
    await history.look(NOON + 2.0)
    events = (await http.get(PATH, params={"minutes": MOST_MINUTES})).json()["events"]
    assert [(one["type"], one["volunteer"], one["name"]) for one in events] == [
        ("joined", other.id, "iris"),
        ("left", other.id, "iris"),
        ("repaired", head.id, head.name),
    ]


async def test_what_has_not_changed_is_not_sent_again(
    relay: RunningRelay, head: ScriptedPeer, http: httpx.AsyncClient
) -> None:
    first = await http.get(PATH)
    tag = {"If-None-Match": first.headers["ETag"]}
    again = await http.get(PATH, headers=tag)
    assert again.status_code == 304 or again.headers["ETag"] != first.headers["ETag"], "a minute is over"
    await asyncio.gather(answer(head, "a"), http.post(CHAT, json=QUESTION))
    assert (await http.get(PATH, headers=tag)).status_code == 200


@pytest.mark.parametrize("query", ["minutes=0", f"minutes={MOST_MINUTES + 1}", "minutes=x", "hours=1"])
async def test_a_history_that_is_not_kept_is_refused(http: httpx.AsyncClient, query: str) -> None:
    assert_error(await http.get(f"{PATH}?{query}"), 400, "invalid_request", "invalid_request_error")


async def test_only_those_who_may_chat_see_it(relay: RunningRelay) -> None:
    async with client_of(relay, None) as stranger:
        assert_error(await stranger.get(PATH), 401, "unauthorized", "authentication_error")
