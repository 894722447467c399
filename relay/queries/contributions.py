"""What volunteers have done for others: sums by day, that all replicas add to."""

from collections.abc import Collection

from sqlalchemy import case, delete, func, select

from relay.database import reading, reading_once, writing
from relay.queries.base import Queries, among, insert_into, listed
from relay.records import Contribution, Leader
from relay.tables import ContributionRow
from schema.ids import PeerId

_KEY = ["peer", "day"]
_ROW = (
    ContributionRow.peer,
    ContributionRow.day,
    ContributionRow.name,
    ContributionRow.blocks_steps,
    ContributionRow.replies,
    ContributionRow.hours,
)


class ContributionQueries(Queries):
    """The table `contributions`."""

    async def add_contributions(self, rows: Collection[Contribution]) -> None:
        """Add to what is there, one for each volunteer and day."""
        if not rows:
            return
        async with writing(self._engine) as connection:
            put = insert_into(connection, ContributionRow)
            new, known = put.excluded, ContributionRow
            added = put.on_conflict_do_update(
                index_elements=_KEY,
                set_={
                    "name": case((new.name == "", known.name), else_=new.name),
                    "blocks_steps": known.blocks_steps + new.blocks_steps,
                    "replies": known.replies + new.replies,
                    "hours": known.hours.bitwise_or(new.hours),
                },
            )
            await connection.execute(added, [row._asdict() for row in rows])

    async def leaders(self, since: float, most: int) -> list[Leader]:
        """Those that have done most since that day."""
        computed, replies = func.sum(ContributionRow.blocks_steps), func.sum(ContributionRow.replies)
        first = (
            select(ContributionRow.peer)
            .where(ContributionRow.day >= since)
            .group_by(ContributionRow.peer)
            .order_by(computed.desc(), replies.desc(), ContributionRow.peer)
            .limit(most)
        )
        async with reading(self._engine) as connection:
            peers = list(await connection.scalars(first))
            days = select(*_ROW).where(ContributionRow.day >= since, among(connection, ContributionRow.peer))
            rows = await connection.execute(days.order_by(ContributionRow.day), listed(connection, peers))
            found: dict[PeerId, list[Contribution]] = {peer: [] for peer in peers}
            for row in rows:
                day = Contribution(*row)
                found[day.peer].append(day)
        return [_added_up(days_of_peer) for days_of_peer in found.values() if days_of_peer]

    async def contribution_of(self, peer: PeerId, since: float) -> Leader | None:
        """What one volunteer has done since that day; None: nothing."""
        query = select(*_ROW).where(ContributionRow.peer == peer, ContributionRow.day >= since)
        async with reading_once(self._engine) as connection:
            rows = await connection.execute(query.order_by(ContributionRow.day))
            days = [Contribution(*row) for row in rows]
        return _added_up(days) if days else None

    async def remove_contributions(self, before: float) -> int:
        """Remove what is older. How many rows there were."""
        old = delete(ContributionRow).where(ContributionRow.day < before)
        async with writing(self._engine) as connection:
            return (await connection.execute(old)).rowcount


def _added_up(days: list[Contribution]) -> Leader:
    """One volunteer's days, the oldest first."""
    names = [day.name for day in days if day.name]
    return Leader(
        peer=days[0].peer,
        name=names[-1] if names else "",
        blocks_steps=sum(day.blocks_steps for day in days),
        replies=sum(day.replies for day in days),
        hours=sum(day.hours.bit_count() for day in days),
    )
