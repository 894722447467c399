"""Volunteers and their spans: the swarm's span coverage, of all replicas.

Does not know which span is a good one, nor when a volunteer counts as gone: callers decide.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict
from typing import Any, TypeVar

import orjson
from sqlalchemy import ColumnElement, Select, bindparam, case, delete, func, insert, select, true, update
from sqlalchemy.ext.asyncio import AsyncConnection

from relay.database import reading, writing, writing_alone
from relay.placement import Placement
from relay.queries.base import Queries, among, insert_into, listed
from relay.rebalancing import LastMove, Move
from relay.records import HeldSpan, HeldTogether, VolunteerRecord
from relay.tables import Move as MoveRow
from relay.tables import Replica, Volunteer
from relay.throughputs import FASTEST, SLOWEST
from schema.errors import NotFound
from schema.ids import PeerId
from schema.swarm import VolunteerState

SEEN_AT_ONCE = 10
"""Rows that are looked at in one turn of the event loop: about a fifth of a millisecond."""
ROWS_AT_ONCE = 500
"""PostgreSQL takes 32,767 values with a statement."""
MOVES_SEEN = 200
"""Of swarms that have moved more often since anybody came or went, the earliest moves are forgotten."""
_Seen = TypeVar("_Seen")


class VolunteerQueries(Queries):
    """The table `volunteers`."""

    async def save_volunteer(self, record: VolunteerRecord) -> None:
        """Put a volunteer's row there, in place of the one it had."""
        await self.save_volunteers([record])

    async def save_volunteers(self, records: Sequence[VolunteerRecord]) -> None:
        """As `save_volunteer`, of several in one statement (of very many in a few)."""
        if not records:
            return
        async with writing(self._engine) as connection:
            for first in range(0, len(records), ROWS_AT_ONCE):
                some = records[first : first + ROWS_AT_ONCE]
                rows = [asdict(record) | {"cached": record.cached} for record in some]
                put = insert_into(connection, Volunteer).values(rows)
                new = {name: getattr(put.excluded, name) for name in rows[0]}
                await connection.execute(put.on_conflict_do_update(index_elements=["peer"], set_=new))

    async def set_volunteer_state(
        self,
        peer: PeerId,
        state: VolunteerState,
        *,
        dtype: str | None = None,
        quantization: str | None = None,
    ) -> bool:
        """Change what a volunteer does now, and what it has loaded where that is given.

        Whether it has a row of this replica: another one's is left as it is.
        """
        loaded = {"dtype": dtype, "quantization": quantization}
        values = {"state": state} | {name: value for name, value in loaded.items() if value is not None}
        mine = (Volunteer.peer == peer) & (Volunteer.replica == self._replica)
        async with writing(self._engine) as connection:
            changed = await connection.execute(update(Volunteer).where(mine).values(values))
        return bool(changed.rowcount)

    async def assign_span(
        self,
        peer: PeerId,
        decide: Callable[[list[HeldSpan]], Placement],
        *,
        seen_since: float | None = None,
        without: Collection[PeerId] = (),
        now: float = 0.0,
    ) -> Placement:
        """Give a volunteer the span that `decide` chooses, its state becoming `loading`.

        `decide` is given the spans of the other volunteers that were seen since then, but for `without` and
        those that leave, and is pure: no other assignment, of this replica or another, happens between its
        reading and its writing. What it raises undoes everything and passes through.

        Raises:
            NotFound: the volunteer has no row.
        """
        async with writing_alone(self._engine) as connection:
            counts = Volunteer.model.is_not(None) & (Volunteer.state != "draining")
            query = _HELD_SPANS.where(Volunteer.peer != peer, _lives(seen_since), counts)
            if without:
                query = query.where(~among(connection, Volunteer.peer))
            rows = await connection.execute(query, listed(connection, without) if without else {})
            placement = decide([HeldSpan(*row) for row in rows])
            changed = await connection.execute(
                update(Volunteer)
                .where(Volunteer.peer == peer)
                .values(
                    state="loading",
                    model=placement.model,
                    start=placement.span.start,
                    end=placement.span.end,
                    head=placement.head,
                    dtype=None,
                    quantization=None,
                    room=placement.room,
                    cached=placement.cached,
                    settled_at=now,
                )
            )
            if not changed.rowcount:
                raise NotFound(f"volunteer {peer} is not known: it may have left")
        return placement

    async def held_together(
        self, model: str, *, seen_since: float | None = None, without: Collection[PeerId] = ()
    ) -> list[HeldTogether]:
        """What those volunteers of a model hold that `move_span` reads, but for `without`: as few rows as
        there are different spans and rooms."""
        holds = (Volunteer.model == model) & (Volunteer.state != "draining")
        async with reading(self._engine) as connection:
            query = _HELD_TOGETHER.where(holds, _lives(seen_since))
            if without:
                query = query.where(~among(connection, Volunteer.peer))
            rows = await connection.execute(query, listed(connection, without) if without else {})
            return [HeldTogether(*row) for row in rows]

    async def move_span(
        self,
        model: str,
        view: Callable[[VolunteerRecord], _Seen | None],
        decide: Callable[[list[_Seen], list[LastMove]], Move | None],
        *,
        seen_since: float | None = None,
        now: float,
    ) -> Move | None:
        """Give one volunteer of a model, connected to this replica, the other span that `decide` chooses.

        `decide` is given what `view` makes of those that were seen since then, but for None, and the model's
        last moves, the latest first; as in `assign_span`, nothing else is assigned meanwhile, though other
        things go on: it runs in a thread of its own. None too when the volunteer serves here no more.
        """
        async with writing_alone(self._engine) as connection:
            query = select(Volunteer).where(Volunteer.model == model, _lives(seen_since))
            rows = await connection.execute(query.order_by(Volunteer.joined_at, Volunteer.peer))
            seen: list[_Seen] = []
            for some in rows.partitions(SEEN_AT_ONCE):
                views = (view(VolunteerRecord(*row)) for row in some)
                seen += [one for one in views if one is not None]
                await asyncio.sleep(0)
            move = await asyncio.to_thread(decide, seen, await _last_moves(connection, model))
            if move is None:
                return None
            serving = (Volunteer.peer == move.peer) & (Volunteer.state == "serving")
            changed = await connection.execute(
                update(Volunteer)
                .where(serving, Volunteer.replica == self._replica)
                .values(
                    state="loading",
                    start=move.after.start,
                    end=move.after.end,
                    dtype=None,
                    quantization=None,
                    settled_at=now,
                )
            )
            if not changed.rowcount:
                return None
            await connection.execute(insert(MoveRow).values(_values_of(move, model, now)))
        return move

    async def renew_lease(self, now: float, replies: Mapping[str, int] | None = None) -> None:
        """Note that this replica, and so each volunteer that has a row of it, was heard of at `now`.

        `replies`: of people, that it has under way, by model.
        """
        told = orjson.dumps(dict(replies or {})).decode()
        async with writing(self._engine) as connection:
            put = insert_into(connection, Replica).values(name=self._replica, seen_at=now, replies=told)
            new = {"seen_at": put.excluded.seen_at, "replies": put.excluded.replies}
            await connection.execute(put.on_conflict_do_update(index_elements=["name"], set_=new))

    async def replies_elsewhere(self, seen_since: float) -> dict[str, int]:
        """The replies of people that the other replicas, heard of since then, had under way, by model."""
        others = (Replica.name != self._replica) & (Replica.seen_at >= seen_since)
        total: Counter[str] = Counter()
        async with reading(self._engine) as connection:
            for told in await connection.scalars(select(Replica.replies).where(others)):
                total.update(orjson.loads(told))
        return dict(total)

    async def save_speeds(self, speeds: Mapping[PeerId, float]) -> None:
        """Change what these volunteers compute, in blocks a second."""
        if not speeds:
            return
        change = update(Volunteer).where(Volunteer.peer == bindparam("of"))
        rows = [{"of": peer, "speed": speed} for peer, speed in speeds.items()]
        async with writing(self._engine) as connection:
            await connection.execute(change.values(blocks_per_second=bindparam("speed")), rows)

    async def volunteers(self, seen_since: float | None = None) -> list[VolunteerRecord]:
        """The volunteers, of all replicas that were heard of since then (None: of all), the oldest first."""
        query = select(Volunteer).where(_lives(seen_since))
        async with reading(self._engine) as connection:
            rows = await connection.execute(query.order_by(Volunteer.joined_at, Volunteer.peer))
            return [VolunteerRecord(*row) for row in rows]

    async def volunteers_elsewhere(self, seen_since: float) -> list[VolunteerRecord]:
        """As `volunteers`, of the other replicas, with pauses for whoever else wants to work."""
        query = select(Volunteer).where(_lives(seen_since), Volunteer.replica != self._replica)
        found: list[VolunteerRecord] = []
        async with reading(self._engine) as connection:
            rows = await connection.stream(query)
            async for some in rows.partitions(SEEN_AT_ONCE):
                found += [VolunteerRecord(*row) for row in some]
                await asyncio.sleep(0)
        return found

    async def remove_volunteer(self, peer: PeerId, replica: str) -> bool:
        """Remove a volunteer that left this replica; not if it has joined another since. Whether it did."""
        gone = (Volunteer.peer == peer) & (Volunteer.replica == replica)
        async with writing(self._engine) as connection:
            return bool((await connection.execute(delete(Volunteer).where(gone))).rowcount)

    async def others_here(self, than: Collection[PeerId]) -> list[PeerId]:
        """The volunteers that have a row of this replica, but for those named."""
        async with reading(self._engine) as connection:
            others = (Volunteer.replica == self._replica) & ~among(connection, Volunteer.peer)
            return list(
                await connection.scalars(select(Volunteer.peer).where(others), listed(connection, than))
            )

    async def remove_volunteers(self, peers: Collection[PeerId]) -> int:
        """As `remove_volunteer`, of several, from this replica. How many there were."""
        async with writing(self._engine) as connection:
            gone = (Volunteer.replica == self._replica) & among(connection, Volunteer.peer)
            return (
                await connection.execute(delete(Volunteer).where(gone), listed(connection, peers))
            ).rowcount

    async def remove_replica(self, replica: str) -> int:
        """Remove a replica that starts or stops, and all its volunteers. How many there were."""
        async with writing(self._engine) as connection:
            removed = await connection.execute(delete(Volunteer).where(Volunteer.replica == replica))
            await connection.execute(delete(Replica).where(Replica.name == replica))
        return removed.rowcount

    async def remove_unseen(self, seen_before: float) -> int:
        """Remove the replicas that nobody has heard of since, and their volunteers. How many those were."""
        async with writing(self._engine) as connection:
            removed = await connection.execute(delete(Volunteer).where(~_lives(seen_before)))
            await connection.execute(delete(Replica).where(Replica.seen_at < seen_before))
        return removed.rowcount


def _held_spans() -> Select[str | None, int | None, int | None, bool, int, Any]:
    """Volunteers that hold the same are put together by the database: thousands hold only so many spans."""
    speed = Volunteer.blocks_per_second
    believed = case((speed < SLOWEST, SLOWEST), (speed > FASTEST, FASTEST), else_=speed)
    has_measured = case((speed > 0, 1), else_=0)
    span = (Volunteer.model, Volunteer.start, Volunteer.end, Volunteer.head)
    mean = case((has_measured == 1, func.avg(believed)), else_=0.0)
    return select(*span, func.count(), mean).group_by(*span, has_measured).order_by(*span, has_measured)


_HELD_SPANS = _held_spans()


def _held_together() -> Select[int | None, int | None, int | None, Any, Any]:
    speed = Volunteer.blocks_per_second
    believed = case((speed <= 0, 0.0), (speed < SLOWEST, SLOWEST), (speed > FASTEST, FASTEST), else_=speed)
    same = (Volunteer.start, Volunteer.end, Volunteer.room)
    return select(*same, func.sum(believed), func.max(believed)).group_by(*same)


_HELD_TOGETHER = _held_together()


def _lives(seen_since: float | None) -> ColumnElement[bool]:
    """Whether a volunteer's replica was heard of since then; None: it need not have been."""
    if seen_since is None:
        return true()
    return Volunteer.replica.in_(select(Replica.name).where(Replica.seen_at >= seen_since))


async def _last_moves(connection: AsyncConnection, model: str) -> list[LastMove]:
    moves = select(MoveRow.peer, MoveRow.at, MoveRow.members).where(MoveRow.model == model)
    rows = await connection.execute(moves.order_by(MoveRow.id.desc()).limit(MOVES_SEEN))
    return [LastMove(*row) for row in rows]


def _values_of(move: Move, model: str, now: float) -> dict[str, Any]:
    return {
        "at": now,
        "model": model,
        "peer": move.peer,
        "from_start": move.before.start,
        "from_end": move.before.end,
        "to_start": move.after.start,
        "to_end": move.after.end,
        "gain": move.gain,
        "members": move.members,
    }
