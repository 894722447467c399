"""relay/contributions.py, relay/leaderboard.py and `GET /api/leaderboard`: who has done most for others."""

import asyncio
import time

import httpx
import pytest

from relay import contributions
from relay.contributions import Contributions
from relay.leaderboard import FORGET_SECONDS, Leaderboard
from relay.outcomes import Outcomes
from relay.records import Contribution, Leader
from relay.reputation import HOUR
from relay.usage import DAY
from schema.errors import Unavailable
from schema.ids import PeerId
from tests.relay.core.peers import ScriptedPeer
from tests.relay.core.rest_client import CHAT, QUESTION, answered, assert_error, client_of
from tests.relay.core.support import RunningRelay, database_away
from tests.relay.core.test_evidence import travel
from tests.relay.core.test_swarm import swarm_of, volunteer
from tests.relay.core.waiting import DEADLINE

PATH = "/api/leaderboard"
PEER = volunteer(1).peer.id
GONE = PeerId("f" * 16)


async def written(relay: RunningRelay) -> None:
    """What was seen is in SQL, and the boards are new."""
    await relay.services.standings.write(time.time())
    await relay.services.contributions.write()
    await relay.services.leaderboard.refresh(time.time())


# ---- what was done ----


class Table:
    """What is written, and can be away."""

    def __init__(self) -> None:
        self.rows: list[Contribution] = []
        self.is_away = False

    async def add_contributions(self, rows: list[Contribution]) -> None:
        if self.is_away:
            raise Unavailable("the database is away")
        self.rows += rows

    async def contribution_of(self, peer: PeerId, since: float) -> Leader | None:
        return None


async def test_what_was_done_is_written_by_day_once_the_database_is_back() -> None:
    outcomes, table = Outcomes(), Table()
    kept = Contributions(table, outcomes, swarm_of(volunteer(1)))  # pyright: ignore[reportArgumentType]
    outcomes.computed[PEER] += 8
    outcomes.note(PEER, "replied")
    outcomes.note(PEER, "late")
    list(outcomes.collect(23 * HOUR))
    table.is_away = True
    with pytest.raises(Unavailable):
        await kept.write()
    table.is_away = False
    outcomes.computed[PEER] += 1
    outcomes.computed[GONE] += 3
    list(outcomes.collect(21 * HOUR))
    outcomes.computed[PEER] += 5
    list(outcomes.collect(DAY))
    await kept.write()
    await kept.write()
    assert table.rows == [
        Contribution(PEER, 0.0, "volunteer 1", 9, 1, 1 << 23 | 1 << 21),
        Contribution(PEER, DAY, "volunteer 1", 5, 0, 1),
        Contribution(GONE, 0.0, "", 3, 0, 1 << 21),
    ]


async def test_what_does_not_fit_is_counted_as_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contributions, "MAX_KEPT", 1)
    outcomes, table = Outcomes(), Table()
    kept = Contributions(table, outcomes, swarm_of())  # pyright: ignore[reportArgumentType]
    for peer in (PEER, GONE):
        outcomes.computed[peer] += 1
    list(outcomes.collect(0.0))
    await kept.write()
    assert (len(table.rows), kept.dropped) == (1, 1)


# ---- boards ----


class Leaders:
    """A store that counts what it is asked."""

    def __init__(self) -> None:
        self.asked: list[float] = []
        self.blocks_steps = 1

    async def leaders(self, since: float, most: int) -> list[Leader]:
        self.asked.append(since)
        return [Leader(PEER, "Ada", self.blocks_steps, 0, 1)]


async def test_a_board_is_added_up_once_and_then_only_for_those_who_ask() -> None:
    store = Leaders()
    boards = Leaderboard(store)
    first = await boards.of(7, 10 * DAY)
    assert await boards.of(7, 10 * DAY + 5) is first
    assert store.asked == [4 * DAY]
    await boards.refresh(10 * DAY + 10)
    assert (await boards.of(7, 10 * DAY + 11)).version == first.version, "it is the same"
    store.blocks_steps = 2
    await boards.refresh(10 * DAY + 20)
    assert (await boards.of(7, 10 * DAY + 21)).version != first.version
    asked = len(store.asked)
    await boards.refresh(10 * DAY + 22 + FORGET_SECONDS)
    assert len(store.asked) == asked


class Stuck:
    """A store that says after a while that the database is away."""

    def __init__(self) -> None:
        self.asked = 0
        self.begun, self.over = asyncio.Event(), asyncio.Event()

    async def leaders(self, since: float, most: int) -> list[Leader]:
        self.asked += 1
        self.begun.set()
        await self.over.wait()
        raise Unavailable("the database is away")


async def test_those_who_ask_first_wait_together_and_not_one_after_the_other() -> None:
    store = Stuck()
    boards = Leaderboard(store)
    asking = [asyncio.create_task(boards.of(7, 10 * DAY)) for _ in range(10)]
    await asyncio.wait_for(store.begun.wait(), DEADLINE)
    store.over.set()
    ends = await asyncio.gather(*asking, return_exceptions=True)
    assert [type(end) for end in ends] == [Unavailable] * 10
    assert store.asked <= 2


# ---- as it is asked for ----


async def test_volunteers_are_shown_by_what_they_did(
    relay: RunningRelay, head: ScriptedPeer, http: httpx.AsyncClient
) -> None:
    hop = await relay.serving(0, 4, name="iris")
    journey = relay.journey(head, hop)
    for step in range(3):
        await travel(journey, head, hop, head, step=step)
    await answered(head, http.post(CHAT, json=QUESTION), "a")
    await written(relay)
    body = (await http.get(PATH)).json()
    score = relay.services.swarm.volunteer_status(hop.id)
    assert score is not None
    assert body["volunteers"] == [
        {"id": hop.id, "name": "iris", "blocks_steps": 3, "replies": 0, "score": score.score, "hours": 1},
        {
            "id": head.id,
            "name": head.name,
            "blocks_steps": 0,
            "replies": 1,
            "score": body["volunteers"][1]["score"],
            "hours": 1,
        },
    ]
    mine = (await http.get(f"/api/volunteers/{hop.id}")).json()
    assert mine["contribution"] == {"blocks_steps": 3, "replies": 0, "hours": 1}
    assert (mine["memory"], mine["since"] <= time.time()) == (2**30, True)


async def test_what_has_not_changed_is_not_sent_again(
    relay: RunningRelay, head: ScriptedPeer, http: httpx.AsyncClient
) -> None:
    tag = {"If-None-Match": (await http.get(PATH)).headers["ETag"]}
    await written(relay)
    assert (await http.get(PATH, headers=tag)).status_code == 304
    await answered(head, http.post(CHAT, json=QUESTION), "a")
    await written(relay)
    assert (await http.get(PATH, headers=tag)).status_code == 200


async def test_a_board_is_shown_while_the_database_is_away_if_it_is_known(open_relay: RunningRelay) -> None:
    async with client_of(open_relay, None) as anybody:
        assert (await anybody.get(PATH)).status_code == 200
        async with database_away(open_relay):
            assert (await anybody.get(PATH)).status_code == 200
            assert (await anybody.get(PATH, params={"days": 3})).status_code == 503


@pytest.mark.parametrize("query", ["days=0", "days=32", "days=x", "weeks=1"])
async def test_days_that_are_not_kept_are_refused(http: httpx.AsyncClient, query: str) -> None:
    assert_error(await http.get(f"{PATH}?{query}"), 400, "invalid_request", "invalid_request_error")


async def test_only_those_who_may_chat_see_it(relay: RunningRelay) -> None:
    async with client_of(relay, None) as stranger:
        assert_error(await stranger.get(PATH), 401, "unauthorized", "authentication_error")
