"""What the relay does by itself, again and again: liveness, revocation, rows in SQL.

Each job is one pass; `repeat` runs it for ever, and outlives its failures. Does not know sockets.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from relay.neighbours import BEAT_SECONDS
from relay.replicas import LEASE_SECONDS
from relay.reputation import HOUR, hour_of
from relay.services import Services
from relay.standings import KEEP_SECONDS
from schema.errors import CorollaError

REVOCATION_SECONDS = 2.0
"""How often it is asked which tokens were revoked: their connections are closed within this time."""
TOUCH_SECONDS = 4.0
"""How often the rows of connected volunteers are marked as alive: the leases that other replicas believe."""
TOUCHED_AT_ONCE = 250
"""Of these rows: a statement that changes thousands keeps a processor busy that frames may need."""
LEASES_SECONDS = 2.0
"""How often the leases of other replicas' volunteers are looked at."""
CHECKS_PER_HEARTBEAT = 4
"""A peer that has missed its heartbeats is noticed within this part of an interval."""
PING_SECONDS, PING_TURNS = 0.1, 200
"""How often some peers are pinged, and after how many times all were: thousands at once hold up frames."""
PROBE_CHECK_SECONDS = 0.1
"""How often it is looked whose probe is due."""
MEET_SECONDS = 3.0
"""How long a replica that starts waits for the others to answer."""
RUBBISH_SECONDS = 3600.0
"""How often rows are looked for that nobody refreshes any more."""
EVIDENCE_SECONDS = 30.0
"""How often what was seen of volunteers is written down, and their scores are computed anew."""
FORGET_SECONDS = 24 * 3600.0
"""After which a volunteer's row is rubbish. Far longer than it counts: a database may be away for hours,
and the rows of all replicas are old when it comes back."""

HEARTBEAT_BATCH = 25
"""Peers that get their heartbeats without a pause: a millisecond, which frames may have to wait."""
SPREAD = 0.8
"""Of a job's interval, over which what it does for thousands is spread."""

_T = TypeVar("_T")
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Job:
    """Something to do again and again."""

    work: Callable[[Services], Awaitable[None]]
    seconds: Callable[[Services], float]
    """From the beginning of one pass to that of the next."""


async def repeat(job: Job, services: Services) -> None:
    """Run a job until it is cancelled."""
    seconds, now = job.seconds(services), asyncio.get_running_loop().time
    pause = seconds
    while True:
        await asyncio.sleep(pause)
        begun = now()
        try:
            await job.work(services)
        except CorollaError as error:
            log.warning("%s: %s", job.work.__name__, error.message)
        except Exception:
            log.exception("%s failed, and will be tried again", job.work.__name__)
        pause = max(seconds * (1 - SPREAD) / 2, seconds - (now() - begun))


async def send_heartbeats(services: Services) -> None:
    """To a few peers at a time, so that frames go on between them."""
    batches = _batches(list(services.hub), HEARTBEAT_BATCH)
    pause = services.settings.heartbeat_seconds * SPREAD / max(1, len(batches))
    for number, batch in enumerate(batches):
        await asyncio.sleep(pause if number else 0)
        services.hub.send_heartbeats(batch)


async def measure_round_trips(services: Services) -> None:
    """Keep up to date how far the peers are."""
    services.hub.ping_some(PING_TURNS)


async def end_unresponsive(services: Services) -> None:
    """End the peers that are silent or do not read."""
    services.hub.end_unresponsive(asyncio.get_running_loop().time())


async def probe_again(services: Services) -> None:
    """Have those that serve prove that they still can."""
    services.probing.ask(asyncio.get_running_loop().time())


async def close_revoked(services: Services) -> None:
    """End the connections whose token has been revoked."""
    await services.revocation.close_revoked(time.time())


async def refresh_models(services: Services) -> None:
    """Notice the models that the operator, or another replica's volunteers, have changed."""
    records = await services.store.list_models()
    services.swarm.set_models((record.name, record.facts) for record in records)


async def rebalance(services: Services) -> None:
    """Move one volunteer of each model, where that is worth its while."""
    for name in services.swarm.priority:
        facts = services.swarm.facts(name)
        move = None if facts is None else await services.joining.rebalance(facts)
        if move is not None:
            services.metrics.moves += 1
            log.info("%s moves from blocks %s to %s of %s", move.peer, move.before, move.after, name)


async def mark_alive(services: Services) -> None:
    """Refresh the rows of connected volunteers, those that have moved here first."""
    await services.joining.save_adopted()
    volunteers = services.swarm.volunteers_here()
    batches = _batches(volunteers, TOUCHED_AT_ONCE)
    for number, batch in enumerate(batches):
        await asyncio.sleep(TOUCH_SECONDS * SPREAD / len(batches) if number else 0)
        await services.store.touch([volunteer.peer.id for volunteer in batch], time.time())
    # Asked for again: who has joined anew meanwhile has another row.
    changed = [volunteer for volunteer in services.swarm.volunteers_here() if volunteer.has_new_speed]
    speeds = {volunteer.peer.id: volunteer.blocks_per_second for volunteer in changed}
    await services.store.save_speeds(speeds)
    for volunteer in changed:
        volunteer.has_new_speed = volunteer.blocks_per_second != speeds[volunteer.peer.id]


async def write_evidence(services: Services) -> None:
    """Append what was seen of volunteers, and give them their scores."""
    await services.standings.write(time.time())
    await services.standings.reload(time.time())


async def tidy_evidence(services: Services) -> None:
    """Remove evidence that counts no more, and put the rows of past hours together."""
    now = time.time()
    await services.store.remove_evidence(now - KEEP_SECONDS)
    await services.store.merge_evidence(hour_of(now) - HOUR)


async def renew_leases(services: Services) -> None:
    """See which volunteers of other replicas the database has; while it is away, all are believed."""
    if len(services.replicas.neighbours):
        now = asyncio.get_running_loop().time
        try:
            records = await services.store.volunteers_elsewhere(time.time() - LEASE_SECONDS)
        except CorollaError:
            services.replicas.be_blind(now())
            raise
        services.replicas.renew(records, now())


async def meet_replicas(services: Services) -> None:
    """Know the peers of the other replicas that live, as far as the database knows any, before serving."""
    records = await services.store.volunteers_elsewhere(time.time() - LEASE_SECONDS)
    await services.replicas.meet({record.replica for record in records}, MEET_SECONDS)
    services.replicas.renew(records, asyncio.get_running_loop().time())


async def beat(services: Services) -> None:
    """Tell the other replicas that this one lives."""
    await services.replicas.beat()


async def remove_rubbish(services: Services) -> None:
    """Remove the rows that replicas left behind when they died."""
    await services.store.remove_unseen(time.time() - FORGET_SECONDS)


def _batches(items: Sequence[_T], size: int) -> list[Sequence[_T]]:
    return [items[start : start + size] for start in range(0, len(items), size)]


JOBS = (
    Job(send_heartbeats, lambda services: services.settings.heartbeat_seconds),
    Job(end_unresponsive, lambda services: services.settings.heartbeat_seconds / CHECKS_PER_HEARTBEAT),
    Job(measure_round_trips, lambda _: PING_SECONDS),
    Job(probe_again, lambda services: min(PROBE_CHECK_SECONDS, services.settings.probe_seconds)),
    Job(close_revoked, lambda _: REVOCATION_SECONDS),
    Job(refresh_models, lambda _: REVOCATION_SECONDS),
    Job(rebalance, lambda services: services.settings.rebalance_seconds),
    Job(mark_alive, lambda _: TOUCH_SECONDS),
    Job(renew_leases, lambda _: LEASES_SECONDS),
    Job(beat, lambda _: BEAT_SECONDS),
    Job(write_evidence, lambda _: EVIDENCE_SECONDS),
    Job(tidy_evidence, lambda _: RUBBISH_SECONDS),
    Job(remove_rubbish, lambda _: RUBBISH_SECONDS),
)
