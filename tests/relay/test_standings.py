"""relay/standings.py: scores outlive reconnects, outages and restarts; evidence is written once."""

import asyncio
from collections.abc import Sequence

import pytest

from relay import standings
from relay.outcomes import Outcomes
from relay.records import Evidence
from relay.reputation import HOUR, PRIOR_SCORE, project
from relay.standings import KEEP_SECONDS, RECENT_SECONDS, RELOAD_SECONDS, Standings
from relay.store import Store
from relay.swarm import Swarm
from schema.errors import Unavailable
from schema.ids import PeerId
from tests.relay.core.test_swarm import new_swarm, volunteer

NOW = 1_700_000_000 // HOUR * HOUR + 100.0
A, B = PeerId(f"{1:016x}"), PeerId(f"{2:016x}")


class Replica:
    """What one relay has of reputation, on a database that others may share."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.outcomes = Outcomes()
        self.swarm: Swarm = new_swarm()
        self.standings = Standings(store, self.outcomes, self.swarm)

    async def join(self, number: int, now: float = NOW) -> float:
        one = volunteer(number)
        one.score = await self.standings.load(one.peer.id, now)
        self.swarm.put(one)
        return one.score

    def score(self, number: int) -> float:
        found = self.swarm.get(PeerId(f"{number:016x}"))
        assert found is not None
        return found.score

    async def written(self, peer: PeerId = A) -> list[Evidence]:
        return await self.store.evidence_of([peer], since=0)


@pytest.fixture
def replica(store: Store) -> Replica:
    return Replica(store)


async def test_a_newcomer_has_the_prior(replica: Replica) -> None:
    assert await replica.join(1) == PRIOR_SCORE


async def test_what_was_seen_is_written_once_and_changes_the_score(replica: Replica) -> None:
    await replica.join(1)
    replica.outcomes.note(A, "vanished", 3)
    replica.outcomes.answered[A] += 10
    await replica.standings.write(NOW)
    written = sorted(await replica.written(), key=lambda one: one.kind)
    assert [(one.kind, one.count, one.worst) for one in written] == [("answered", 10, 0), ("vanished", 1, 3)]
    assert replica.score(1) == pytest.approx(project(written, NOW).score)
    await replica.standings.write(NOW)
    assert len(await replica.written()) == 2


async def test_a_score_fades_without_new_evidence(replica: Replica) -> None:
    await replica.join(1)
    replica.outcomes.note(A, "vanished")
    await replica.standings.write(NOW)
    low = replica.score(1)
    await replica.standings.write(NOW + 48 * HOUR)
    assert low < replica.score(1) < PRIOR_SCORE


async def test_whoever_comes_back_is_what_it_was_even_if_nothing_is_written_yet(replica: Replica) -> None:
    await replica.join(1)
    replica.swarm.drop(A)
    replica.outcomes.note(A, "vanished")
    once = await replica.join(1)
    assert once == pytest.approx(0.5, abs=0.001)
    await replica.standings.write(NOW)
    assert replica.score(1) == once
    replica.swarm.drop(A)
    assert await replica.join(1) == pytest.approx(once)
    assert [one.count for one in await replica.written()] == [1]


async def test_another_replica_knows_it_too(store: Store) -> None:
    one, other = Replica(store), Replica(store)
    await one.join(1)
    one.outcomes.note(A, "vanished")
    await one.standings.write(NOW)
    assert await other.join(1) < PRIOR_SCORE


async def test_what_another_replica_writes_late_is_read_again(store: Store) -> None:
    one, other = Replica(store), Replica(store)
    await one.join(1)
    one.outcomes.note(A, "vanished")
    assert await other.join(1) == PRIOR_SCORE
    await one.standings.write(NOW + 1)
    for later in (1, RECENT_SECONDS + 1):
        await other.standings.reload(NOW + later)
        await other.standings.write(NOW + later)
        assert (other.score(1) < PRIOR_SCORE) is (later > RECENT_SECONDS)


async def test_only_some_are_read_again_at_once(replica: Replica, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(standings, "RELOADED", 1)
    read: list[Sequence[PeerId]] = []
    await replica.join(1, NOW)
    await replica.join(2, NOW + 1)
    evidence_of = replica.store.evidence_of

    async def noted(peers: Sequence[PeerId], since: float) -> list[Evidence]:
        read.append(list(peers))
        return await evidence_of(peers, since)

    monkeypatch.setattr(replica.store, "evidence_of", noted)
    later = NOW + RECENT_SECONDS + 2
    for now in (later, later, later, later + RELOAD_SECONDS):
        await replica.standings.reload(now)
    assert read == [[A], [B], [A]]


async def test_those_who_left_are_forgotten_at_last(replica: Replica) -> None:
    await replica.join(1)
    replica.swarm.drop(A)
    await replica.standings.write(NOW + 1)
    assert A in replica.standings._known
    await replica.standings.write(NOW + RECENT_SECONDS + 1)
    assert A not in replica.standings._known


async def test_scores_go_on_while_the_database_is_away_and_evidence_is_written_later(
    replica: Replica, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away(_: Sequence[Evidence]) -> None:
        raise Unavailable("away")

    await replica.join(1)
    with monkeypatch.context() as outage:
        outage.setattr(replica.store, "append_evidence", away)
        for hour in range(3):
            replica.outcomes.note(A, "vanished")
            with pytest.raises(Unavailable):
                await replica.standings.write(NOW + hour * HOUR)
        assert replica.score(1) < 0.4
    await replica.standings.write(NOW + 3 * HOUR)
    assert sorted(one.hour - NOW + 100 for one in await replica.written()) == [0, HOUR, 2 * HOUR]
    assert replica.outcomes.waiting == 0
    assert replica.score(1) == pytest.approx(project(await replica.written(), NOW + 3 * HOUR).score)


async def test_nothing_is_written_twice_when_the_database_goes_away_in_between(
    replica: Replica, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(standings, "ROWS_AT_ONCE", 1)
    append, left = replica.store.append_evidence, [2]

    async def sometimes(rows: Sequence[Evidence]) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise Unavailable("away")
        await append(rows)

    monkeypatch.setattr(replica.store, "append_evidence", sometimes)
    for kind in ("late", "failed", "refused"):
        replica.outcomes.note(A, kind)
    with pytest.raises(Unavailable):
        await replica.standings.write(NOW)
    assert (len(await replica.written()), replica.outcomes.waiting) == (2, 1)
    left[0] = 1
    await replica.standings.write(NOW)
    assert sorted((one.kind, one.count) for one in await replica.written()) == [
        ("failed", 1),
        ("late", 1),
        ("refused", 1),
    ]


async def test_joins_while_evidence_is_written_see_it_once(replica: Replica) -> None:
    for _ in range(5):
        replica.outcomes.note(A, "late")
        replica.outcomes.note(B, "vanished")
        await asyncio.gather(replica.standings.write(NOW), replica.join(1), replica.join(2))
    for number, peer in ((1, A), (2, B)):
        assert await replica.join(number) == pytest.approx(project(await replica.written(peer), NOW).score)


async def test_evidence_beyond_its_time_counts_no_more(replica: Replica) -> None:
    old = NOW - KEEP_SECONDS - HOUR
    await replica.store.append_evidence([Evidence(A, "vanished", old, 10**6)])
    assert await replica.join(1) == PRIOR_SCORE
    assert await replica.standings.evidence(A, NOW) == []
