"""relay/own_api.py and relay/usage.py: a token sees itself, its replies and what they took, nobody else's."""

import asyncio
import time
from datetime import UTC, datetime

import httpx
import pytest

from relay.records import UsageRecord
from relay.usage import ANONYMOUS, DAY, MAX_KEPT, UsageAccount, day_of
from schema.credentials import parse_credential
from schema.errors import Unavailable
from schema.generation import PromptDetails, Usage
from schema.messages import Cancel, Delta, Generate
from tests.relay.core.peers import MODEL, PROMPT_TOKENS, ScriptedPeer
from tests.relay.core.rest_client import CHAT, QUESTION, answered, assert_error, client_of
from tests.relay.core.support import RunningRelay, database_away
from tests.relay.core.waiting import eventually

NOW = 1_800_000_000.0


async def test_a_token_sees_itself(relay: RunningRelay, http: httpx.AsyncClient, token: str) -> None:
    body = (await http.get("/api/tokens/me")).json()
    assert (body["id"], body["kind"], body["name"]) == (parse_credential(token).id, "client", "tester")
    assert body["last_used_at"] is None
    assert token not in str(body)
    assert (await http.get("/api/tokens/me")).json()["last_used_at"] >= body["created_at"]


async def test_a_token_sees_its_own_replies_and_no_others(
    relay: RunningRelay, head: ScriptedPeer, http: httpx.AsyncClient
) -> None:
    asking = asyncio.create_task(http.post(CHAT, json=QUESTION))
    asked = await head.hear(Generate)
    await head.say(Delta(request=asked.request, text="one", tokens=1, ids=[1]))
    await eventually(
        lambda: any(reply.made.total_tokens for reply in relay.services.replies._running.values())
    )
    (reply,) = (await http.get("/api/sessions")).json()["replies"]
    assert reply.pop("seconds") >= 0
    assert reply == {"id": asked.request, "model": MODEL, "head": head.id, "tokens": 1}
    async with client_of(relay, await relay.token("client")) as other:
        assert (await other.get("/api/sessions")).json() == {"replies": []}
    asking.cancel()
    await head.hear(Cancel)
    assert (await http.get("/api/sessions")).json() == {"replies": []}


async def test_what_replies_took_is_added_up_written_or_not(
    relay: RunningRelay, head: ScriptedPeer, http: httpx.AsyncClient
) -> None:
    for _ in range(2):
        await answered(head, http.post(CHAT, json=QUESTION), "a", "b")
        await relay.services.usage.write(relay.services.store)
    await answered(head, http.post(CHAT, json=QUESTION), "a", "b")
    body = (await http.get("/api/tokens/me/usage")).json()
    (day,) = body.pop("days")
    assert day.pop("day") == datetime.now(UTC).date().isoformat()
    assert day.pop("model") == MODEL
    assert day == body
    assert (body["replies"], body["prompt_tokens"], body["cached_tokens"]) == (3, 3 * PROMPT_TOKENS, 0)
    assert body["completion_tokens"] > 0
    async with client_of(relay, await relay.token("client")) as other:
        assert (await other.get("/api/tokens/me/usage")).json()["days"] == []


async def test_what_there_was_no_room_to_count_is_shown_to_operators(relay: RunningRelay) -> None:
    relay.services.usage.dropped, relay.services.contributions.dropped = 2, 3
    assert await relay.metric("sums_dropped_total", of="usage") == 2
    assert await relay.metric("sums_dropped_total", of="contributions") == 3


async def test_a_reply_that_its_reader_left_counts_with_what_it_had(
    relay: RunningRelay, head: ScriptedPeer, http: httpx.AsyncClient
) -> None:
    asking = asyncio.create_task(http.post(CHAT, json=QUESTION))
    asked = await head.hear(Generate)
    await head.say(Delta(request=asked.request, text="one two", tokens=2, ids=[1, 2]))
    await eventually(
        lambda: any(reply.made.total_tokens for reply in relay.services.replies._running.values())
    )
    asking.cancel()
    await head.hear(Cancel)
    body = (await http.get("/api/tokens/me/usage")).json()
    assert (body["replies"], body["completion_tokens"]) == (1, 2)


async def test_only_the_days_that_are_asked_for_are_shown(
    relay: RunningRelay, http: httpx.AsyncClient, token: str
) -> None:
    today, token_id = day_of(time.time()), parse_credential(token).id
    rows = [UsageRecord(token_id, today - days * DAY, MODEL, 1, 2, 1, 3) for days in (0, 1, 29, 30)]
    await relay.services.store.add_usage(rows)
    for query, count in (({}, 3), ({"days": 1}, 1), ({"days": 2}, 2), ({"days": 366}, 4)):
        assert (await http.get("/api/tokens/me/usage", params=query)).json()["replies"] == count
    response = await http.get("/api/tokens/me/usage", params={"days": 0})
    assert_error(response, 400, "invalid_request", "invalid_request_error")


@pytest.mark.parametrize("path", ["/api/sessions", "/api/tokens/me", "/api/tokens/me/usage"])
async def test_who_shows_no_clients_token_sees_nothing(relay: RunningRelay, path: str) -> None:
    async with client_of(relay, None) as stranger, client_of(relay, await relay.token()) as volunteer:
        assert_error(await stranger.get(path), 401, "unauthorized", "authentication_error")
        assert_error(await volunteer.get(path), 403, "forbidden", "permission_error")


# ---- the account ----


def usage_of(completion: int) -> Usage:
    return Usage(
        prompt_tokens=3,
        completion_tokens=completion,
        total_tokens=3 + completion,
        prompt_tokens_details=PromptDetails(cached_tokens=2),
    )


async def test_what_cannot_be_written_waits(relay: RunningRelay) -> None:
    account, store = UsageAccount(), relay.services.store
    account.count("token", MODEL, usage_of(5), NOW)
    async with database_away(relay):
        with pytest.raises(Unavailable):
            await account.write(store)
    account.count("token", MODEL, usage_of(6), NOW + 1)
    account.count("token", MODEL, usage_of(7), NOW + DAY)
    account.count("other", MODEL, usage_of(8), NOW)
    expected = [
        UsageRecord("token", day_of(NOW + DAY), MODEL, 1, 3, 2, 7),
        UsageRecord("token", day_of(NOW), MODEL, 2, 6, 4, 11),
    ]
    assert await account.of(store, "token", 0.0) == expected
    await account.write(store)
    await account.write(store)
    assert await account.of(store, "token", 0.0) == expected
    assert await UsageAccount().of(store, "token", 0.0) == expected


async def test_a_days_tokens_are_those_that_are_written_and_those_that_wait(relay: RunningRelay) -> None:
    account, store = UsageAccount(), relay.services.store
    asked, today = {"token", "key", "idle"}, day_of(NOW)
    account.count("token", MODEL, usage_of(5), NOW)
    account.count("other", MODEL, usage_of(5), NOW)
    await account.write(store)
    account.count("token", "another", usage_of(6), NOW)
    account.count("token", MODEL, usage_of(7), NOW + DAY)
    account.count("key", MODEL, usage_of(8), NOW)
    assert await account.tokens_of(store, asked, today) == {"token": 3 + 5 + 3 + 6, "key": 3 + 8}
    assert await account.tokens_of(store, asked, today + DAY) == {"token": 3 + 7}


async def test_who_has_no_token_is_not_counted_and_room_has_an_end(
    relay: RunningRelay, monkeypatch: pytest.MonkeyPatch
) -> None:
    account = UsageAccount()
    for asker in ("", f"{ANONYMOUS}someone"):
        account.count(asker, MODEL, usage_of(1), NOW)
    assert await account.of(relay.services.store, "", 0.0) == []
    monkeypatch.setattr("relay.usage.MAX_KEPT", 1)
    for asker in ("first", "second", "first"):
        account.count(asker, MODEL, usage_of(1), NOW)
    assert account.dropped == 1
    assert MAX_KEPT > 1
