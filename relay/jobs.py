"""What the relay does by itself, again and again: liveness, revocation, rows in SQL.

Each job is one pass; `repeat` runs it for ever, and outlives its failures. Does not know sockets.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from relay.hub import LOOKS_PER_HEARTBEAT
from relay.neighbours import BEAT_SECONDS
from relay.replicas import LEASE_SECONDS
from relay.reputation import HOUR, hour_of
from relay.services import Services
from relay.standings import KEEP_SECONDS
from relay.usage import DAY, day_of
from schema.errors import CorollaError
from schema.history import MOST_DAYS

REVOCATION_SECONDS = 2.0
"""How often it is asked which tokens were revoked: their connections are closed within this time."""
LEASE_RENEWAL_SECONDS = 3.0
"""How often this replica says in SQL that it lives, and so do its volunteers."""
ORPHANS_SECONDS = 20.0
"""How often it is looked for rows of volunteers that are connected nowhere."""
LEASES_SECONDS = 2.0
"""How often the leases of other replicas' volunteers are looked at."""
LOOK_AT_PEERS_SECONDS = 0.02
"""How often some peers are looked at: of ten thousand, as many as take a tenth of a millisecond."""
LOOKS_PER_ROUND = 5
"""At least, where intervals are so short that all have to be looked at in less than that."""
PROBE_CHECK_SECONDS = 0.02
"""How often it is looked whose probe is due: a hundred a second at most are sent."""
MEET_SECONDS = 3.0
"""How long a replica that starts waits for the others to answer."""
RUBBISH_SECONDS = 3600.0
"""How often rows are looked for that nobody refreshes any more."""
EVIDENCE_SECONDS = 30.0
"""How often what was seen of volunteers is written down, and their scores are computed anew; and what tokens
have used."""
LOOK_SECONDS = 2.0
"""How often it is looked what has changed about volunteers, for the history."""
LET_IN_SECONDS = 0.5
"""How often it is looked whether there are new heads for those who wait for one."""
FORGET_SECONDS = 24 * 3600.0
"""After which a volunteer's row is rubbish. Far longer than it counts: a database may be away for hours,
and the rows of all replicas are old when it comes back."""

SHORTEST_PAUSE = 0.1
"""Of a job's interval, however long it takes."""

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
        pause = max(seconds * SHORTEST_PAUSE, seconds - (now() - begun))


async def look_at_peers(services: Services) -> None:
    """End the peers that are silent or do not read, and say something to those that have heard nothing."""
    services.hub.look_at_some(asyncio.get_running_loop().time())


def seconds_between_looks(heartbeat_seconds: float) -> float:
    """From one look at some peers to the next."""
    return min(LOOK_AT_PEERS_SECONDS, heartbeat_seconds / LOOKS_PER_HEARTBEAT / LOOKS_PER_ROUND)


async def probe_again(services: Services) -> None:
    """Have those that serve prove that they still can."""
    services.probing.ask(asyncio.get_running_loop().time())


async def close_revoked(services: Services) -> None:
    """End the connections whose token has been revoked."""
    await services.revocation.close_revoked(time.time())


async def look_at_quarantines(services: Services) -> None:
    """Notice whom operators keep out of routes, and whom no longer."""
    await services.quarantine.look()


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


async def renew_lease(services: Services) -> None:
    """Say that this replica lives, and so do its volunteers."""
    await services.store.renew_lease(time.time(), services.admission.people())


async def update_rows(services: Services) -> None:
    """Bring the rows of connected volunteers up to date, those that have moved here first."""
    await services.joining.save_adopted()
    changed = [volunteer for volunteer in services.swarm.volunteers_here() if volunteer.has_new_speed]
    speeds = {volunteer.peer.id: volunteer.blocks_per_second for volunteer in changed}
    await services.store.save_speeds(speeds)
    for volunteer in changed:
        volunteer.has_new_speed = volunteer.blocks_per_second != speeds[volunteer.peer.id]


async def let_in(services: Services) -> None:
    """Let in who waits for a head, since heads may have come."""
    services.admission.let_in()


async def look_for_history(services: Services) -> None:
    """Note who has come, left or moved."""
    await services.history.look(time.time())


async def write_evidence(services: Services) -> None:
    """Append what was seen of volunteers, add what they have done, and give them their scores."""
    await services.standings.write(time.time())
    await services.contributions.write()
    await services.standings.reload(time.time())


async def write_usage(services: Services) -> None:
    """Add what replies took to what their tokens have used."""
    await services.usage.write(services.store)


async def tidy_usage(services: Services) -> None:
    """Remove what tokens have used on days of long ago."""
    before = day_of(time.time()) - (services.settings.usage_days - 1) * DAY
    while await services.store.remove_usage(before):
        pass  # others write in between


async def tidy_evidence(services: Services) -> None:
    """Remove evidence that counts no more, and put the rows of past hours together; so for what was done."""
    now = time.time()
    await services.store.remove_evidence(now - KEEP_SECONDS)
    await services.store.merge_evidence(hour_of(now) - HOUR)
    await services.store.remove_contributions(day_of(now) - MOST_DAYS * DAY)


async def renew_leases(services: Services) -> None:
    """See which volunteers of other replicas the database has; while it is away, all are believed."""
    if len(services.replicas.neighbours):
        now = asyncio.get_running_loop().time
        try:
            records = await services.store.volunteers_elsewhere(time.time() - LEASE_SECONDS)
        except CorollaError:
            services.replicas.be_blind(now())
            raise
        await services.replicas.renew(records, now())


async def meet_replicas(services: Services) -> None:
    """Know the peers of the other replicas that live, as far as the database knows any, before serving."""
    records = await services.store.volunteers_elsewhere(time.time() - LEASE_SECONDS)
    await services.replicas.meet({record.replica for record in records}, MEET_SECONDS)
    await services.replicas.renew(records, asyncio.get_running_loop().time())


async def beat(services: Services) -> None:
    """Tell the other replicas that this one lives."""
    await services.replicas.beat()


async def remove_rows_left(services: Services) -> None:
    """Remove the rows that volunteers have left behind here."""
    await services.joining.remove_rows_left(services.hub)


async def refresh_leaderboards(services: Services) -> None:
    """Add up anew what volunteers have done, for the days that somebody has asked for lately."""
    await services.leaderboard.refresh(time.time())


async def remove_rubbish(services: Services) -> None:
    """Remove the rows that replicas left behind when they died, and the keys of requests of long ago."""
    await services.store.remove_unseen(time.time() - FORGET_SECONDS)
    await services.store.remove_old_keys(time.time())


JOBS = (
    Job(look_at_peers, lambda services: seconds_between_looks(services.settings.heartbeat_seconds)),
    Job(probe_again, lambda services: min(PROBE_CHECK_SECONDS, services.settings.probe_seconds)),
    Job(close_revoked, lambda _: REVOCATION_SECONDS),
    Job(look_at_quarantines, lambda _: REVOCATION_SECONDS),
    Job(refresh_models, lambda _: REVOCATION_SECONDS),
    Job(rebalance, lambda services: services.settings.rebalance_seconds),
    Job(renew_lease, lambda _: LEASE_RENEWAL_SECONDS),
    Job(update_rows, lambda _: LEASE_RENEWAL_SECONDS),
    Job(remove_rows_left, lambda _: ORPHANS_SECONDS),
    Job(renew_leases, lambda _: LEASES_SECONDS),
    Job(beat, lambda _: BEAT_SECONDS),
    Job(let_in, lambda _: LET_IN_SECONDS),
    Job(look_for_history, lambda _: LOOK_SECONDS),
    Job(write_evidence, lambda _: EVIDENCE_SECONDS),
    Job(write_usage, lambda _: EVIDENCE_SECONDS),
    Job(refresh_leaderboards, lambda _: EVIDENCE_SECONDS),
    Job(tidy_evidence, lambda _: RUBBISH_SECONDS),
    Job(tidy_usage, lambda _: RUBBISH_SECONDS),
    Job(remove_rubbish, lambda _: RUBBISH_SECONDS),
)
