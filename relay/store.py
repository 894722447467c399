"""The database as the relay sees it: every query a named method, frozen records in and out.

One `Store` owns one engine. Every method raises `schema.errors.Unavailable`, with the time after
which to try again, when the database is away; what else it raises is named with it.
Does not know connections or replies, and decides nothing: it only keeps what was decided.
"""

import secrets
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from sqlalchemy import select, text
from sqlalchemy.ext.asyncio import AsyncEngine

from relay import migrate
from relay.database import close_engine, is_sqlite, open_engine, reading, writing
from relay.queries.base import insert_into
from relay.queries.batches import BatchQueries
from relay.queries.chunks import ChunkQueries
from relay.queries.contributions import ContributionQueries
from relay.queries.evidence import EvidenceQueries
from relay.queries.files import FileQueries
from relay.queries.keys import KeyQueries
from relay.queries.models import ModelQueries
from relay.queries.quarantines import QuarantineQueries
from relay.queries.tokens import TokenQueries
from relay.queries.usage import UsageQueries
from relay.queries.volunteers import VolunteerQueries
from relay.queries.webhooks import WebhookQueries
from relay.records import ModelRecord, TokenRecord, VolunteerRecord
from relay.settings import Settings
from relay.tables import Secret
from schema.routes import SECRET_BYTES

__all__ = ["ModelRecord", "Store", "TokenRecord", "VolunteerRecord"]

_ROUTE_SECRET = "route"


class Store(
    TokenQueries,
    ModelQueries,
    VolunteerQueries,
    EvidenceQueries,
    ContributionQueries,
    QuarantineQueries,
    FileQueries,
    BatchQueries,
    ChunkQueries,
    UsageQueries,
    WebhookQueries,
    KeyQueries,
):
    """The database of one relay process."""

    def __init__(self, engine: AsyncEngine, settings: Settings) -> None:
        super().__init__(engine, settings.replica)
        self._given_secret = settings.relay_secret

    @classmethod
    @asynccontextmanager
    async def open(cls, settings: Settings) -> "AsyncGenerator[Store]":
        """A store on the database of the settings; a SQLite file is made and migrated where necessary.

        Raises:
            DatabaseRefused: a database that is not migrated, or a path that cannot be.
        """
        if is_sqlite(settings.database_url):
            await migrate.upgrade(settings.database_url)
        engine = open_engine(settings.database_url)
        try:
            if not is_sqlite(settings.database_url):
                await migrate.require_head(engine)
            yield cls(engine, settings)
        finally:
            await close_engine(engine)

    async def ping(self) -> None:
        """Nothing, if the database answers."""
        async with reading(self._engine) as connection:
            await connection.execute(text("SELECT 1"))

    async def relay_secret(self) -> bytes:
        """The key that signs routes: of the settings, or made once and shared by all replicas."""
        if self._given_secret is not None:
            return self._given_secret
        proposal = {"name": _ROUTE_SECRET, "value": secrets.token_hex(SECRET_BYTES)}
        async with writing(self._engine) as connection:
            await connection.execute(
                insert_into(connection, Secret).values(proposal).on_conflict_do_nothing()
            )
            found = await connection.execute(select(Secret.value).where(Secret.name == _ROUTE_SECRET))
            return bytes.fromhex(found.scalar_one())
