"""What the relay does by itself, again and again: liveness, revocation, rows in SQL.

Each job is one pass; `repeat` runs it for ever, and outlives its failures. Does not know sockets.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from relay.neighbours import BEAT_SECONDS
from relay.replicas import LEASE_SECONDS
from relay.services import Services
from schema.errors import CorollaError

REVOCATION_SECONDS = 2.0
"""How often the connected tokens are looked up: a revoked one is closed within this time."""
TOUCH_SECONDS = 3.0
"""How often the rows of connected volunteers are marked as alive: the leases that other replicas believe."""
LEASES_SECONDS = 2.0
"""How often the leases of other replicas' volunteers are looked at."""
CHECKS_PER_HEARTBEAT = 4
"""A peer that has missed its heartbeats is noticed within this part of an interval."""
MEET_SECONDS = 3.0
"""How long a replica that starts waits for the others to answer."""
RUBBISH_SECONDS = 3600.0
"""How often rows are looked for that nobody refreshes any more."""
FORGET_SECONDS = 24 * 3600.0
"""After which a volunteer's row is rubbish. Far longer than it counts: a database may be away for hours,
and the rows of all replicas are old when it comes back."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Job:
    """Something to do again and again."""

    work: Callable[[Services], Awaitable[None]]
    seconds: Callable[[Services], float]
    """From one pass to the next."""


async def repeat(job: Job, services: Services) -> None:
    """Run a job until it is cancelled."""
    seconds = job.seconds(services)
    while True:
        await asyncio.sleep(seconds)
        try:
            await job.work(services)
        except CorollaError as error:
            log.warning("%s: %s", job.work.__name__, error.message)
        except Exception:
            log.exception("%s failed, and will be tried again", job.work.__name__)


async def send_heartbeats(services: Services) -> None:
    services.hub.send_heartbeats()


async def end_unresponsive(services: Services) -> None:
    """End the peers that are silent or do not read."""
    services.hub.end_unresponsive(asyncio.get_running_loop().time())


async def close_revoked(services: Services) -> None:
    """End the connections whose token has been revoked."""
    services.hub.end_revoked(await services.store.revoked_among(services.hub.token_ids()))


async def refresh_models(services: Services) -> None:
    """Notice the models that the operator, or another replica's volunteers, have changed."""
    records = await services.store.list_models()
    services.swarm.set_models((record.name, record.facts) for record in records)


async def mark_alive(services: Services) -> None:
    """Refresh the rows of connected volunteers, in one statement for all of them."""
    await services.joining.save_adopted()
    volunteers = services.swarm.volunteers_here()
    await services.store.touch([volunteer.peer.id for volunteer in volunteers], time.time())
    changed = [volunteer for volunteer in volunteers if volunteer.has_new_speed]
    speeds = {volunteer.peer.id: volunteer.blocks_per_second for volunteer in changed}
    await services.store.save_speeds(speeds)
    for volunteer in changed:
        volunteer.has_new_speed = volunteer.blocks_per_second != speeds[volunteer.peer.id]


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


JOBS = (
    Job(send_heartbeats, lambda services: services.settings.heartbeat_seconds),
    Job(end_unresponsive, lambda services: services.settings.heartbeat_seconds / CHECKS_PER_HEARTBEAT),
    Job(close_revoked, lambda _: REVOCATION_SECONDS),
    Job(refresh_models, lambda _: REVOCATION_SECONDS),
    Job(mark_alive, lambda _: TOUCH_SECONDS),
    Job(renew_leases, lambda _: LEASES_SECONDS),
    Job(beat, lambda _: BEAT_SECONDS),
    Job(remove_rubbish, lambda _: RUBBISH_SECONDS),
)
