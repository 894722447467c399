"""relay/sockets.py: who is let in, and whose connection is closed again."""

import json
import logging
from typing import Any

import pytest
from websockets.exceptions import InvalidStatus

from relay import jobs
from schema.credentials import parse_credential
from schema.errors import CorollaError
from schema.messages import Delta, Refused, RouteGrant, RouteRequest
from tests.relay.core.peers import MODEL, ScriptedPeer, offer
from tests.relay.core.support import RunningRelay, database_away
from tests.relay.core.waiting import eventually

# ---- tokens ----


async def refused_upgrade(relay: RunningRelay, token: str) -> InvalidStatus:
    with pytest.raises(InvalidStatus) as refusal:
        await relay.socket(token)
    return refusal.value


async def test_a_refused_upgrade_is_no_mistake(relay: RunningRelay, caplog: pytest.LogCaptureFixture) -> None:
    await refused_upgrade(relay, "nobody's")
    await eventually(lambda: not relay.server.server_state.connections)
    assert [record.message for record in caplog.records if record.levelno >= logging.WARNING] == []


async def assert_unauthorized(relay: RunningRelay, token: str) -> None:
    response = (await refused_upgrade(relay, token)).response
    assert response.status_code == 401
    assert response.headers["WWW-Authenticate"] == "Bearer"
    error = json.loads(response.body)["error"]
    assert (error["code"], error["type"]) == ("unauthorized", "authentication_error")
    assert await relay.metric("refusals_total", reason="unauthorized") == 1
    assert len(relay.services.hub) == 0


@pytest.mark.parametrize(
    "token", ["x", "corolla-volunteer.a.b", "corolla-admin.a.b.", "corolla-client.a.b.%%%"]
)
async def test_what_is_no_token_is_refused_before_the_upgrade(relay: RunningRelay, token: str) -> None:
    await assert_unauthorized(relay, token)


async def test_an_unknown_token_is_refused_before_the_upgrade(relay: RunningRelay) -> None:
    await assert_unauthorized(relay, f"corolla-volunteer.{'0' * 12}.secret.")


async def test_a_token_with_another_secret_is_refused(relay: RunningRelay) -> None:
    token = parse_credential(await relay.token())
    await assert_unauthorized(relay, str(token).replace(token.secret, "guess"))


async def test_a_token_of_another_kind_than_it_was_made_for_is_refused(relay: RunningRelay) -> None:
    token = await relay.token("client")
    await assert_unauthorized(relay, token.replace("corolla-client", "corolla-volunteer"))


async def test_a_revoked_token_is_refused(relay: RunningRelay) -> None:
    token = await relay.token()
    await relay.services.store.revoke_token(parse_credential(token).id)
    await assert_unauthorized(relay, token)


async def test_a_database_that_is_away_turns_newcomers_away_with_when_to_come_back(
    relay: RunningRelay,
) -> None:
    token = await relay.token()
    async with database_away(relay):
        response = (await refused_upgrade(relay, token)).response
    assert response.status_code == 503
    assert int(response.headers["Retry-After"]) > 0
    assert json.loads(response.body)["error"]["code"] == "unavailable"


@pytest.mark.parametrize("kind", ["volunteer", "client"])
async def test_both_kinds_of_token_may_connect(relay: RunningRelay, kind: Any) -> None:
    peer = await relay.dial(kind=kind)
    assert peer.welcome.models == [MODEL]
    assert peer.welcome.heartbeat_seconds == relay.services.settings.heartbeat_seconds
    assert await relay.metric("connections", role=kind) == 1


async def test_a_clients_token_cannot_serve_blocks(relay: RunningRelay) -> None:
    client = await relay.dial(kind="client")
    await client.say(offer())
    assert await client.goodbye() == ("forbidden", 4403)
    assert relay.refusals("forbidden") == 1


async def test_a_clients_token_cannot_write_replies(relay: RunningRelay) -> None:
    client = await relay.dial(kind="client")
    await client.say(Delta(request="any", text="made up", tokens=1))
    assert await client.goodbye() == ("forbidden", 4403)


async def test_a_driver_whose_token_is_given_limits_gets_no_more_routes(
    relay: RunningRelay, head: ScriptedPeer
) -> None:
    driver = await relay.dial(kind="client")
    asked = RouteRequest(request="r", model=MODEL, session="0" * 32)
    await driver.say(asked)
    await driver.hear(RouteGrant)
    store = relay.services.store
    await store.change_token(parse_credential(driver.token).id, {"tokens_a_day": 1_000})
    relay.services.allowances.forget()
    await driver.say(asked)
    assert (await driver.hear(Refused)).error.code == "forbidden"
    assert relay.refusals("forbidden") == 1


# ---- a token that is revoked ----


async def test_revoking_a_token_closes_its_connections_and_no_others(relay: RunningRelay) -> None:
    token = await relay.token()
    first, second = await relay.dial(token), await relay.dial(token)
    other = await relay.dial()
    await relay.services.store.revoke_token(parse_credential(token).id)
    await jobs.close_revoked(relay.services)
    assert await first.goodbye() == ("unauthorized", 4401)
    assert await second.goodbye() == ("unauthorized", 4401)
    await other.is_served()
    assert relay.refusals("unauthorized") == 2


async def test_a_database_that_is_away_closes_no_connections(relay: RunningRelay) -> None:
    peer = await relay.dial()
    async with database_away(relay):
        with pytest.raises(CorollaError):
            await jobs.close_revoked(relay.services)
    await peer.is_served()
