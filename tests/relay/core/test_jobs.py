"""relay/jobs.py: what the relay does by itself, and that it goes on doing it."""

import asyncio
import dataclasses
import logging
import time
from pathlib import Path

import pytest

from relay import jobs
from relay.elsewhere import RemotePeer
from relay.hub import LOOKS_PER_HEARTBEAT
from relay.jobs import JOBS, Job
from relay.records import Evidence, UsageRecord
from relay.reputation import HOUR, PRIOR_SCORE, hour_of
from relay.services import Services
from relay.standings import KEEP_SECONDS
from relay.store import Store
from relay.usage import DAY, day_of
from schema.credentials import parse_credential
from schema.errors import Unavailable
from schema.ids import PeerId
from schema.messages import Heartbeat
from tests.relay.core.peers import MODEL
from tests.relay.core.support import RunningRelay, running_relay
from tests.relay.core.waiting import DEADLINE, eventually

BAR_SECONDS = 15.0
"""Within which a silent peer must be out of all routes."""


async def test_a_job_is_tried_again_after_a_named_error_and_after_a_mistake(
    relay: RunningRelay, caplog: pytest.LogCaptureFixture
) -> None:
    passes: list[int] = []
    enough = asyncio.Event()

    async def work(services: Services) -> None:
        passes.append(len(passes))
        if len(passes) == 1:
            raise Unavailable("the database is away")
        if len(passes) == 2:
            raise ZeroDivisionError("a mistake")
        enough.set()

    with caplog.at_level(logging.WARNING):
        running = asyncio.create_task(jobs.repeat(Job(work, lambda _: 0.0), relay.services))
        await asyncio.wait_for(enough.wait(), DEADLINE)
        running.cancel()
    assert "the database is away" in caplog.text
    assert "a mistake" in caplog.text


async def test_a_silent_peer_is_ended_without_anybody_asking(sqlite_file: Path) -> None:
    async with running_relay(sqlite_file, heartbeat_seconds=0.05) as relay:
        silent = await relay.dial()
        assert await silent.goodbye() == ("unresponsive", 4408)


async def test_a_revoked_token_is_closed_without_anybody_asking(
    sqlite_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs, "REVOCATION_SECONDS", 0.01)
    async with running_relay(sqlite_file) as relay:
        peer = await relay.dial()
        await relay.services.store.revoke_token(parse_credential(peer.token).id)
        assert await peer.goodbye() == ("unauthorized", 4401)


async def test_a_silent_peer_is_out_of_routes_within_the_bar(relay: RunningRelay) -> None:
    defaults = dataclasses.replace(relay.services.settings, heartbeat_seconds=4.0)
    services = dataclasses.replace(relay.services, settings=defaults)
    (look,) = [job for job in JOBS if job.work is jobs.look_at_peers]
    interval = services.settings.heartbeat_seconds
    round_seconds = interval / LOOKS_PER_HEARTBEAT
    assert 3 * interval + round_seconds + look.seconds(services) <= BAR_SECONDS


async def test_silence_is_noticed_by_the_job_itself(relay: RunningRelay) -> None:
    client = await relay.dial(kind="client")
    peer = relay.services.hub.get(client.id)
    assert peer is not None
    peer.heard = -1e9
    await jobs.look_at_peers(relay.services)
    assert await client.goodbye() == ("unresponsive", 4408)


async def test_rows_of_connected_volunteers_count_as_long_as_their_replica_lives(
    relay: RunningRelay,
) -> None:
    volunteer = await relay.serving()
    await relay.services.store.renew_lease(1.0)
    lately = time.time() - DEADLINE
    assert await relay.services.store.volunteers(seen_since=lately) == []
    await jobs.renew_lease(relay.services)
    (row,) = await relay.services.store.volunteers(seen_since=lately)
    assert row.peer == volunteer.id


async def test_who_leaves_while_the_database_is_away_frees_its_span_when_it_is_back(
    relay: RunningRelay, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone, stays = await relay.serving(0, 4), await relay.serving(4, 8)
    asked = asyncio.Event()

    async def away(peer: PeerId, replica: str) -> bool:
        asked.set()
        raise Unavailable("the database is away")

    with monkeypatch.context() as patched:
        patched.setattr(relay.services.store, "remove_volunteer", away)
        gone.reset()
        await asyncio.wait_for(asked.wait(), DEADLINE)
    assert {row.peer for row in await relay.services.store.volunteers()} == {gone.id, stays.id}
    await jobs.remove_rows_left(relay.services)
    assert [row.peer for row in await relay.services.store.volunteers()] == [stays.id]


async def test_rows_of_those_who_are_connected_or_on_their_way_stay(relay: RunningRelay) -> None:
    here, gone = await relay.serving(0, 4), await relay.serving(4, 8)
    (row,) = [row for row in await relay.services.store.volunteers() if row.peer == gone.id]
    gone.reset()
    await eventually(lambda: not relay.services.hub.find(gone.id))
    on_its_way = PeerId("a" * 16)
    relay.services.hub.elsewhere[on_its_way] = RemotePeer(on_its_way, "x", 0.0, None, 1000)
    for peer, replica in ((on_its_way, row.replica), (gone.id, row.replica), ("b" * 16, "another")):
        other = dataclasses.replace(row, peer=PeerId(peer), replica=replica)
        await relay.services.store.save_volunteer(other)
    await jobs.remove_rows_left(relay.services)
    left = {row.peer for row in await relay.services.store.volunteers()}
    assert left == {here.id, on_its_way, "b" * 16}


async def test_a_new_speed_is_written_down_once(relay: RunningRelay) -> None:
    volunteer = await relay.serving()
    await volunteer.say(Heartbeat(blocks_per_second=12.5))
    await volunteer.is_served()
    await jobs.update_rows(relay.services)
    (row,) = await relay.services.store.volunteers()
    assert row.blocks_per_second == 12.5
    await relay.services.store.save_volunteer(dataclasses.replace(row, blocks_per_second=1.0))
    await jobs.update_rows(relay.services)
    (row,) = await relay.services.store.volunteers()
    assert row.blocks_per_second == 1.0, "it was told no other since"


async def test_rows_that_nobody_refreshes_are_removed_at_last(relay: RunningRelay) -> None:
    await relay.serving()
    (row,) = await relay.services.store.volunteers()
    now, settings = time.time(), relay.services.settings
    for peer, replica, age in (("e" * 16, "old", 1), ("f" * 16, "recent", -60)):
        async with Store.open(dataclasses.replace(settings, replica=replica)) as store:
            await store.save_volunteer(dataclasses.replace(row, peer=PeerId(peer), replica=replica))
            await store.renew_lease(now - jobs.FORGET_SECONDS - age)
    await jobs.remove_rubbish(relay.services)
    left = {one.peer for one in await relay.services.store.volunteers()}
    assert left == {row.peer, "f" * 16}


async def test_what_was_seen_is_written_down_and_scores_follow(relay: RunningRelay) -> None:
    volunteer = await relay.serving()
    found = relay.services.swarm.get(volunteer.id)
    assert found is not None
    assert found.score == PRIOR_SCORE
    relay.services.outcomes.note(volunteer.id, "failed")
    await jobs.write_evidence(relay.services)
    kinds = {one.kind for one in await relay.services.store.evidence_of([volunteer.id], since=0.0)}
    assert kinds == {"failed", "probe_passed"}
    assert found.score < PRIOR_SCORE
    assert relay.services.swarm.holders(MODEL)[0].score == found.score


async def test_evidence_is_tidied(relay: RunningRelay) -> None:
    peer, now = PeerId("a" * 16), hour_of(time.time())
    recent, old, gone = now - HOUR, now - 2 * HOUR, now - KEEP_SECONDS - HOUR
    for _ in range(2):
        for hour in (recent, old, gone):
            await relay.services.store.append_evidence([Evidence(peer, "late", hour, 1)])
    await jobs.tidy_evidence(relay.services)
    left = await relay.services.store.evidence_of([peer], since=0.0)
    assert sorted((one.hour, one.count) for one in left) == [(old, 2), (recent, 2)]
    assert await relay.services.store.remove_evidence(before=recent) == 1, "the rows of a past hour are one"


async def test_usage_is_kept_as_long_as_the_settings_say(sqlite_file: Path) -> None:
    today = day_of(time.time())
    rows = [UsageRecord("token", today - age * DAY, "model", 1, 2, 0, 3) for age in (0, 6, 7, 40)]
    async with running_relay(sqlite_file, usage_days=7) as relay:
        store = relay.services.store
        await store.add_usage(rows)
        await jobs.tidy_usage(relay.services)
        assert await store.usage_of("token", 0.0) == rows[:2]


async def test_what_was_seen_last_is_written_when_the_relay_stops(sqlite_file: Path) -> None:
    peer = PeerId("a" * 16)
    async with running_relay(sqlite_file) as relay:
        relay.services.outcomes.note(peer, "vanished")
    async with running_relay(sqlite_file) as relay:
        (evidence,) = await relay.services.store.evidence_of([peer], since=0.0)
    assert evidence.kind == "vanished"


async def test_models_that_the_operator_adds_are_noticed(relay: RunningRelay) -> None:
    await relay.services.store.add_model("new")
    await jobs.refresh_models(relay.services)
    assert relay.services.swarm.priority == [MODEL, "new"]


async def test_the_jobs_end_with_the_relay(relay: RunningRelay) -> None:
    repeating = [task for task in asyncio.all_tasks() if "repeat" in repr(task)]
    await relay.server.lifespan.shutdown()
    await eventually(lambda: all(task.done() for task in repeating))
