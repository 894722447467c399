"""The database goes away: what runs goes on, what is new is told to come back, and nothing is lost."""

import asyncio
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from benchmarks.plain_peer import Card, connect, facts
from tests.chaos.proxy import Proxy
from tests.chaos.thicket import OTHER_MODEL, SECOND, Thicket, assert_complete
from tests.conftest import EXACT
from tests.garden import SPANS, Garden, garden, wait_until
from tests.relay.conftest import PostgresServer, postgres, postgres_template

__all__ = ["postgres", "postgres_template"]

QUESTION = "3 14 159 26 5 358"
LONG = 250


def sign_in(garden: Garden) -> httpx.Response:
    """As a page does, and a script with a token before it asks for anything."""
    token = garden.tokens[0]
    return httpx.post(f"{garden.relay.url}/api/session", json={"token": token}, timeout=60, trust_env=False)


def assert_told_to_come_back(answer: httpx.Response) -> None:
    assert answer.status_code == 503
    assert answer.json()["error"]["code"] == "unavailable"
    assert int(answer.headers["Retry-After"]) > 0


class TestSQLite:
    @pytest.fixture
    def file(self, thicket: Thicket) -> Path:
        address = thicket.garden.relay.environment["DATABASE_URL"]
        return Path(address.removeprefix("sqlite:///"))

    def test_that_is_locked_lets_replies_go_on_and_newcomers_wait(self, thicket: Thicket, file: Path) -> None:
        """Somebody writes to it for longer than the relay waits."""
        before = thicket.garden.say(QUESTION, LONG)
        card = Card(thicket.garden.relay.token("volunteer", "newcomer"), "newcomer", facts(OTHER_MODEL, 4))
        other = sqlite3.connect(file)
        with thicket.garden.chat(QUESTION, LONG) as chat:
            chat.wait_for_text()
            other.execute("BEGIN EXCLUSIVE")
            with pytest.raises(ConnectionError, match="unavailable"):
                asyncio.run(connect(thicket.garden.relay.url, card))
            assert thicket.garden.say(QUESTION, LONG) == before
            other.rollback()
            other.close()
            assert_complete(chat, before)
        assert asyncio.run(joins(thicket.garden.relay.url, card))

    def test_that_is_gone_lets_replies_go_on_and_says_so(self, thicket: Thicket, file: Path) -> None:
        before = thicket.garden.say(QUESTION, LONG)
        hidden = file.with_suffix(".hidden")
        with thicket.garden.chat(QUESTION, LONG) as chat:
            chat.wait_for_text()
            file.rename(hidden)
            try:
                assert_complete(chat, before)
                assert not file.exists()  # nobody has made an empty one in its place
            finally:
                hidden.rename(file)
        assert sign_in(thicket.garden).status_code == 204


async def joins(url: str, card: Card) -> bool:
    """Whether a plain volunteer comes to serve."""
    peer = await connect(url, card)
    await peer.close()
    return True


@contextmanager
def postgres_garden(postgres: PostgresServer, template: str, model: Path) -> Iterator[tuple[Garden, Proxy]]:
    """A swarm whose relay reaches its PostgreSQL over a proxy."""
    database = postgres.create(template)
    address = urlsplit(postgres.admin_url)
    with Proxy(address.hostname or "127.0.0.1", address.port or 5432).running() as proxy:
        url = f"postgresql://{address.username}@127.0.0.1:{proxy.port}/{database}"
        with garden(model, SPANS, EXACT, DATABASE_URL=url) as planted:
            planted.mend()
            yield planted, proxy
    postgres.drop(database)


@pytest.fixture(scope="module")
def planted(postgres: PostgresServer, postgres_template: str, model: Path) -> Iterator[tuple[Garden, Proxy]]:
    with postgres_garden(postgres, postgres_template, model) as both:
        yield both


@pytest.mark.postgres
class TestPostgreSQL:
    def test_that_is_away_lets_sessions_go_on_and_sign_ins_come_back_later(
        self, planted: tuple[Garden, Proxy]
    ) -> None:
        garden, proxy = planted
        before = garden.say(QUESTION, LONG)
        spans = {one.name: (one.id, one.start, one.end) for one in garden.relay.swarm().volunteers}
        with garden.chat(QUESTION, LONG) as chat:
            chat.wait_for_text()
            proxy.cut()
            assert_told_to_come_back(sign_in(garden))
            asked = httpx.post(
                f"{garden.relay.url}/v1/chat/completions",
                json={"model": "tiny", "messages": [{"role": "user", "content": "1"}]},
                headers={"Authorization": f"Bearer {garden.tokens[0]}"},
                trust_env=False,
            )
            assert_told_to_come_back(asked)
            assert_complete(chat, before)
        assert {one.name for one in garden.relay.swarm().volunteers} == set(SPANS)
        proxy.mend()
        wait_until(lambda: sign_in(garden).status_code == 204, "the database is back")
        assert garden.say(QUESTION, LONG) == before
        assert {one.name: (one.id, one.start, one.end) for one in garden.relay.swarm().volunteers} == spans

    def test_that_ends_all_connections_is_connected_to_anew(
        self, planted: tuple[Garden, Proxy], postgres: PostgresServer
    ) -> None:
        garden, _ = planted
        database = garden.relay.environment["DATABASE_URL"].rpartition("/")[2]
        before = garden.say(QUESTION, LONG)
        with garden.chat(QUESTION, LONG) as chat:
            chat.wait_for_text()
            postgres.run(
                f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{database}'"
            )
            assert sign_in(garden).status_code == 204
            assert_complete(chat, before)

    def test_that_is_away_while_a_hop_dies_lets_the_reply_be_repaired(
        self, planted: tuple[Garden, Proxy]
    ) -> None:
        """A route needs no query."""
        garden, proxy = planted
        spare = garden.plant("dahlia", "--blocks", SECOND)
        garden.relay.wait_until_serving(["dahlia"], [spare])
        before = garden.say(QUESTION, LONG)
        with garden.chat(QUESTION, LONG) as chat:
            chat.wait_for_text()
            proxy.cut()
            wait_until(lambda: users_of(garden, SECOND), "a hop is in use")
            used = users_of(garden, SECOND)[0]
            garden.volunteers[used].process.kill()
            assert_complete(chat, before)
        proxy.mend()
        wait_until(lambda: sign_in(garden).status_code == 204, "the database is back")


def users_of(garden: Garden, span: str) -> list[str]:
    """Who serves a session over these blocks."""
    volunteers = garden.relay.swarm().volunteers
    return [one.name for one in volunteers if one.sessions and f"{one.start}:{one.end}" == span]
