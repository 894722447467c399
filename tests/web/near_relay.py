"""A relay in the test's own process, at whose inside the test may look. Volunteers are the test's to play."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from relay.migrate import upgrade
from tests.relay.core.support import RunningRelay, running_relay, sqlite_url


@asynccontextmanager
async def near_relay(folder: Path, **settings: Any) -> AsyncGenerator[RunningRelay]:
    """One with its database in `folder`, open to pages."""
    database = folder / "corolla.sqlite3"
    await upgrade(sqlite_url(database))
    async with running_relay(database, open_chat=True, **settings) as relay:
        yield relay
