"""relay/doctor.py and its command: what is wrong is named, with what to do, and only that."""

import asyncio
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import make_url

from relay import doctor
from relay.__main__ import main
from relay.doctor import MOST_SKEW_SECONDS, Finding, check_bus, examine
from relay.migrate import head_revision, upgrade
from relay.settings import Settings
from relay.store import Store
from tests.relay.conftest import PostgresServer
from tests.relay.test_migrations import run_script

SECRET = bytes(range(32))
on_postgresql = pytest.mark.parametrize("dialect", [pytest.param("postgresql", marks=pytest.mark.postgres)])


def wrong(findings: list[Finding]) -> dict[str, Finding]:
    """What is not well, by name; all that is has a remedy, and nothing else has one."""
    assert [finding.name for finding in findings if bool(finding.remedy) is finding.ok] == []
    return {finding.name: finding for finding in findings if not finding.ok}


def found(findings: list[Finding], name: str) -> str:
    (finding,) = [finding for finding in findings if finding.name == name]
    return finding.found


@pytest.fixture
async def migrated(database: str) -> Settings:
    if database.startswith("sqlite"):
        await upgrade(database)
    return Settings(database_url=database)


# ---- all is well ----


async def test_what_is_well_is_said(migrated: Settings) -> None:
    findings = await examine(migrated)
    assert wrong(findings) == {}
    assert [one.name for one in findings] == ["database", "clock", "migrations", "secrets", "bus"]
    kind = make_url(migrated.database_url).get_backend_name()
    assert found(findings, "database").lower().startswith(kind)
    assert "ms a query" in found(findings, "database")
    assert head_revision() in found(findings, "migrations")


async def test_a_sqlite_file_that_the_relay_will_make_is_no_fault_and_is_not_made(tmp_path: Path) -> None:
    file = tmp_path / "new.sqlite3"
    assert wrong(await examine(Settings(database_url=f"sqlite+aiosqlite:///{file}"))) == {}
    assert not file.exists()


async def test_nor_is_one_that_it_will_upgrade(tmp_path: Path) -> None:
    (tmp_path / "empty.sqlite3").touch()
    findings = await examine(Settings(database_url=f"sqlite+aiosqlite:///{tmp_path}/empty.sqlite3"))
    assert wrong(findings) == {}
    assert "upgrades" in found(findings, "migrations")


# ---- the database ----


async def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    findings = await examine(Settings(database_url=f"sqlite+aiosqlite:///{tmp_path}/none/a.sqlite3"))
    assert str(tmp_path / "none") in wrong(findings)["database"].found


async def test_a_file_that_is_no_database_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.sqlite3").write_bytes(b"no database" * 1000)
    findings = await examine(Settings(database_url=f"sqlite+aiosqlite:///{tmp_path}/a.sqlite3"))
    assert "a.sqlite3" in wrong(findings)["database"].found


@pytest.mark.postgres
async def test_a_wrong_port_is_named(postgres: PostgresServer) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        url = make_url(postgres.url_of("postgres")).set(port=nobody.getsockname()[1], password="hidden")
        findings = await examine(Settings(database_url=url.render_as_string(hide_password=False)))
    database = wrong(findings)["database"]
    assert f":{url.port}" in database.found
    assert "hidden" not in database.found
    assert "start PostgreSQL" in database.remedy
    assert [finding.name for finding in findings] == ["database", "bus"]


@pytest.mark.postgres
@pytest.mark.parametrize(("part", "value"), [("database", "no_such_database"), ("username", "nobody_here")])
async def test_a_wrong_name_is_named(postgres: PostgresServer, part: str, value: str) -> None:
    right = make_url(postgres.url_of("postgres"))
    url = right.set(database=value) if part == "database" else right.set(username=value)
    findings = await examine(Settings(database_url=url.render_as_string(hide_password=False)))
    assert value in wrong(findings)["database"].found
    assert "check DATABASE_URL" in wrong(findings)["database"].found
    assert "try again" not in wrong(findings)["database"].found


async def test_a_database_that_answers_slowly_is_named(
    migrated: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "SLOW_SECONDS", 0.0)
    findings = await examine(migrated)
    assert set(wrong(findings)) == {"database"}
    assert len(findings) == 5


# ---- migrations ----


@on_postgresql
async def test_an_unmigrated_postgresql_is_named_with_the_command(empty_database: str) -> None:
    findings = await examine(Settings(database_url=empty_database))
    (migrations,) = wrong(findings).values()
    assert migrations.name == "migrations"
    assert migrations.found.endswith(f"needs revision {head_revision()}")
    assert "`python -m relay migrate`" in migrations.remedy


async def test_a_database_of_a_newer_relay_is_named(migrated: Settings) -> None:
    await run_script(migrated.database_url, "UPDATE alembic_version SET version_num = '9999';")
    (migrations,) = wrong(await examine(migrated)).values()
    assert "9999" in migrations.found
    assert "update this relay" in migrations.remedy


# ---- clock and secrets ----


@pytest.mark.parametrize(("ahead", "word"), [(60.0, "behind"), (-60.0, "ahead of")])
async def test_clocks_that_differ_are_named(migrated: Settings, ahead: float, word: str) -> None:
    (clock,) = wrong(await examine(migrated, now=lambda: time.time() + ahead)).values()
    assert clock.name == "clock"
    assert word in clock.found
    assert "NTP" in clock.remedy


async def test_a_slow_answer_is_no_skew(migrated: Settings) -> None:
    ticks = iter([time.time() - 20 * MOST_SKEW_SECONDS, time.time() + 20 * MOST_SKEW_SECONDS])
    assert wrong(await examine(migrated, now=lambda: next(ticks))) == {}


async def test_a_secret_that_others_do_not_have_is_named(migrated: Settings) -> None:
    async with Store.open(migrated) as store:
        await store.relay_secret()
    assert wrong(await examine(migrated)) == {}
    (secrets,) = wrong(await examine(replace(migrated, relay_secret=SECRET))).values()
    assert "every replica" in secrets.remedy
    assert SECRET.hex() not in secrets.found + secrets.remedy


async def test_a_secret_of_ones_own_is_well_and_a_simple_one_is_not(migrated: Settings) -> None:
    assert wrong(await examine(replace(migrated, relay_secret=SECRET))) == {}
    (secrets,) = wrong(await examine(replace(migrated, relay_secret=bytes(32)))).values()
    assert "openssl rand -hex 32" in secrets.remedy


# ---- the bus ----


@asynccontextmanager
async def speaking(*lines: bytes) -> AsyncIterator[str]:
    """The address of a server that says these lines, and then listens."""
    served: list[asyncio.Task[None]] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            for line in lines:
                writer.write(line)
            await reader.read()
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()

    def start(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        served.append(asyncio.create_task(serve(reader, writer)))

    server = await asyncio.start_server(start, "127.0.0.1", 0)
    async with server:
        yield f"nats://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    await asyncio.gather(*served)


@pytest.fixture
def nats(tmp_path: Path) -> Iterator[str]:
    """A real server that wants a password; its address without one."""
    program = shutil.which("nats-server")
    if program is None:
        if os.environ.get("CI"):
            pytest.fail("nats-server is not installed")
        pytest.skip("nats-server is not installed")
    ports = tmp_path / "ports"
    ports.mkdir()
    options = ["--addr", "127.0.0.1", "--port", "-1", "--ports_file_dir", str(ports)]
    login = ["--user", "relay", "--pass", "sesame"]
    with subprocess.Popen([program, *options, *login], stderr=subprocess.DEVNULL) as process:
        try:
            deadline = time.monotonic() + 30
            while not (written := [file for file in ports.glob("*.ports") if file.stat().st_size]):
                assert time.monotonic() < deadline
                time.sleep(0.01)
            yield json.loads(written[0].read_text())["nats"][0]
        finally:
            process.terminate()


async def test_a_library_that_is_missing_is_named_with_its_extra(
    migrated: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    for library in ("nats", "obstore"):
        monkeypatch.setitem(sys.modules, library, None)
    assert "extras" not in wrong(await examine(migrated))
    findings = await examine(replace(migrated, bus_url="nats://127.0.0.1:1", files="s3://bucket"))
    extras = [finding for finding in findings if finding.name == "extras"]
    assert [finding.ok for finding in extras] == [False, False]
    assert "BUS_URL" in extras[0].found
    assert "pip install 'corolla[nats] @ git+" in extras[0].remedy
    assert "pip install 'corolla[s3] @ git+" in extras[1].remedy


async def test_a_relay_alone_needs_no_bus() -> None:
    assert (await check_bus(None)).ok


async def test_every_server_of_the_bus_is_examined(nats: str, tmp_path: Path) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        there = nats.replace("nats://", "nats://relay:sesame@")
        servers = f"{there},nats://127.0.0.1:{nobody.getsockname()[1]}"
        url = f"sqlite+aiosqlite:///{tmp_path / 'corolla.sqlite3'}"
        findings = await examine(Settings(database_url=url, bus_url=servers))
    assert [finding.ok for finding in findings if finding.name == "bus"] == [True, False]


async def test_a_real_bus_lets_in_who_has_the_password(nats: str) -> None:
    allowed = await check_bus(nats.replace("nats://", "nats://relay:sesame@"))
    assert allowed.ok
    assert allowed.found.startswith("NATS ")
    for address in (nats, nats.replace("nats://", "nats://relay:guess@")):
        refused = await check_bus(address)
        assert not refused.ok
        assert "Authorization" in refused.found
        assert "guess" not in refused.found
        assert "password" in refused.remedy


async def test_a_bus_that_is_not_there_is_named() -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        where = f"127.0.0.1:{nobody.getsockname()[1]}"
        finding = await check_bus(f"nats://me:hidden@{where}")
    assert not finding.ok
    assert where in finding.found
    assert "hidden" not in finding.found
    assert "BUS_URL" in finding.remedy


async def test_what_is_no_bus_is_named() -> None:
    for greeting in (b"HTTP/1.1 400 Bad Request\r\n", b"INFO nonsense\r\n", b"x" * 100_000):
        async with speaking(greeting) as address:
            finding = await check_bus(address)
        assert not finding.ok
        assert "no NATS server" in finding.found


async def test_a_bus_that_says_nothing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "BUS_SECONDS", 0.05)
    async with speaking() as address:
        finding = await check_bus(address)
    assert not finding.ok
    assert "does not answer" in finding.found


async def test_a_bus_with_tls_is_not_signed_in_to() -> None:
    async with speaking(b'INFO {"version": "2.10", "tls_required": true}\r\n') as address:
        finding = await check_bus(address)
    assert finding.ok
    assert "TLS" in finding.found


# ---- the command ----


def test_the_command_says_what_is_well(database: str, capsys: pytest.CaptureFixture[str]) -> None:
    asyncio.run(upgrade(database))
    assert main(["doctor"], {"DATABASE_URL": database}) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:2] for line in lines] == [
        ["ok", f"{name}:"] for name in ("database", "clock", "migrations", "secrets", "bus")
    ]


def test_the_command_says_what_to_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    database = f"sqlite:///{tmp_path}/none/a.sqlite3"
    assert main(["doctor"], {"DATABASE_URL": database}) == 1
    wrong_line, remedy, *_ = capsys.readouterr().out.splitlines()
    assert wrong_line.startswith("WRONG  database: ")
    assert remedy.strip().startswith("to do: ")


def test_the_command_speaks_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    database = f"sqlite:///{tmp_path}/none/a.sqlite3"
    assert main(["doctor", "--json"], {"DATABASE_URL": database}) == 1
    said = json.loads(capsys.readouterr().out)
    assert said["ok"] is False
    assert [(one["name"], one["ok"]) for one in said["checks"]] == [("database", False), ("bus", True)]
    assert said["checks"][0]["remedy"]
