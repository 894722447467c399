"""The schema's version: upgrading a database to this relay's, and refusing to serve on another.

SQLite is upgraded at every start; PostgreSQL only by `python -m relay migrate`, which a hosting
platform runs once before a release. The steps themselves are in `migrations/versions/`.
Does not know what the tables are for.
"""

import io
import logging
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection
from sqlalchemy.ext.asyncio import AsyncEngine

from relay.database import close_engine, is_sqlite, open_engine, reading, writing_alone
from relay.errors import DatabaseRefused

log = logging.getLogger(__name__)

_FOLDER = Path(__file__).resolve().parent.parent / "migrations"
"""Beside this package, in a checkout as in an installed wheel."""


async def upgrade(url: str, revision: str = "head") -> str:
    """Bring a database to `revision`; nothing happens when it is there already. The revision it has then.

    All steps are one transaction, and of several processes that do this at once only one works.

    Raises:
        DatabaseRefused: a newer relay has migrated it. Unavailable: the database is away.
    """
    engine = open_engine(url, foreign_keys=False)
    try:
        async with writing_alone(engine) as connection:
            before = await connection.run_sync(_revision_of)
            _refuse_unknown(before)
            await connection.run_sync(_upgrade, revision)
            after = await connection.run_sync(_revision_of) or "base"
        if after != before:
            log.info("the database was upgraded from revision %s to %s", before or "none", after)
        return after
    finally:
        await close_engine(engine)


async def require_head(engine: AsyncEngine) -> None:
    """Refuse a database that is not at this relay's revision.

    Raises:
        DatabaseRefused: it is at another one. Unavailable: the database is away.
    """
    async with reading(engine) as connection:
        found = await connection.run_sync(_revision_of)
    _refuse_unknown(found)
    if found != head_revision():
        raise DatabaseRefused(
            f"the database is {f'at revision {found}' if found else 'not migrated yet'}, this relay needs "
            f"revision {head_revision()}: run `python -m relay migrate` with the same DATABASE_URL first"
        )


def head_revision() -> str:
    """The newest revision in `migrations/versions/`."""
    return ScriptDirectory.from_config(_config()).get_current_head() or "base"


def render_sql(url: str, revision: str = "head") -> str:
    """The SQL that takes an empty database to `revision`, for those who review or run it by hand."""
    output = io.StringIO()
    config = _config(output)
    config.attributes["dialect"] = "sqlite" if is_sqlite(url) else "postgresql"
    command.upgrade(config, revision, sql=True)
    return output.getvalue()


def _config(output: io.StringIO | None = None) -> Config:
    config = Config(output_buffer=output)
    config.set_main_option("script_location", str(_FOLDER).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    return config


def _revision_of(connection: Connection) -> str | None:
    return MigrationContext.configure(connection).get_current_revision()


def _upgrade(connection: Connection, revision: str) -> None:
    config = _config()
    config.attributes["connection"] = connection
    command.upgrade(config, revision)


def _refuse_unknown(found: str | None) -> None:
    known = {script.revision for script in ScriptDirectory.from_config(_config()).walk_revisions()}
    if found is not None and found not in known:
        raise DatabaseRefused(
            f"the database is at revision {found}, which this relay does not know: a newer one has "
            "migrated it; update this relay, or restore the backup from before"
        )
