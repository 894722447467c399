"""What was seen of volunteers: appended, never changed; parts of an hour are put together when it is over.

Does not know what evidence weighs, nor how long it is kept: callers decide.
"""

from collections.abc import Collection, Sequence

from sqlalchemy import delete, func, insert, literal, select

from relay.database import EVIDENCE_LOCK, reading, writing, writing_alone
from relay.queries.base import Queries, among, listed
from relay.records import Evidence
from relay.tables import EvidenceRow
from schema.ids import PeerId

HOURS_AT_ONCE = 24
"""Hours whose rows one call of `merge_evidence` puts together at most."""
PEERS_AT_ONCE = 200
"""Volunteers whose rows of an hour, perhaps hundreds each, are put together in one transaction."""


class EvidenceQueries(Queries):
    """The table `evidence`."""

    async def append_evidence(self, rows: Sequence[Evidence]) -> None:
        """Add what this replica has seen."""
        if not rows:
            return
        values = [
            {
                "peer": row.peer,
                "kind": row.kind,
                "hour": row.hour,
                "count": row.count,
                "worst": row.worst,
                "replica": self._replica,
            }
            for row in rows
        ]
        async with writing(self._engine) as connection:
            await connection.execute(insert(EvidenceRow), values)

    async def evidence_of(self, peers: Collection[PeerId], since: float) -> list[Evidence]:
        """What was written about some volunteers, of all replicas, one for each volunteer, kind and hour."""
        query = (
            select(
                EvidenceRow.peer,
                EvidenceRow.kind,
                EvidenceRow.hour,
                func.sum(EvidenceRow.count),
                func.max(EvidenceRow.worst),
            )
            .where(EvidenceRow.hour >= since)
            .group_by(EvidenceRow.peer, EvidenceRow.kind, EvidenceRow.hour)
        )
        async with reading(self._engine) as connection:
            query = query.where(among(connection, EvidenceRow.peer))
            rows = await connection.execute(query, listed(connection, peers))
            return [Evidence(peer, kind, hour, int(count), worst) for peer, kind, hour, count, worst in rows]

    async def merge_evidence(self, before: float) -> int:
        """Put the rows of each volunteer and kind together, for hours that began before then.

        What `evidence_of` returns stays the same. How many hours were gone through.
        """
        group = EvidenceRow.hour, EvidenceRow.peer, EvidenceRow.kind
        parts = select(EvidenceRow.hour).where(EvidenceRow.hour < before).group_by(*group)
        several = parts.having(func.count() > 1).subquery()
        query = select(several.c.hour).distinct().order_by(several.c.hour).limit(HOURS_AT_ONCE)
        async with reading(self._engine) as connection:
            hours = list(await connection.scalars(query))
        for hour in hours:
            await self._merge_hour(hour)
        return len(hours)

    async def _merge_hour(self, hour: float) -> None:
        """Some volunteers at a time, so that nobody waits long for his turn to write."""
        query = select(EvidenceRow.peer).where(EvidenceRow.hour == hour).distinct().order_by(EvidenceRow.peer)
        async with reading(self._engine) as connection:
            peers = list(await connection.scalars(query))
        for first in range(0, len(peers), PEERS_AT_ONCE):
            await self._merge_some(hour, peers[first : first + PEERS_AT_ONCE])

    async def _merge_some(self, hour: float, peers: Collection[PeerId]) -> None:
        async with writing_alone(self._engine, EVIDENCE_LOCK) as connection:
            theirs = (EvidenceRow.hour == hour) & among(connection, EvidenceRow.peer)
            these = listed(connection, peers)
            last = await connection.scalar(select(func.max(EvidenceRow.id)).where(theirs), these)
            old = theirs & (EvidenceRow.id <= last)
            merged = (
                select(
                    EvidenceRow.peer,
                    EvidenceRow.kind,
                    EvidenceRow.hour,
                    func.sum(EvidenceRow.count),
                    func.max(EvidenceRow.worst),
                    literal(""),
                )
                .where(old)
                .group_by(EvidenceRow.peer, EvidenceRow.kind, EvidenceRow.hour)
            )
            names = ["peer", "kind", "hour", "count", "worst", "replica"]
            await connection.execute(insert(EvidenceRow).from_select(names, merged), these)
            await connection.execute(delete(EvidenceRow).where(old), these)

    async def remove_evidence(self, before: float) -> int:
        """Remove what is older. How many rows there were."""
        async with writing(self._engine) as connection:
            return (await connection.execute(delete(EvidenceRow).where(EvidenceRow.hour < before))).rowcount
