"""relay/tokens_api.py: tokens make tokens, with limits, which end with the one that made them."""

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from relay import allowances, handing_out
from relay.handing_out import TIMES_OF_ADDRESS
from schema.credentials import parse_credential
from schema.errors import TooManyRequests, Unavailable
from schema.messages import Cancel, Generate
from tests.relay.core.peers import MODEL, ScriptedPeer
from tests.relay.core.rest_client import CHAT, QUESTION, answered, assert_error, client_of
from tests.relay.core.support import RunningRelay, database_away, running_relay

TOKENS = "/api/tokens"
KEY = {"kind": "client", "name": "notebook"}


def id_of(token: str) -> str:
    return parse_credential(token).id


async def made(http: httpx.AsyncClient, **asked: Any) -> dict[str, Any]:
    """A token that was made, as it is answered."""
    response = await http.post(TOKENS, json=KEY | asked)
    assert response.status_code == 201, response.text
    return response.json()


async def refused(http: httpx.AsyncClient, status: int, code: str, **asked: Any) -> str:
    """Why a token was not made."""
    response = await http.post(TOKENS, json=KEY | asked)
    assert (response.status_code, response.json()["error"]["code"]) == (status, code)
    return response.json()["error"]["message"]


@pytest.fixture
async def admin(relay: RunningRelay) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(relay, await relay.token("admin")) as client:
        yield client


@pytest.fixture
async def stranger(relay: RunningRelay) -> AsyncIterator[httpx.AsyncClient]:
    """Another client's."""
    async with client_of(relay, await relay.token("client")) as client:
        yield client


# ---- making ----


async def test_a_key_works_is_told_once_and_belongs_to_the_token_that_made_it(
    relay: RunningRelay, http: httpx.AsyncClient, token: str
) -> None:
    key = await made(http)
    credential = parse_credential(key.pop("token"))
    assert (key["id"], key["parent"], key["name"]) == (credential.id, id_of(token), "notebook")
    assert credential.relay_url == relay.services.settings.public_url
    async with client_of(relay, str(credential)) as with_key:
        assert (await with_key.get("/v1/models")).status_code == 200
    listed = await http.get(TOKENS)
    assert [one["id"] for one in listed.json()["tokens"]] == [credential.id]
    assert credential.secret not in listed.text
    assert listed.headers["Cache-Control"] == "no-store"


async def test_a_key_is_told_though_the_database_goes_away_just_then(
    relay: RunningRelay, http: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away(*_: object) -> None:
        raise Unavailable("the database is not available")

    end = time.time() + 3600
    with monkeypatch.context() as outage:
        outage.setattr(relay.services.store, "token", away)
        key = await made(http, name=" notebook ", expires_at=end, replies_at_once=3, tokens_a_day=10)
    secret = key.pop("token")
    kept = (await http.get(f"{TOKENS}/{key['id']}")).json()
    assert kept == key, "what was told is what is kept"
    assert (key["name"], key["expires_at"]) == ("notebook", end)
    async with client_of(relay, secret) as with_key:
        assert (await with_key.get("/v1/models")).status_code == 200


async def test_a_key_makes_none_and_a_client_makes_no_admins(
    relay: RunningRelay, http: httpx.AsyncClient
) -> None:
    key = await made(http)
    async with client_of(relay, key["token"]) as with_key:
        assert "sign in with that one" in await refused(with_key, 403, "forbidden")
    assert "only an admin's" in await refused(http, 403, "forbidden", kind="admin")
    assert "only operators" in await refused(http, 403, "forbidden", kind="volunteer")


async def test_an_admin_makes_all_kinds_and_they_are_nobodys(
    relay: RunningRelay, admin: httpx.AsyncClient
) -> None:
    for kind in ("client", "volunteer", "admin"):
        token = await made(admin, kind=kind)
        assert (token["kind"], token["parent"]) == (kind, None)
        assert parse_credential(token["token"]).kind == kind


@pytest.mark.parametrize(
    ("asked", "param"),
    [
        ({"name": ""}, "name"),
        ({"name": "a\0b"}, "name"),
        ({"name": "x" * 81}, "name"),
        ({"replies_at_once": 0}, "replies_at_once"),
        ({"tokens_a_day": 2**53 + 1}, "tokens_a_day"),
        ({"tokens_a_day": 1.5}, "tokens_a_day"),
        ({"expires_at": 1.0}, "expires_at"),
        ({"expires_at": 1e300}, "expires_at"),
        ({"kind": "king"}, "kind"),
        ({"colour": "red"}, "colour"),
    ],
)
async def test_what_is_no_token_is_refused(
    http: httpx.AsyncClient, asked: dict[str, Any], param: str
) -> None:
    assert param in await refused(http, 400, "invalid_request", **asked)


async def test_limits_of_replies_are_for_clients_tokens(admin: httpx.AsyncClient) -> None:
    assert "clients' tokens" in await refused(admin, 400, "invalid_request", kind="volunteer", tokens_a_day=1)


async def test_a_token_has_so_many_keys_and_no_more(
    http: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(handing_out, "MOST_KEYS", 2)
    keys = [await made(http) for _ in range(2)]
    assert "2 clients' tokens" in await refused(http, 409, "quota_exceeded")
    await http.delete(f"{TOKENS}/{keys[0]['id']}")
    await made(http)


# ---- seeing, changing, revoking ----


async def test_tokens_come_page_by_page_the_newest_first(
    http: httpx.AsyncClient, admin: httpx.AsyncClient, token: str
) -> None:
    ids = [(await made(http, name=f"{number}"))["id"] for number in range(5)][::-1]
    first = (await http.get(TOKENS, params={"limit": 2})).json()
    second = (await http.get(TOKENS, params={"limit": 3, "after": first["next"]})).json()
    assert [one["id"] for one in first["tokens"] + second["tokens"]] == ids
    assert second["next"] is None
    every = (await admin.get(TOKENS, params={"kind": "client"})).json()["tokens"]
    assert [one["id"] for one in every] == [*ids, id_of(token)]
    for after in ("0" * 12, "nonsense"):
        assert (await http.get(TOKENS, params={"after": after})).status_code in (400, 404)


async def test_somebody_elses_token_is_not_there(
    http: httpx.AsyncClient, stranger: httpx.AsyncClient, admin: httpx.AsyncClient
) -> None:
    key = (await made(http))["id"]
    for id_ in (key, "nonsense", "%00", "\N{SNOWMAN}"):
        path = f"{TOKENS}/{id_}"
        for request in (
            stranger.get(path),
            stranger.get(f"{path}/usage"),
            stranger.patch(path, json={"name": "mine"}),
            stranger.delete(path),
        ):
            assert_error(await request, 404, "not_found", "invalid_request_error")
    assert (await stranger.get(TOKENS)).json() == {"tokens": [], "next": None}
    assert (await admin.get(f"{TOKENS}/{key}")).json()["id"] == key


async def test_name_and_limits_can_be_changed_and_taken_away(http: httpx.AsyncClient) -> None:
    path = f"{TOKENS}/{(await made(http, tokens_a_day=5, replies_at_once=2))['id']}"
    changed = (await http.patch(path, json={"name": "new", "tokens_a_day": None})).json()
    assert (changed["name"], changed["tokens_a_day"], changed["replies_at_once"]) == ("new", None, 2)
    assert (await http.patch(path, json={})).json() == changed == (await http.get(path)).json()
    for bad in ({"name": "\0"}, {"expires_at": 5}, {"tokens_a_day": 0}, {"parent": None}):
        assert_error(await http.patch(path, json=bad), 400, "invalid_request", "invalid_request_error")


async def test_a_token_is_revoked_with_all_that_it_has_made(
    relay: RunningRelay, http: httpx.AsyncClient, admin: httpx.AsyncClient, token: str
) -> None:
    key = await made(http)
    async with client_of(relay, key["token"]) as with_key:
        assert (await with_key.get("/v1/models")).status_code == 200
        assert (await admin.delete(f"{TOKENS}/{id_of(token)}")).json()["revoked_at"] is not None
        assert (
            "revoked"
            in assert_error(await with_key.get("/v1/models"), 401, "unauthorized", "authentication_error")[
                "message"
            ]
        )
    assert (await http.get(TOKENS)).status_code == 401
    ended = await relay.services.store.ended_since(0.0, time.time())
    assert ended == {key["id"], id_of(token)}
    path = f"{TOKENS}/{key['id']}"
    assert_error(await admin.patch(path, json={"name": "x"}), 404, "not_found", "invalid_request_error")
    shown = (await admin.get(TOKENS, params={"kind": "client"})).json()["tokens"]
    assert shown == []
    assert len((await admin.get(TOKENS, params={"kind": "client", "show": "all"})).json()["tokens"]) == 2


async def test_a_token_that_has_expired_is_refused_and_its_connections_end(
    relay: RunningRelay, http: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    soon = time.time() + 1000
    key = await made(http, expires_at=soon)
    driver = await relay.dial(key["token"])
    monkeypatch.setattr("relay.queries.tokens.time.time", lambda: soon + 1)
    async with client_of(relay, key["token"]) as with_key:
        message = assert_error(await with_key.get("/v1/models"), 401, "unauthorized", "authentication_error")[
            "message"
        ]
    assert "expired" in message
    await relay.services.revocation.close_revoked(soon + 1)
    assert (await driver.goodbye())[0] == "unauthorized"


async def test_a_key_ends_with_the_token_that_made_it(
    relay: RunningRelay, http: httpx.AsyncClient, admin: httpx.AsyncClient, token: str
) -> None:
    soon = round(time.time()) + 1000
    before = f"{TOKENS}/{(await made(http))['id']}"
    await admin.patch(f"{TOKENS}/{id_of(token)}", json={"expires_at": soon})
    assert (await http.get(before)).json()["expires_at"] == soon
    assert (await made(http))["expires_at"] == soon
    assert (await made(http, expires_at=soon - 1))["expires_at"] == soon - 1
    assert "outlive" in await refused(http, 400, "invalid_request", expires_at=soon + 1)
    assert (await http.patch(before, json={"expires_at": None})).json()["expires_at"] == soon


# ---- what it used ----


async def test_what_a_key_used_is_seen_by_whoever_made_it(
    relay: RunningRelay, head: ScriptedPeer, http: httpx.AsyncClient, admin: httpx.AsyncClient
) -> None:
    key = await made(http)
    async with client_of(relay, key["token"]) as with_key:
        await answered(head, with_key.post(CHAT, json=QUESTION), "a", "b")
        own = (await with_key.get(f"{TOKENS}/me/usage")).json()
    assert own["replies"] == 1
    for asking in (http, admin):
        assert (await asking.get(f"{TOKENS}/{key['id']}/usage")).json() == own
    assert_error(
        await http.get(f"{TOKENS}/{key['id']}/usage?days=0"), 400, "invalid_request", "invalid_request_error"
    )


async def test_a_key_has_its_replies_at_once_and_those_of_its_maker(
    relay: RunningRelay, head: ScriptedPeer, http: httpx.AsyncClient, admin: httpx.AsyncClient, token: str
) -> None:
    await admin.patch(f"{TOKENS}/{id_of(token)}", json={"replies_at_once": 2})
    narrow = await made(http, replies_at_once=1)
    wide = await made(http)
    async with client_of(relay, narrow["token"]) as first, client_of(relay, wide["token"]) as second:
        waiting = [asyncio.create_task(first.post(CHAT, json=QUESTION))]
        await head.hear(Generate)
        error = await first.post(CHAT, json=QUESTION)
        assert (
            "it may have 1 at once"
            in assert_error(error, 429, "rate_limit_exceeded", "rate_limit_error")["message"]
        )
        assert int(error.headers["Retry-After"]) > 0
        waiting.append(asyncio.create_task(second.post(CHAT, json=QUESTION)))
        await head.hear(Generate)
        for of_the_same in (http, second):
            error = await of_the_same.post(CHAT, json=QUESTION)
            assert "it may have 2 at once" in error.json()["error"]["message"]
        for task in waiting:
            task.cancel()
        for _ in waiting:
            await head.hear(Cancel)


async def test_a_key_that_has_used_its_tokens_comes_back_tomorrow(
    relay: RunningRelay, head: ScriptedPeer, http: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(allowances, "KEEP_LIMITED_SECONDS", 0.0)
    key = await made(http, tokens_a_day=1)
    async with client_of(relay, key["token"]) as with_key:
        await answered(head, with_key.post(CHAT, json=QUESTION), "a")
        for path, body in ((CHAT, QUESTION), ("/v1/embeddings", {"model": MODEL, "input": "x"})):
            error = await with_key.post(path, json=body)
            assert (
                "tomorrow" in assert_error(error, 429, "rate_limit_exceeded", "rate_limit_error")["message"]
            )
            assert 0 < int(error.headers["Retry-After"]) <= 86_400
        await relay.services.usage.write(relay.services.store)
        assert (await with_key.post(CHAT, json=QUESTION)).status_code == 429
    await answered(head, http.post(CHAT, json=QUESTION), "a")


async def test_a_line_of_a_batch_uses_the_days_tokens_too(relay: RunningRelay) -> None:
    admission = relay.services.admission.behind
    spent = allowances.Allowance(replies=1, tokens_left=0, seconds=5.0)
    with pytest.raises(TooManyRequests) as refusal:
        admission.enter(MODEL, "key", 1, spent)
    assert refusal.value.retry_after == 5.0


async def test_a_token_with_limits_drives_nothing_by_itself(
    relay: RunningRelay, http: httpx.AsyncClient, admin: httpx.AsyncClient
) -> None:
    for token in ((await made(http, tokens_a_day=5))["token"], (await made(admin, kind="admin"))["token"]):
        with pytest.raises(Exception, match="403"):
            await relay.socket(token)
    await relay.dial((await made(http))["token"])


# ---- volunteers' tokens for everybody ----


async def test_where_the_relay_is_open_anybody_joins_but_not_too_often(open_relay: RunningRelay) -> None:
    async with client_of(open_relay, None) as anybody:
        assert (await anybody.get("/api/session")).json() == {"access": "open", "join": True}
        token = (await made(anybody, kind="volunteer"))["token"]
        await open_relay.dial(token)
        assert "sign in first" in await refused(anybody, 403, "forbidden")
        for _ in range(TIMES_OF_ADDRESS - 1):
            await made(anybody, kind="volunteer")
        response = await anybody.post(TOKENS, json=KEY | {"kind": "volunteer"})
        assert_error(response, 429, "rate_limit_exceeded", "rate_limit_error")
        assert int(response.headers["Retry-After"]) > 0
        assert (await anybody.get(TOKENS)).status_code == 401
        elsewhere = {"Origin": "https://evil.example"}
        response = await anybody.post(TOKENS, json=KEY | {"kind": "volunteer"}, headers=elsewhere)
        assert_error(response, 403, "forbidden", "permission_error")


async def test_whoever_asks_again_after_an_outage_has_not_used_up_his_hour(open_relay: RunningRelay) -> None:
    asked = {"kind": "volunteer", "name": "my machine"}
    async with httpx.AsyncClient(base_url=open_relay.url) as anybody:
        async with database_away(open_relay):
            for _ in range(TIMES_OF_ADDRESS + 1):
                refusal = await anybody.post(TOKENS, json=asked)
                assert (refusal.status_code, "Retry-After" in refusal.headers) == (503, True)
        for _ in range(TIMES_OF_ADDRESS):
            assert (await anybody.post(TOKENS, json=asked)).status_code == 201
        assert (await anybody.post(TOKENS, json=asked)).status_code == 429


async def test_a_query_of_very_many_fields_is_refused_at_once(http: httpx.AsyncClient) -> None:
    answer = await http.get(TOKENS, params={f"x{number}": "" for number in range(1000)})
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_request")
    assert "1000 fields" in answer.json()["error"]["message"]


@pytest.mark.parametrize(("open_chat", "open_join"), [(True, False), (False, None)])
async def test_whether_anybody_joins_is_up_to_the_operator(
    sqlite_file: Path, open_chat: bool, open_join: bool | None
) -> None:
    running = running_relay(sqlite_file, open_chat=open_chat, open_join=open_join)
    async with running as relay, client_of(relay, None) as anybody:
        assert (await anybody.post(TOKENS, json=KEY | {"kind": "volunteer"})).status_code in (401, 403)


async def test_a_client_joins_with_tokens_of_its_own_where_it_may(sqlite_file: Path) -> None:
    async with running_relay(sqlite_file, open_join=True) as relay:
        token = await relay.token("client")
        async with client_of(relay, token) as http:
            volunteer = await made(http, kind="volunteer")
        assert volunteer["parent"] == id_of(token)
        peer = await relay.dial(volunteer["token"])
        await relay.services.store.revoke_token(id_of(token))
        await relay.services.revocation.close_revoked(time.time())
        assert (await peer.goodbye())[0] == "unauthorized"


# ---- the page ----


async def test_a_page_that_is_signed_in_may_all_that_its_token_may(relay: RunningRelay, token: str) -> None:
    async with client_of(relay, None) as page:
        assert (await page.post(TOKENS, json=KEY)).status_code == 401
        assert (await page.post("/api/session", json={"token": token})).status_code == 204
        assert_error(await page.post(TOKENS, json=KEY), 403, "forbidden", "permission_error")  # no page's
        page.headers["Origin"] = relay.url
        key = (await made(page))["id"]
        assert (await page.get(f"{TOKENS}/me")).json()["id"] == id_of(token)
        assert (await page.get(f"{TOKENS}/me/usage")).json()["replies"] == 0
        assert (await page.get("/api/sessions")).json() == {"replies": []}
        elsewhere = {"Origin": "https://evil.example"}
        for request in (
            page.post(TOKENS, json=KEY, headers=elsewhere),
            page.patch(f"{TOKENS}/{key}", json={"name": "x"}, headers=elsewhere),
            page.delete(f"{TOKENS}/{key}", headers=elsewhere),
        ):
            assert_error(await request, 403, "forbidden", "permission_error")
        assert (await page.delete(f"{TOKENS}/{key}")).status_code == 200


async def test_an_admin_signs_in_at_the_page_and_chats(relay: RunningRelay) -> None:
    async with client_of(relay, None) as page:
        await page.post("/api/session", json={"token": await relay.token("admin")})
        assert (await page.get("/api/session")).json() == {
            "access": "signed_in",
            "kind": "admin",
            "join": True,
        }
        assert (await page.get("/api/swarm")).status_code == 200


@pytest.mark.parametrize("path", [TOKENS, f"{TOKENS}/me", f"{TOKENS}/me/usage", f"{TOKENS}/{'0' * 12}"])
async def test_nobody_sees_tokens_without_one(relay: RunningRelay, path: str) -> None:
    async with client_of(relay, None) as nobody:
        assert_error(await nobody.get(path), 401, "unauthorized", "authentication_error")
    async with client_of(relay, await relay.token("volunteer")) as volunteer:
        assert_error(await volunteer.get(path), 403, "forbidden", "permission_error")
