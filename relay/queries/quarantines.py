"""Volunteers that operators keep out of routes, why, and until when: kept for good, beside the evidence.

Does not know what becomes of them: callers do.
"""

from typing import Any

from sqlalchemy import exists, insert, or_, select, update

from relay.database import QUARANTINE_LOCK, reading, reading_once, writing_alone
from relay.queries.base import Queries, among, checked_name, listed
from relay.records import QuarantineRecord
from relay.reputation import hour_of
from relay.tables import ContributionRow, EvidenceRow, QuarantineRow, Token, Volunteer
from schema.errors import InvalidRequest, NotFound
from schema.ids import PeerId
from schema.operators import Reason
from schema.swarm import EvidenceKind

MOST_PAST = 100
"""Quarantines of one volunteer that are shown, the newest."""
_FIELDS = (
    QuarantineRow.peer,
    QuarantineRow.at,
    QuarantineRow.reason,
    QuarantineRow.by,
    QuarantineRow.ended_at,
    QuarantineRow.end_reason,
    QuarantineRow.ended_by,
)
"""In the order of QuarantineRecord."""


class QuarantineQueries(Queries):
    """The table `quarantines`."""

    async def quarantine(self, peer: PeerId, reason: str, by: str | None, now: float) -> QuarantineRecord:
        """Keep a volunteer out; one that is kept out already has another reason from now on.

        `by`: the admin's token; None: from the command line.

        Raises InvalidRequest: it is no reason that can be shown.
        """
        reason = _checked_reason(reason)
        mine = (QuarantineRow.peer == peer) & QuarantineRow.ended_at.is_(None)
        async with writing_alone(self._engine, QUARANTINE_LOCK) as connection:
            changed = await connection.execute(update(QuarantineRow).where(mine).values(reason=reason, by=by))
            if not changed.rowcount:
                row = {"peer": peer, "at": now, "reason": reason, "by": by}
                await connection.execute(insert(QuarantineRow).values(row))
                await connection.execute(self._evidence(peer, "quarantined", now))
            return QuarantineRecord(*(await connection.execute(select(*_FIELDS).where(mine))).one())

    async def restore(self, peer: PeerId, reason: str, by: str | None, now: float) -> QuarantineRecord:
        """Let a volunteer be in routes again. The quarantine that is over.

        Raises:
            NotFound: it is in none. InvalidRequest: no reason that can be shown.
        """
        reason = _checked_reason(reason)
        mine = (QuarantineRow.peer == peer) & QuarantineRow.ended_at.is_(None)
        values = {"ended_at": now, "end_reason": reason, "ended_by": by}
        async with writing_alone(self._engine, QUARANTINE_LOCK) as connection:
            change = update(QuarantineRow).where(mine).values(values).returning(*_FIELDS)
            row = (await connection.execute(change)).one_or_none()
            if row is None:
                raise NotFound(f"the volunteer {peer!r} is in no quarantine")
            await connection.execute(self._evidence(peer, "restored", now))
            return QuarantineRecord(*row)

    def _evidence(self, peer: PeerId, kind: EvidenceKind, now: float) -> Any:
        row = {"peer": peer, "kind": kind, "hour": hour_of(now), "count": 1, "worst": 0.0}
        return insert(EvidenceRow).values(row | {"replica": self._replica})

    async def quarantined(self) -> list[QuarantineRecord]:
        """Those that are kept out now, the newest first."""
        query = select(*_FIELDS).where(QuarantineRow.ended_at.is_(None))
        async with reading_once(self._engine) as connection:
            rows = await connection.execute(query.order_by(QuarantineRow.at.desc(), QuarantineRow.peer))
            return [QuarantineRecord(*row) for row in rows]

    async def quarantines_of(self, peer: PeerId) -> list[QuarantineRecord]:
        """How a volunteer was kept out, the newest first."""
        query = select(*_FIELDS).where(QuarantineRow.peer == peer).order_by(QuarantineRow.id.desc())
        async with reading_once(self._engine) as connection:
            return [QuarantineRecord(*row) for row in await connection.execute(query.limit(MOST_PAST))]

    async def has_seen(self, peer: PeerId) -> bool:
        """Whether a volunteer is here, or anything was seen of it, or it has done anything."""
        tables = Volunteer, EvidenceRow, ContributionRow, QuarantineRow
        found = or_(*(exists().where(table.peer == peer) for table in tables))
        async with reading_once(self._engine) as connection:
            return bool(await connection.scalar(select(found)))

    async def tokens_of(self, peers: list[PeerId]) -> dict[PeerId, tuple[str, str]]:
        """The tokens with which connected volunteers have joined, each with its name."""
        query = select(Volunteer.peer, Token.id, Token.name).join(Token, Token.id == Volunteer.token_id)
        async with reading(self._engine) as connection:
            query = query.where(among(connection, Volunteer.peer))
            rows = await connection.execute(query, listed(connection, peers))
            return {peer: (token_id, name) for peer, token_id, name in rows}


def _checked_reason(text: str) -> str:
    if not text.isprintable():
        raise InvalidRequest("a reason cannot hold characters that cannot be shown", param="reason")
    return checked_name(text, Reason, "a reason")
