"""The database itself: its address, its engine, its transactions, and what counts as it being away.

Knows how SQLite and PostgreSQL differ, so that the store need not. Does not know the tables.
"""

import asyncio
import os
import sqlite3
import threading
import weakref
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

import aiosqlite
from sqlalchemy import event, text
from sqlalchemy.engine import URL, Connection, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from relay.errors import DatabaseRefused
from schema.errors import Unavailable

_SQLITE = "sqlite+aiosqlite"
_POSTGRESQL = "postgresql+asyncpg"
_DRIVERS = {
    "sqlite": _SQLITE,
    _SQLITE: _SQLITE,
    "postgres": _POSTGRESQL,
    "postgresql": _POSTGRESQL,
    _POSTGRESQL: _POSTGRESQL,
}
_POSTGRESQL_OPTIONS = {"host", "ssl", "prepared_statement_cache_size"}

CONNECT_SECONDS = 5.0
"""How long PostgreSQL may take to accept a connection, and SQLite to give up a lock."""
STATEMENT_SECONDS = 15.0
"""How long PostgreSQL may take for one statement before it counts as away."""
CONNECTIONS = 15
"""To the database, of one relay, all of which are kept: each new one takes SQLite a thread."""
POOL_SECONDS = 10.0
"""How long a query may wait for others to give a connection back."""
RETRY_SECONDS = 5.0
"""What callers are told to wait when the database is away."""

_WRITES = "corolla_writes"
_READS_ONCE = "corolla_reads_once"
_TURN = "corolla_turn"
"""SQLite lets one write at a time, and who waits for it may starve: here writers queue before they ask."""
_THREADS = "corolla_threads"
"""Those of SQLite's connections, as long as they run."""
COVERAGE_LOCK = 0x636F726F6C6C61
"""PostgreSQL's name for the lock that serialises what must not interleave ("corolla" in ASCII)."""
QUARANTINE_LOCK = COVERAGE_LOCK + 2
"""The same for keeping a volunteer out of routes."""
EVIDENCE_LOCK = COVERAGE_LOCK + 1
"""The same for putting evidence together, which takes long and concerns no one who joins."""


def default_database_url() -> str:
    return resolve_database_url("sqlite:///corolla.sqlite3")


def resolve_database_url(address: str) -> str:
    """`DATABASE_URL` as SQLAlchemy's async drivers want it; a SQLite path becomes absolute.

    Raises:
        ValueError: not an address of SQLite or PostgreSQL that can be used; the message is the remedy
            and repeats no password.
    """
    try:
        url = make_url(address)
    except (ArgumentError, ValueError):
        raise ValueError("give sqlite:///path/to/file or postgresql://user:password@host/database") from None
    driver = _DRIVERS.get(url.drivername)
    if driver is None:
        raise ValueError(
            f"{url.drivername!r} is not served: give sqlite:///path or postgresql://host/database"
        )
    url = url.set(drivername=driver)
    resolved = _sqlite_file(url) if driver == _SQLITE else _postgresql_server(url)
    return resolved.render_as_string(hide_password=False)


def _sqlite_file(url: URL) -> URL:
    if url.host or url.query or not url.database or url.database == ":memory:":
        raise ValueError(
            "give SQLite a file and nothing more: sqlite:///path, or four slashes before a full path"
        )
    return url.set(database=str(Path(url.database).expanduser().absolute()))


def _postgresql_server(url: URL) -> URL:
    if not url.database:
        raise ValueError("name the database too: give postgresql://user:password@host/database")
    query = dict(url.query)
    if "sslmode" in query:  # libpq's word, which hosting providers put into addresses; asyncpg says `ssl`
        query["ssl"] = query.pop("sslmode")
    unknown = sorted(set(query) - _POSTGRESQL_OPTIONS)
    if unknown:
        raise ValueError(
            f"take {', '.join(unknown)} out of the address: only sslmode and host are understood there"
        )
    return url.set(query=query)


def is_sqlite(url: str) -> bool:
    return make_url(url).drivername == _SQLITE


def open_engine(url: str, *, foreign_keys: bool = True) -> AsyncEngine:
    """An engine for a resolved address; nothing is connected yet.

    `foreign_keys` False lets a migration rebuild a SQLite table that others refer to.

    Raises:
        DatabaseRefused: a SQLite file that cannot be there.
    """
    if not is_sqlite(url):
        timeouts = {"timeout": CONNECT_SECONDS, "command_timeout": STATEMENT_SECONDS}
        return create_async_engine(
            url,
            pool_pre_ping=True,
            pool_size=CONNECTIONS,
            max_overflow=0,
            pool_timeout=POOL_SECONDS,
            connect_args=timeouts,
        )
    path = Path(make_url(url).database or "")
    _check_sqlite_path(path)
    threads: weakref.WeakSet[threading.Thread] = weakref.WeakSet()
    engine = create_async_engine(
        _existing(url, path) if path.exists() else url,
        pool_size=CONNECTIONS,
        max_overflow=0,
        pool_timeout=POOL_SECONDS,
        connect_args={"timeout": CONNECT_SECONDS, "async_creator_fn": partial(_connect, threads)},
        execution_options={_TURN: asyncio.Lock(), _THREADS: threads},
    )

    def prepare(connection: Any, _record: object) -> None:
        # The driver's own BEGIN comes late and leaves DDL outside; ours is in `begin` below.
        connection.isolation_level = None
        cursor = connection.cursor()
        with _busy_ignored():
            cursor.execute("PRAGMA journal_mode = WAL")
        cursor.execute(f"PRAGMA foreign_keys = {'ON' if foreign_keys else 'OFF'}")
        cursor.close()

    def begin(connection: Connection) -> None:
        # A writer takes the lock at once: one that read first could no longer get it.
        options = connection.get_execution_options()
        if not options.get(_READS_ONCE, False):
            connection.exec_driver_sql("BEGIN IMMEDIATE" if options.get(_WRITES, False) else "BEGIN")

    event.listen(engine.sync_engine, "connect", prepare)
    event.listen(engine.sync_engine, "begin", begin)
    return engine


def _connect(
    threads: "weakref.WeakSet[threading.Thread]", *where: Any, **options: Any
) -> aiosqlite.Connection:
    """A connection to be awaited, as SQLAlchemy's dialect makes it."""
    connection = aiosqlite.connect(*where, **options)
    thread = connection._thread  # pyright: ignore[reportPrivateUsage] - there is no other way to it
    thread.daemon = True
    threads.add(thread)
    return connection


async def close_engine(engine: AsyncEngine) -> None:
    """Close all connections, and return when the threads of SQLite's have ended.

    What a task has given up, a connection say, goes on in its thread, which then tells the event loop: that
    has to be there still. PostgreSQL's connections have no threads.
    """
    await engine.dispose()
    threads: weakref.WeakSet[threading.Thread] = engine.sync_engine.get_execution_options().get(
        _THREADS, weakref.WeakSet()
    )
    for thread in list(threads):
        await asyncio.to_thread(thread.join, CONNECT_SECONDS)


def _existing(url: str, path: Path) -> URL:
    """Of a file that is there: one that has vanished is an outage, and no new and empty one."""
    return make_url(url).set(database=f"file:{quote(str(path))}", query={"mode": "rw", "uri": "true"})


@contextmanager
def _busy_ignored() -> Generator[None]:
    """For a new file's change to write-ahead logging, which does not wait for locks.

    Whoever holds the lock is a relay that starts at the same time and makes the same change; all see it.
    """
    try:
        yield
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY:
            raise


def _check_sqlite_path(path: Path) -> None:
    """Refuse here what the driver would report from a thread of its own."""
    if not path.parent.is_dir():
        raise DatabaseRefused(
            f"there is no folder {path.parent} for the database: make it, or set DATABASE_URL"
        )
    if path.is_dir() or not os.access(path if path.exists() else path.parent, os.W_OK):
        raise DatabaseRefused(f"{path} cannot be written: give this user the right to, or set DATABASE_URL")


@asynccontextmanager
async def reading(engine: AsyncEngine) -> AsyncGenerator[AsyncConnection]:
    """A transaction that only reads. Raises Unavailable when the database is away."""
    with outages_named():
        async with engine.begin() as connection:
            yield connection


@asynccontextmanager
async def reading_once(engine: AsyncEngine) -> AsyncGenerator[AsyncConnection]:
    """For a single statement that only reads, which SQLite needs no transaction for: half the work.

    Raises Unavailable when the database is away.
    """
    with outages_named():
        async with engine.execution_options(**{_READS_ONCE: True}).connect() as connection:
            yield connection


@asynccontextmanager
async def writing(engine: AsyncEngine) -> AsyncGenerator[AsyncConnection]:
    """A transaction that writes; it is rolled back when the block raises.

    Raises:
        Unavailable: the database is away, or stayed locked.
    """
    with outages_named():
        async with _turn(engine), engine.execution_options(**{_WRITES: True}).begin() as connection:
            yield connection


@asynccontextmanager
async def _turn(engine: AsyncEngine) -> AsyncGenerator[None]:
    """This process's turn to write. Raises TimeoutError when it does not come."""
    lock: asyncio.Lock | None = engine.sync_engine.get_execution_options().get(_TURN)
    if lock is None:
        yield
        return
    async with asyncio.timeout(POOL_SECONDS):
        await lock.acquire()
    try:
        yield
    finally:
        lock.release()


@asynccontextmanager
async def writing_alone(engine: AsyncEngine, lock: int = COVERAGE_LOCK) -> AsyncGenerator[AsyncConnection]:
    """As `writing`, and no other such block of any replica, with this lock, runs at the same time."""
    async with writing(engine) as connection:
        if connection.dialect.name == "postgresql":
            await connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": lock})
        yield connection


@contextmanager
def outages_named() -> Generator[None]:
    """Turns errors that mean "the database is away" into Unavailable; lets all others through."""
    try:
        yield
    except (DBAPIError, PoolTimeout, OSError) as error:
        if not _is_outage(error):
            raise
        raise Unavailable(
            f"the database is not available: {_cause(error)}; {_remedy(error)}",
            retry_after=RETRY_SECONDS,
        ) from error


# Classes of SQLSTATE (PostgreSQL manual, appendix A): connection, authorisation, unknown database,
# rollback by conflict, resources, operator intervention, system error; then single codes: a cached plan
# that a migration made stale, a server that became read-only, a database that takes no connections.
_OUTAGE_CLASSES = frozenset({"08", "28", "3D", "40", "53", "57", "58"})
_REFUSED_CLASSES = frozenset({"28", "3D"})
"""Of those, what stays as it is until somebody changes something."""
_OUTAGE_STATES = frozenset({"0A000", "25006", "55000"})
_SQLITE_MISTAKES = frozenset({sqlite3.SQLITE_ERROR, sqlite3.SQLITE_CONSTRAINT})


def _is_outage(error: DBAPIError | PoolTimeout | OSError) -> bool:
    if not isinstance(error, DBAPIError):
        return True  # no connection in time, or asyncpg's plain error while connecting
    state = _state(error)
    if state is not None:
        return state[:2] in _OUTAGE_CLASSES or state in _OUTAGE_STATES
    code: int | None = getattr(error.orig, "sqlite_errorcode", None)
    if code is not None:
        return code & 0xFF not in _SQLITE_MISTAKES
    return error.connection_invalidated or "InterfaceError" in type(error.orig).__name__


def _state(error: DBAPIError) -> str | None:
    return getattr(error.orig, "sqlstate", None)


def _remedy(error: DBAPIError | PoolTimeout | OSError) -> str:
    state = _state(error) if isinstance(error, DBAPIError) else None
    if state is not None and state[:2] in _REFUSED_CLASSES:
        return "check DATABASE_URL: user, password and database"
    return "try again in a moment"


def _cause(error: DBAPIError | PoolTimeout | OSError) -> str:
    if isinstance(error, PoolTimeout | TimeoutError):
        return "it does not answer in time"
    cause = error.orig if isinstance(error, DBAPIError) else error
    return str(cause).splitlines()[0].split(">: ")[-1] if str(cause) else type(cause).__name__
