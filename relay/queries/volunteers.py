"""Volunteers and their spans: the swarm's span coverage, of all replicas.

Does not know which span is a good one, nor when a volunteer counts as gone: callers decide.
"""

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict
from typing import Any, TypeVar

from sqlalchemy import ColumnElement, bindparam, delete, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from relay.database import reading, writing, writing_alone
from relay.placement import Placement
from relay.queries.base import Queries, among, insert_into
from relay.rebalancing import LastMove, Move
from relay.records import HeldSpan, VolunteerRecord
from relay.tables import Move as MoveRow
from relay.tables import Volunteer
from schema.errors import NotFound
from schema.ids import PeerId
from schema.swarm import VolunteerState

SEEN_AT_ONCE = 50
"""Rows that are looked at in one turn of the event loop: about a millisecond."""
ROWS_AT_ONCE = 500
"""PostgreSQL takes 32,767 values with a statement."""
_Seen = TypeVar("_Seen")
_HELD = tuple(getattr(Volunteer, name) for name in HeldSpan._fields)


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
        seen_since: float = 0.0,
        now: float = 0.0,
    ) -> Placement:
        """Give a volunteer the span that `decide` chooses, its state becoming `loading`.

        `decide` is given the spans of the other volunteers that were seen since then, without those that
        leave, and is pure: no other assignment, of this replica or another, happens between its reading and
        its writing. What it raises undoes everything and passes through.

        Raises:
            NotFound: the volunteer has no row.
        """
        async with writing_alone(self._engine) as connection:
            query = select(*_HELD).where(Volunteer.peer != peer, Volunteer.seen_at >= seen_since)
            holds = (Volunteer.model.is_not(None), Volunteer.state != "draining")
            rows = await connection.execute(query.where(*holds).order_by(Volunteer.joined_at, Volunteer.peer))
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

    async def move_span(
        self,
        model: str,
        view: Callable[[VolunteerRecord], _Seen | None],
        decide: Callable[[list[_Seen], LastMove | None], Move | None],
        *,
        seen_since: float,
        now: float,
    ) -> Move | None:
        """Give one volunteer of a model, connected to this replica, the other span that `decide` chooses.

        `decide` is given what `view` makes of those that were seen since then, but for None, and the model's
        last move; as in `assign_span`, nothing else is assigned meanwhile, though other things go on: it runs
        in a thread of its own. None too when the volunteer serves here no more.
        """
        async with writing_alone(self._engine) as connection:
            query = select(Volunteer).where(Volunteer.model == model, Volunteer.seen_at >= seen_since)
            rows = await connection.execute(query.order_by(Volunteer.joined_at, Volunteer.peer))
            seen: list[_Seen] = []
            for some in rows.partitions(SEEN_AT_ONCE):
                views = (view(VolunteerRecord(*row)) for row in some)
                seen += [one for one in views if one is not None]
                await asyncio.sleep(0)
            move = await asyncio.to_thread(decide, seen, await _last_move(connection, model))
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

    async def touch(self, peers: Collection[PeerId], now: float) -> None:
        """Note that these volunteers were heard of at `now`; one statement for all of them."""
        if not peers:
            return
        async with writing(self._engine) as connection:
            these = among(connection, Volunteer.peer, peers)
            await connection.execute(update(Volunteer).where(these).values(seen_at=now))

    async def save_speeds(self, speeds: Mapping[PeerId, float]) -> None:
        """Change what these volunteers compute, in blocks a second."""
        if not speeds:
            return
        change = update(Volunteer).where(Volunteer.peer == bindparam("of"))
        rows = [{"of": peer, "speed": speed} for peer, speed in speeds.items()]
        async with writing(self._engine) as connection:
            await connection.execute(change.values(blocks_per_second=bindparam("speed")), rows)

    async def volunteers(self, seen_since: float) -> list[VolunteerRecord]:
        """The volunteers, of all replicas, that were heard of since then; oldest first."""
        query = select(Volunteer).where(Volunteer.seen_at >= seen_since)
        async with reading(self._engine) as connection:
            rows = await connection.execute(query.order_by(Volunteer.joined_at, Volunteer.peer))
            return [VolunteerRecord(*row) for row in rows]

    async def volunteers_elsewhere(self, seen_since: float) -> list[VolunteerRecord]:
        """As `volunteers`, of the other replicas."""
        query = select(Volunteer).where(Volunteer.seen_at >= seen_since, Volunteer.replica != self._replica)
        async with reading(self._engine) as connection:
            return [VolunteerRecord(*row) for row in await connection.execute(query)]

    async def remove_volunteer(self, peer: PeerId, replica: str) -> bool:
        """Remove a volunteer that left this replica; not if it has joined another since. Whether it did."""
        gone = (Volunteer.peer == peer) & (Volunteer.replica == replica)
        return await self._remove(gone) > 0

    async def remove_replica(self, replica: str) -> int:
        """Remove all volunteers of a replica that starts or stops. How many there were."""
        return await self._remove(Volunteer.replica == replica)

    async def remove_unseen(self, seen_before: float) -> int:
        """Remove the volunteers that nobody has heard of since: their replica died. How many there were."""
        return await self._remove(Volunteer.seen_at < seen_before)

    async def _remove(self, which: ColumnElement[bool]) -> int:
        async with writing(self._engine) as connection:
            return (await connection.execute(delete(Volunteer).where(which))).rowcount


async def _last_move(connection: AsyncConnection, model: str) -> LastMove | None:
    moves = select(MoveRow.peer, MoveRow.at, MoveRow.members).where(MoveRow.model == model)
    found = (await connection.execute(moves.order_by(MoveRow.id.desc()).limit(1))).first()
    return None if found is None else LastMove(*found)


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
