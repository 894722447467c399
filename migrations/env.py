"""How Alembic reaches the database.

`relay.migrate` hands over a connection with an open transaction, or the dialect to print SQL for.
Run by Alembic's own command line (to write a new revision), it takes the database of the settings.
"""

import asyncio
import os

from alembic import context
from sqlalchemy import Connection

from relay.database import open_engine
from relay.settings import Settings
from relay.tables import Base


def run(connection: Connection) -> None:
    """Run the steps in the connection's transaction, or in one of their own."""
    context.configure(
        connection=connection,
        target_metadata=Base.metadata,
        transactional_ddl=True,
        # SQLite alters a table by copying it.
        render_as_batch=connection.dialect.name == "sqlite",
    )
    with context.begin_transaction():
        context.run_migrations()


def print_sql(dialect: str) -> None:
    context.configure(dialect_name=dialect, literal_binds=True, transactional_ddl=True)
    with context.begin_transaction():
        context.run_migrations()


async def run_on_own_engine() -> None:
    engine = open_engine(Settings.from_environment(os.environ).database_url, foreign_keys=False)
    async with engine.begin() as connection:
        await connection.run_sync(run)
    await engine.dispose()


given = context.config.attributes
if context.is_offline_mode():
    print_sql(given["dialect"])
elif "connection" in given:
    run(given["connection"])
else:
    asyncio.run(run_on_own_engine())
