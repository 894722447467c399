"""relay/jobs.py: what the relay does by itself, and that it goes on doing it."""

import asyncio
import dataclasses
import logging
import time
from collections.abc import Collection
from pathlib import Path

import pytest

from relay import jobs
from relay.jobs import JOBS, Job
from relay.records import Evidence
from relay.reputation import HOUR, PRIOR_SCORE, hour_of
from relay.services import Services
from relay.standings import KEEP_SECONDS
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
    (check,) = [job for job in JOBS if job.work is jobs.end_unresponsive]
    missed = 3 * services.settings.heartbeat_seconds
    assert missed + check.seconds(services) <= BAR_SECONDS


async def test_silence_is_noticed_by_the_job_itself(relay: RunningRelay) -> None:
    client = await relay.dial(kind="client")
    peer = relay.services.hub.get(client.id)
    assert peer is not None
    peer.heard = -1e9
    await jobs.end_unresponsive(relay.services)
    assert await client.goodbye() == ("unresponsive", 4408)


async def test_rows_of_connected_volunteers_are_kept_alive(relay: RunningRelay) -> None:
    volunteer = await relay.serving()
    (row,) = await relay.services.store.volunteers(seen_since=0.0)
    await relay.services.store.save_volunteer(dataclasses.replace(row, seen_at=1.0))
    await jobs.mark_alive(relay.services)
    (row,) = await relay.services.store.volunteers(seen_since=time.time() - DEADLINE)
    assert row.peer == volunteer.id


async def test_the_rows_of_many_are_kept_alive_a_few_at_a_time(
    relay: RunningRelay, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs, "TOUCHED_AT_ONCE", 1)
    monkeypatch.setattr(jobs, "TOUCH_SECONDS", 0.01)
    volunteers = [await relay.serving(name=name) for name in ("one", "two", "three")]
    for row in await relay.services.store.volunteers(seen_since=0.0):
        await relay.services.store.save_volunteer(dataclasses.replace(row, seen_at=1.0))
    touch, at_once = relay.services.store.touch, list[int]()

    async def counted(peers: Collection[PeerId], now: float) -> None:
        at_once.append(len(peers))
        await touch(peers, now)

    monkeypatch.setattr(relay.services.store, "touch", counted)
    await jobs.mark_alive(relay.services)
    assert at_once[:3] == [1, 1, 1]
    rows = await relay.services.store.volunteers(seen_since=time.time() - DEADLINE)
    assert {row.peer for row in rows} == {volunteer.id for volunteer in volunteers}


async def test_a_new_speed_is_written_down_once(relay: RunningRelay) -> None:
    volunteer = await relay.serving()
    await volunteer.say(Heartbeat(blocks_per_second=12.5))
    await volunteer.is_served()
    await jobs.mark_alive(relay.services)
    (row,) = await relay.services.store.volunteers(seen_since=0.0)
    assert row.blocks_per_second == 12.5
    await relay.services.store.save_volunteer(dataclasses.replace(row, blocks_per_second=1.0))
    await jobs.mark_alive(relay.services)
    (row,) = await relay.services.store.volunteers(seen_since=0.0)
    assert row.blocks_per_second == 1.0, "it was told no other since"


async def test_rows_that_nobody_refreshes_are_removed_at_last(relay: RunningRelay) -> None:
    await relay.serving()
    (row,) = await relay.services.store.volunteers(seen_since=0.0)
    now = time.time()
    old = dataclasses.replace(row, peer="e" * 16, seen_at=now - jobs.FORGET_SECONDS - 1)
    recent = dataclasses.replace(row, peer="f" * 16, seen_at=now - jobs.FORGET_SECONDS + 60)
    for one in (old, recent):
        await relay.services.store.save_volunteer(one)
    await jobs.remove_rubbish(relay.services)
    left = {one.peer for one in await relay.services.store.volunteers(seen_since=0.0)}
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
