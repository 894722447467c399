"""Events that somebody is still to be told of. Does not know how, nor how often it is tried."""

from collections.abc import Collection

from sqlalchemy import delete, select, update

from relay.database import writing
from relay.queries.base import Queries
from relay.records import WebhookRecord
from relay.tables import Webhook


class WebhookQueries(Queries):
    """The table `webhooks`."""

    async def take_webhook(
        self, now: float, until: float, without: Collection[str] = ()
    ) -> WebhookRecord | None:
        """One that is due, for this caller until then; it counts as tried. None: there is none.

        `without`: ids of tokens whose events are left for later.
        """
        query = (
            select(Webhook)
            .where(Webhook.due_at <= now, Webhook.token_id.not_in(without))
            .order_by(Webhook.due_at)
            .limit(1)
            .with_for_update(skip_locked=True)
        )
        async with writing(self._engine) as connection:
            found = (await connection.execute(query)).one_or_none()
            if found is None:
                return None
            record = WebhookRecord(*found)
            values = {"attempts": record.attempts + 1, "due_at": until}
            await connection.execute(update(Webhook).where(Webhook.id == record.id).values(values))
            return record._replace(**values)

    async def put_off_webhook(self, webhook_id: str, due_at: float) -> None:
        """Have it tried again then."""
        async with writing(self._engine) as connection:
            this = Webhook.id == webhook_id
            await connection.execute(update(Webhook).where(this).values(due_at=due_at))

    async def remove_webhook(self, webhook_id: str) -> None:
        """It was told, or nobody tries any more."""
        async with writing(self._engine) as connection:
            await connection.execute(delete(Webhook).where(Webhook.id == webhook_id))
