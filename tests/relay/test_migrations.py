"""migrations/ and relay/migrate.py: every database becomes this relay's, or is refused with the remedy."""

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path

import asyncpg
import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, MetaData, Table, make_url, text

from relay.database import is_sqlite, open_engine, writing
from relay.errors import DatabaseRefused
from relay.migrate import head_revision, render_sql, upgrade
from relay.settings import Settings
from relay.store import Store
from relay.tables import Base
from schema.ids import PeerId

SCHEMAS = Path(__file__).parent / "schemas"
RELEASED = sorted(path.name.split(".")[0] for path in SCHEMAS.glob("*.rows.sql"))
MIGRATIONS = Path(__file__).parents[2] / "migrations"


async def differences(url: str) -> list[object]:
    """What Alembic would still change to make the database what relay/tables.py says."""

    def compare(connection: Connection) -> list[object]:
        return list(compare_metadata(MigrationContext.configure(connection), Base.metadata))

    engine = open_engine(url)
    async with engine.connect() as connection:
        found = await connection.run_sync(compare)
    await engine.dispose()
    return found


async def take_schema(url: str) -> dict[str, object]:
    """All tables, described; they are dropped."""

    def take(connection: Connection) -> dict[str, object]:
        found = MetaData()
        found.reflect(connection)
        described = {table.name: describe(table) for table in found.sorted_tables}
        found.drop_all(connection)
        return described

    def describe(table: Table) -> object:
        columns = [(column.name, str(column.type), column.nullable) for column in table.columns]
        keys = [key.name for key in table.primary_key]
        references = {(key.parent.name, key.target_fullname) for key in table.foreign_keys}
        return columns, table.primary_key.name, keys, references

    engine = open_engine(url)
    async with engine.begin() as connection:
        schema = await connection.run_sync(take)
    await engine.dispose()
    return schema


async def run_script(url: str, script: str) -> None:
    if is_sqlite(url):
        with closing(sqlite3.connect(make_url(url).database or "")) as connection:
            connection.executescript(script)
        return
    server = await asyncpg.connect(url.replace("+asyncpg", ""))
    try:
        await server.execute(script)
    finally:
        await server.close()


async def downgrade(url: str, revision: str) -> None:
    def run(connection: Connection) -> None:
        config = Config()
        config.set_main_option("script_location", str(MIGRATIONS))
        config.set_main_option("path_separator", "os")
        config.attributes["connection"] = connection
        command.downgrade(config, revision)

    engine = open_engine(url, foreign_keys=False)
    async with writing(engine) as connection:
        await connection.run_sync(run)
    await engine.dispose()


def released_script(url: str, revision: str) -> str:
    return (SCHEMAS / f"{revision}.{'sqlite' if is_sqlite(url) else 'postgresql'}.sql").read_text()


async def test_an_empty_database_becomes_what_the_tables_say(empty_database: str) -> None:
    assert await upgrade(empty_database) == head_revision()
    assert await differences(empty_database) == []


async def test_an_upgrade_of_an_upgraded_database_is_nothing(empty_database: str) -> None:
    await upgrade(empty_database)
    await run_script(empty_database, "INSERT INTO secrets (name, value) VALUES ('a', 'b');")
    assert await upgrade(empty_database) == head_revision()
    with pytest.raises((sqlite3.IntegrityError, asyncpg.UniqueViolationError)):
        await run_script(empty_database, "INSERT INTO secrets (name, value) VALUES ('a', 'b');")


async def test_upgrades_at_once_do_not_disturb_each_other(empty_database: str) -> None:
    revisions = await asyncio.gather(*(upgrade(empty_database) for _ in range(3)))
    assert revisions == [head_revision()] * 3


async def test_there_is_one_newest_revision() -> None:
    assert len(ScriptDirectory(str(MIGRATIONS)).get_heads()) == 1


async def test_every_revision_has_its_released_schema() -> None:
    revisions = {script.revision for script in ScriptDirectory(str(MIGRATIONS)).walk_revisions()}
    assert revisions == set(RELEASED)


@pytest.mark.parametrize("revision", RELEASED)
async def test_a_released_revision_still_makes_its_schema(empty_database: str, revision: str) -> None:
    await run_script(empty_database, released_script(empty_database, revision))
    released = await take_schema(empty_database)
    await upgrade(empty_database, revision)
    assert await take_schema(empty_database) == released


async def test_the_sql_that_is_printed_makes_the_newest_schema(empty_database: str) -> None:
    await run_script(empty_database, render_sql(empty_database))
    assert await differences(empty_database) == []
    assert await upgrade(empty_database) == head_revision()


@pytest.mark.parametrize("revision", RELEASED)
async def test_every_released_schema_can_be_upgraded(empty_database: str, revision: str) -> None:
    await run_script(empty_database, released_script(empty_database, revision))
    await run_script(empty_database, (SCHEMAS / f"{revision}.rows.sql").read_text())
    await upgrade(empty_database)
    assert await differences(empty_database) == []


@pytest.mark.parametrize("revision", RELEASED)
async def test_what_a_released_schema_held_is_still_there(empty_database: str, revision: str) -> None:
    await run_script(empty_database, released_script(empty_database, revision))
    await run_script(empty_database, (SCHEMAS / f"{revision}.rows.sql").read_text())
    await upgrade(empty_database)
    async with Store.open(Settings(database_url=empty_database)) as store:
        assert await store.relay_secret() == b"\xab" * 32
        assert [(one.name, one.revoked_at) for one in await store.list_tokens()] == [
            ("Ada", None),
            ("Grace", 3000.5),
        ]
        demo, added = await store.list_models()
        assert demo.facts is not None
        assert (demo.facts.parameters, added.facts) == (176_000_000_000, None)
        at_home, at_work = await store.volunteers()
        assert (at_home.peer, at_home.start, at_home.end) == (PeerId("00000000000000aa"), 0, 8)
        assert at_work.model is None
        assert await store.volunteers(seen_since=1601.0) == [at_work], "its replica was heard of then"


async def test_the_newest_revision_can_be_undone_and_done_again(empty_database: str) -> None:
    """With rows in all tables, as an operator does who goes back to the version before."""
    newest, before = RELEASED[-1], RELEASED[-2]
    await run_script(empty_database, released_script(empty_database, newest))
    await run_script(empty_database, (SCHEMAS / f"{newest}.rows.sql").read_text())
    await downgrade(empty_database, before)
    assert await upgrade(empty_database) == newest
    assert await differences(empty_database) == []
    await downgrade(empty_database, before)
    undone = await take_schema(empty_database)
    await run_script(empty_database, released_script(empty_database, before))
    assert await take_schema(empty_database) == undone


async def test_sqlite_is_migrated_when_it_is_opened(tmp_path: Path) -> None:
    settings = Settings(database_url=f"sqlite+aiosqlite:///{tmp_path}/new.sqlite3")
    async with Store.open(settings) as store:
        assert await store.list_tokens() == []


async def test_sqlite_may_be_opened_by_several_processes_at_first(tmp_path: Path) -> None:
    settings = Settings(database_url=f"sqlite+aiosqlite:///{tmp_path}/new.sqlite3")

    async def secret() -> bytes:
        async with Store.open(settings) as store:
            return await store.relay_secret()

    assert len(set(await asyncio.gather(*(secret() for _ in range(4))))) == 1


@pytest.mark.parametrize("dialect", [pytest.param("postgresql", marks=pytest.mark.postgres)])
async def test_an_unmigrated_postgresql_is_refused_with_the_remedy(empty_database: str) -> None:
    with pytest.raises(DatabaseRefused, match=r"not migrated yet.*`python -m relay migrate`"):
        async with Store.open(Settings(database_url=empty_database)):
            pass


@pytest.mark.parametrize("work", [upgrade, lambda url: Store.open(Settings(database_url=url)).__aenter__()])
async def test_a_database_of_a_newer_relay_is_refused_with_the_remedy(empty_database: str, work) -> None:
    await upgrade(empty_database)
    await run_script(empty_database, "UPDATE alembic_version SET version_num = '9999';")
    with pytest.raises(DatabaseRefused, match=r"9999.*update this relay"):
        await work(empty_database)


async def test_sqlite_keeps_references_whole_and_lets_readers_read(tmp_path: Path) -> None:
    url = f"sqlite+aiosqlite:///{tmp_path}/new.sqlite3"
    engine = open_engine(url)
    async with engine.connect() as connection:
        pragmas = [
            (await connection.execute(text(f"PRAGMA {name}"))).scalar_one()
            for name in ("journal_mode", "foreign_keys", "busy_timeout")
        ]
    await engine.dispose()
    assert pragmas == ["wal", 1, 5000]


async def test_those_revoked_lately_are_found_without_a_look_at_all_tokens(tmp_path: Path) -> None:
    url = f"sqlite+aiosqlite:///{tmp_path}/new.sqlite3"
    await upgrade(url)
    engine = open_engine(url)
    async with engine.connect() as connection:
        plan = await connection.execute(
            text("EXPLAIN QUERY PLAN SELECT id FROM tokens WHERE revoked_at >= 1")
        )
        steps = [row.detail for row in plan]
    await engine.dispose()
    assert steps == ["SEARCH tokens USING INDEX ix_tokens_revoked_at (revoked_at>?)"]


async def test_a_migration_that_fails_leaves_nothing_behind(
    empty_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Broken(Exception):
        pass

    def fail(*_: object, **__: object) -> None:
        raise Broken

    monkeypatch.setattr("alembic.operations.Operations.f", fail)
    with pytest.raises(Broken):
        await upgrade(empty_database)
    monkeypatch.undo()
    assert await upgrade(empty_database) == head_revision()
