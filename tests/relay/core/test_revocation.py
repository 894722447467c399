"""Which tokens are looked up to end what was begun with them."""

import asyncio
from typing import cast

import httpx
import pytest

from relay import jobs
from relay.hub import Hub
from relay.revocation import ALL_SECONDS, CLOCKS_APART_SECONDS, Revocation
from relay.store import Store
from schema.credentials import parse_credential
from schema.errors import Unavailable
from schema.messages import Cancel, Generate
from tests.relay.core.peers import ScriptedPeer
from tests.relay.core.rest_client import CHAT, QUESTION, answered, assert_error, client_of
from tests.relay.core.support import RunningRelay
from tests.relay.core.test_hub import connected, reason

NOW = 1_000_000.0


class AskedStore:
    """A store that notes what it is asked, and can be away."""

    def __init__(self, revoked: set[str] | None = None) -> None:
        self.asked: list[float] = []
        self.is_away = False
        self._revoked = revoked or set()

    async def ended_since(self, when: float, now: float) -> set[str]:
        self.asked.append(NOW - when)
        if self.is_away:
            raise Unavailable("the database is away")
        return self._revoked


async def test_each_time_the_tokens_revoked_since_the_last_time_are_asked_for() -> None:
    store = AskedStore()
    revocation = Revocation(cast(Store, store), [Hub(1.0)], NOW)
    for now in (NOW + 2, NOW + 4):
        await revocation.close_revoked(now)
    assert store.asked == [CLOCKS_APART_SECONDS, CLOCKS_APART_SECONDS - 2]


async def test_none_is_missed_while_the_database_is_away() -> None:
    store = AskedStore()
    revocation = Revocation(cast(Store, store), [Hub(1.0)], NOW)
    store.is_away = True
    with pytest.raises(Unavailable):
        await revocation.close_revoked(NOW + 100)
    store.is_away = False
    await revocation.close_revoked(NOW + 200)
    assert store.asked == [CLOCKS_APART_SECONDS] * 2


@pytest.mark.parametrize("later", [ALL_SECONDS + 1, -1000.0])
async def test_now_and_then_all_are_asked_for_whatever_the_clocks_say(later: float) -> None:
    store = AskedStore()
    revocation = Revocation(cast(Store, store), [Hub(1.0)], NOW)
    await revocation.close_revoked(NOW + later)
    await revocation.close_revoked(NOW + later + 2)
    assert store.asked == [NOW, CLOCKS_APART_SECONDS - later]


async def test_what_an_api_is_asked_for_ends_with_its_token_and_nothing_else_does(
    relay: RunningRelay, head: ScriptedPeer, http: httpx.AsyncClient, token: str
) -> None:
    async with client_of(relay, await relay.token("client")) as other:
        asking = asyncio.create_task(http.post(CHAT, json=QUESTION))
        asked = await head.hear(Generate)
        others = asyncio.create_task(other.post(CHAT, json=QUESTION))
        await relay.services.store.revoke_token(parse_credential(token).id)
        await jobs.close_revoked(relay.services)
        assert_error(await asking, 401, "unauthorized", "authentication_error")
        assert await head.hear(Cancel) == Cancel(request=asked.request)
        await answered(head, others, "a")
        assert others.result().status_code == 200


async def test_the_connections_of_those_found_are_ended() -> None:
    hub = Hub(1.0)
    peers = [await connected(hub, letter * 16, token_id=letter) for letter in "ab"]
    await Revocation(cast(Store, AskedStore({"a"})), [hub], NOW).close_revoked(NOW + 2)
    assert [reason(peer) for peer in peers] == ["unauthorized", None]
