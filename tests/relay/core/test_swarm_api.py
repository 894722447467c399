"""relay/swarm_api.py: the swarm in detail, not sent again while it is the same."""

import httpx
import pytest

from schema.messages import Assignment
from tests.relay.core.peers import MODEL, ScriptedPeer, offer
from tests.relay.core.rest_client import assert_error, client_of
from tests.relay.core.support import RunningRelay

PATHS = ["/api/swarm", "/api/models", f"/api/models/{MODEL}", "/api/volunteers"]


async def test_a_model_is_shown_with_how_many_hold_each_block_and_what_is_missing(
    relay: RunningRelay, http: httpx.AsyncClient
) -> None:
    await relay.serving(0, 4, head=True)
    await relay.serving(2, 6)
    loading = await relay.dial()
    await loading.say(offer(6, 8))
    await loading.hear(Assignment)
    body = (await http.get(f"/api/models/{MODEL}")).json()
    assert body["coverage"] == [
        {"start": 0, "end": 2, "holders": 1},
        {"start": 2, "end": 4, "holders": 2},
        {"start": 4, "end": 6, "holders": 1},
        {"start": 6, "end": 8, "holders": 0},
    ]
    assert [(one["start"], one["end"], one["head"], one["serving"]) for one in body["spans"]] == [
        (0, 4, True, 1),
        (2, 6, False, 1),
        (6, 8, False, 0),
    ]
    assert (body["complete"], body["missing"], body["heads"]) == (False, [{"start": 6, "end": 8}], 1)
    assert "blocks 6\N{EN DASH}7 have no volunteer; they need about" in body["reason"]
    assert body["missing_bytes"] == 2 * body["block_bytes"]
    assert (await http.get("/api/models")).json() == {"models": [body]}


async def test_a_model_that_nobody_has_joined_for_is_shown_too(http: httpx.AsyncClient) -> None:
    body = (await http.get(f"/api/models/{MODEL}")).json()
    assert (body["coverage"], body["spans"], body["blocks"]) == ([], [], None)
    assert body["reason"] == "no volunteer has joined for it yet"
    assert "block_bytes" not in body


async def test_a_model_may_have_slashes_in_its_name_and_another_is_not_found(http: httpx.AsyncClient) -> None:
    response = await http.get("/api/models/some/other")
    assert "'some/other'" in assert_error(response, 404, "not_found", "invalid_request_error")["message"]


# ---- volunteers ----


async def test_volunteers_come_page_by_page_whoever_leaves_meanwhile(
    relay: RunningRelay, http: httpx.AsyncClient
) -> None:
    there = sorted([await relay.serving() for _ in range(5)], key=lambda one: one.id)
    ids = [one.id for one in there]
    first = (await http.get("/api/volunteers", params={"limit": 2})).json()
    assert [one["id"] for one in first["volunteers"]] == ids[:2]
    seen = relay.services.swarm.version
    await there[0].close()
    await relay.services.swarm.wait_for_change(seen)
    second = (await http.get("/api/volunteers", params={"limit": 2, "after": first["next"]})).json()
    assert [one["id"] for one in second["volunteers"]] == ids[2:4]
    third = (await http.get("/api/volunteers", params={"limit": 2, "after": second["next"]})).json()
    assert ([one["id"] for one in third["volunteers"]], third["next"]) == (ids[4:], None)


async def test_volunteers_are_chosen_by_model_and_state(relay: RunningRelay, http: httpx.AsyncClient) -> None:
    serving = await relay.serving()
    loading = await relay.dial()
    await loading.say(offer(0, 4))
    await loading.hear(Assignment)
    for query, ids in (
        ({"state": "serving"}, [serving.id]),
        ({"state": "loading", "model": MODEL}, [loading.id]),
        ({"model": "other"}, []),
    ):
        found = (await http.get("/api/volunteers", params=query)).json()
        assert ([one["id"] for one in found["volunteers"]], found["next"]) == (ids, None)


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("limit=0", "limit"),
        ("limit=1001", "limit"),
        ("limit=ten", "limit"),
        ("state=asleep", "state"),
        ("limit=1&limit=2", "'limit' twice"),
        ("colour=red", "colour"),
    ],
)
async def test_a_query_that_is_not_understood_is_refused_by_name(
    http: httpx.AsyncClient, query: str, words: str
) -> None:
    response = await http.get(f"/api/volunteers?{query}")
    assert words in assert_error(response, 400, "invalid_request", "invalid_request_error")["message"]


# ---- the way ----


async def test_the_way_of_a_session_is_shown_with_what_a_step_takes_and_nothing_is_granted(
    relay: RunningRelay, http: httpx.AsyncClient
) -> None:
    head = await relay.serving(0, 4, head=True, name="Ada")
    last = await relay.serving(4, 8, name="Grace")
    body = (await http.get("/api/route", params={"model": MODEL})).json()
    assert (body["head"], body["head_name"]) == (head.id, "Ada")
    assert [(hop["volunteer"], hop["name"], hop["start"], hop["end"]) for hop in body["hops"]] == [
        (head.id, "Ada", 0, 4),
        (last.id, "Grace", 4, 8),
    ]
    assert body["seconds"] == pytest.approx(sum(hop["seconds"] for hop in body["hops"]))
    assert body["hops"][0]["seconds"] < body["hops"][1]["seconds"], "there is no way to the head itself"
    assert [one.granted for one in relay.services.swarm.volunteers()] == [0, 0]
    assert relay.services.metrics.sessions == 0


async def test_without_a_way_it_is_said_why_and_when_to_ask_again(
    relay: RunningRelay, http: httpx.AsyncClient
) -> None:
    await relay.serving(0, 4, head=True)
    response = await http.get("/api/route", params={"model": MODEL})
    error = assert_error(response, 503, "model_unavailable", "server_error")
    assert "blocks 4\N{EN DASH}7 have no volunteer" in error["message"]
    assert int(response.headers["Retry-After"]) > 0
    assert_error(
        await http.get("/api/route", params={"model": "?"}), 404, "not_found", "invalid_request_error"
    )
    assert_error(await http.get("/api/route"), 400, "invalid_request", "invalid_request_error")


# ---- what is not sent again, and who may see it ----


@pytest.mark.parametrize("path", PATHS)
async def test_what_has_not_changed_is_not_sent_again(
    relay: RunningRelay, http: httpx.AsyncClient, path: str
) -> None:
    first = await http.get(path)
    tag = first.headers["ETag"]
    for known in (tag, f'"other", {tag}', "*"):
        again = await http.get(path, headers={"If-None-Match": known})
        assert (again.status_code, again.content, again.headers["ETag"]) == (304, b"", tag)
    await relay.serving()
    changed = await http.get(path, headers={"If-None-Match": tag})
    assert changed.status_code == 200
    assert changed.headers["ETag"] != tag
    assert changed.content != first.content


@pytest.mark.parametrize("path", [*PATHS, f"/api/route?model={MODEL}", "/api/events"])
async def test_only_those_who_may_chat_see_it(relay: RunningRelay, head: ScriptedPeer, path: str) -> None:
    async with client_of(relay, None) as stranger:
        assert_error(await stranger.get(path), 401, "unauthorized", "authentication_error")


async def test_neither_addresses_nor_places_are_shown(relay: RunningRelay, http: httpx.AsyncClient) -> None:
    await relay.serving(head=True)
    for path in (*PATHS, f"/api/route?model={MODEL}"):
        assert "127.0.0.1" not in (await http.get(path)).text
