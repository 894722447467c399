"""What the relay stands on, checked one by one: what was found, and what to do where that is wrong.

    database -> clock -> migrations -> secrets; bus; extras

Looks and changes nothing: a SQLite file that is not there is not made. What stands on the database is not
checked while that cannot be reached. Does not know how the findings are shown.
"""

import asyncio
import json
import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from statistics import median
from urllib.parse import urlsplit

from msgspec import Struct
from sqlalchemy import make_url, select, text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from relay import migrate
from relay.database import close_engine, is_sqlite, open_engine, reading
from relay.errors import DatabaseRefused
from relay.extras import missing_extras
from relay.settings import Settings
from relay.tables import Secret
from schema.errors import Unavailable

MOST_SKEW_SECONDS = 2.0
"""Between this machine's clock and the database's: by them rows count as stale and routes as expired."""
SLOW_SECONDS = 0.1
"""A query that does nothing should take less."""
PINGS = 5
BUS_SECONDS = 5.0
BUS_LINE_BYTES = 65_536


class Finding(Struct, frozen=True, kw_only=True):
    """What one check has found."""

    name: str
    ok: bool
    found: str
    remedy: str = ""
    """What to do; empty where all is well."""


def _well(name: str, found: str) -> Finding:
    return Finding(name=name, ok=True, found=found)


def _ill(name: str, found: str, remedy: str) -> Finding:
    return Finding(name=name, ok=False, found=found, remedy=remedy)


async def examine(settings: Settings, now: Callable[[], float] = time.time) -> list[Finding]:
    """All checks. `now`: this machine's clock, Unix seconds."""
    findings = await _check_database(settings, now)
    findings += [await check_bus(server) for server in bus_servers(settings)]
    return findings + [
        _ill("extras", f"{missing.variable} needs the extra {missing.extra}", missing.remedy)
        for missing in missing_extras(settings)
    ]


async def _check_database(settings: Settings, now: Callable[[], float]) -> list[Finding]:
    url = settings.database_url
    if _is_missing_file(url):
        return [_check_new_file(url)]
    try:
        engine = open_engine(url)
        try:
            return await _look(engine, settings, now)
        finally:
            await close_engine(engine)
    except Unavailable as error:
        return [_ill("database", f"{shown(url)}: {error.message}", _way_to(url))]
    except DatabaseRefused as error:
        return [_ill("database", str(error), "do as it says")]


async def _look(engine: AsyncEngine, settings: Settings, now: Callable[[], float]) -> list[Finding]:
    findings = [await _check_answer(engine), await _check_clock(engine, now)]
    try:
        await migrate.require_head(engine)
    except DatabaseRefused as error:
        return [*findings, _not_at_head(engine, error)]
    at_head = _well("migrations", f"at revision {migrate.head_revision()}, the newest")
    return [*findings, at_head, await _check_secrets(engine, settings)]


def _is_missing_file(url: str) -> bool:
    return is_sqlite(url) and not Path(make_url(url).database or "").exists()


def _check_new_file(url: str) -> Finding:
    folder = Path(make_url(url).database or "").parent
    if not folder.is_dir():
        return _ill("database", f"there is no folder {folder}", "make it, or set DATABASE_URL")
    if not os.access(folder, os.W_OK):
        remedy = "give this user the right to, or set DATABASE_URL"
        return _ill("database", f"{folder} cannot be written", remedy)
    return _well("database", f"{shown(url)}: not there yet; the relay makes it at its start")


async def _check_answer(engine: AsyncEngine) -> Finding:
    kind = "SQLite" if engine.dialect.name == "sqlite" else "PostgreSQL"
    version = "SELECT sqlite_version()" if kind == "SQLite" else "SHOW server_version"
    times: list[float] = []
    async with reading(engine) as connection:
        found: object = await connection.scalar(text(version))
        for _ in range(PINGS):
            begun = time.perf_counter()
            await connection.execute(text("SELECT 1"))
            times.append(time.perf_counter() - begun)
    said = f"{kind} {found} at {shown(str(engine.url))}, {median(times) * 1000:.1f} ms a query"
    if median(times) > SLOW_SECONDS:
        return _ill(
            "database", said, "bring relay and database nearer together: joining takes several queries"
        )
    return _well("database", said)


def _not_at_head(engine: AsyncEngine, error: DatabaseRefused) -> Finding:
    head = migrate.head_revision()
    found, _, remedy = str(error).partition(": ")
    if engine.dialect.name == "sqlite" and "does not know" not in found:
        return _well("migrations", f"older than revision {head}; the relay upgrades SQLite at its start")
    return _ill("migrations", found, remedy)


async def _check_clock(engine: AsyncEngine, now: Callable[[], float]) -> Finding:
    """The database's clock against this machine's, as far as a query's own time lets it be known."""
    async with reading(engine) as connection:
        before = now()
        there = await _time_of(connection)
        after = now()
    skew = there - (before + after) / 2
    unsure = (after - before) / 2
    if abs(skew) > MOST_SKEW_SECONDS + unsure:
        return _ill(
            "clock",
            f"the database's is {abs(skew):.1f} s {'ahead of' if skew > 0 else 'behind'} this machine's",
            f"let both machines keep time (NTP): more than {MOST_SKEW_SECONDS:g} s apart, volunteers of "
            "other replicas count as gone, and routes expire too early or too late",
        )
    return _well("clock", f"within {abs(skew) + unsure:.3f} s of the database's")


async def _time_of(connection: AsyncConnection) -> float:
    seconds = (
        "SELECT (julianday('now') - 2440587.5) * 86400.0"
        if connection.dialect.name == "sqlite"
        else "SELECT extract(epoch FROM clock_timestamp())::float8"
    )
    return float(await connection.scalar(text(seconds)) or 0.0)


async def _check_secrets(engine: AsyncEngine, settings: Settings) -> Finding:
    async with reading(engine) as connection:
        stored = await connection.scalar(select(Secret.value).where(Secret.name == "route"))
    given = settings.relay_secret
    if given is not None and len(set(given)) < 8:
        return _ill("secrets", "RELAY_SECRET can be guessed", "set one that `openssl rand -hex 32` prints")
    if given is not None and stored is not None and given.hex() != stored:
        return _ill(
            "secrets",
            "RELAY_SECRET is another one than the secret in the database",
            "set it for every replica, or for none: those without it sign routes with the database's, and "
            "the others refuse them. If all have it, delete the row `route` from the table `secrets`",
        )
    if given is not None:
        return _well("secrets", "RELAY_SECRET is set; it must be the same for all replicas")
    if stored is None:
        return _well("secrets", "none yet; the first relay makes one, and all replicas share it")
    return _well("secrets", "in the database, shared by all replicas")


def bus_servers(settings: Settings) -> list[str | None]:
    """Where the servers of the replicas' bus are; None: there is no bus."""
    return [None] if settings.bus_url is None else list(settings.bus_url.split(","))


async def check_bus(address: str | None) -> Finding:
    """Whether the server that replicas reach each other through lets this one in: NATS' own handshake."""
    if address is None:
        return _well("bus", "none: this is the only replica (BUS_URL is for several)")
    remedy = "start the NATS server, or set BUS_URL to where it is: nats://[user:password@]host[:4222]"
    where = urlsplit(address).netloc.rpartition("@")[2]
    try:
        async with asyncio.timeout(BUS_SECONDS):
            return await _greet(address)
    except TimeoutError:
        return _ill("bus", f"{where} does not answer within {BUS_SECONDS:g} s", remedy)
    except (OSError, ValueError) as error:
        return _ill("bus", f"no NATS server at {where}: {str(error) or type(error).__name__}", remedy)


async def _greet(address: str) -> Finding:
    parts = urlsplit(address)
    where = f"{parts.hostname}:{parts.port or 4222}"
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port or 4222, limit=BUS_LINE_BYTES)
    try:
        word, _, told = (await reader.readline()).decode().partition(" ")
        if word != "INFO":
            raise ValueError("what listens there speaks something else")
        info = json.loads(told)
        found = f"NATS {info.get('version', '?')} at {where}"
        if info.get("tls_required") or parts.scheme == "tls":
            return _well("bus", f"{found}; it wants TLS, so that signing in was not tried")
        login = {"user": parts.username, "pass": parts.password} if parts.username else {}
        options = {"verbose": False, "pedantic": False, "lang": "python", "version": "0", "name": "doctor"}
        writer.write(f"CONNECT {json.dumps(options | login)}\r\nPING\r\n".encode())
        answer = (await reader.readline()).decode().strip()
        if answer != "PONG":
            return _ill("bus", f"{found} says {answer or 'nothing'}", "put user and password into BUS_URL")
        return _well("bus", found)
    finally:
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()


def shown(url: str) -> str:
    """A database's address without its password."""
    return make_url(url).render_as_string(hide_password=True)


def _way_to(url: str) -> str:
    if is_sqlite(url):
        return "stop what else uses the file, or set DATABASE_URL"
    return "start PostgreSQL, or set DATABASE_URL to where it is, with a user and a database that exist there"
