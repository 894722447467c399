"""relay/rest/: the models, the swarm, health and figures."""

import asyncio
from pathlib import Path

import httpx
import openai
from msgspec.structs import replace

from schema.messages import Assignment, Cancel, Generate, Probe, Serving
from tests.relay.core.peers import FACTS, MODEL, ScriptedPeer, offer
from tests.relay.core.rest_client import CHAT, QUESTION, answered, assert_error, client_of
from tests.relay.core.support import RunningRelay, database_away, running_relay

# ---- models and the swarm ----


async def test_models_are_those_that_would_answer_now(relay: RunningRelay, http: httpx.AsyncClient) -> None:
    assert (await http.get("/v1/models")).json() == {"object": "list", "data": []}
    await relay.serving(head=True)
    body = (await http.get("/v1/models")).json()
    (model,) = body["data"]
    assert model.pop("created") == relay.services.started
    assert model == {"id": MODEL, "object": "model", "owned_by": "corolla"}


async def test_one_model_is_told_of_by_its_name(sqlite_file: Path) -> None:
    name = "somebody/a-model"
    async with running_relay(sqlite_file, models=(MODEL, name)) as relay:
        async with client_of(relay, await relay.token("client")) as http:
            incomplete = await http.get(f"/v1/models/{name}")
            assert_error(incomplete, 503, "model_unavailable", "server_error")
            unknown = await http.get("/v1/models/somebody/another")
            assert_error(unknown, 404, "not_found", "invalid_request_error")
            head = await relay.dial()
            await head.say(offer(0, FACTS.blocks, head=True, facts=replace(FACTS, name=name)))
            await head.load(await head.hear(Assignment))
            await head.pass_probe(await head.hear(Probe))
            await head.hear(Serving)
            body = (await http.get(f"/v1/models/{name}")).json()
        assert body == {
            "id": name,
            "object": "model",
            "created": relay.services.started,
            "owned_by": "corolla",
        }
        async with openai.AsyncOpenAI(
            base_url=f"{relay.url}/v1", api_key=await relay.token("client")
        ) as client:
            assert (await client.models.retrieve(name)).id == name


async def test_the_swarm_is_shown_to_clients(relay: RunningRelay, http: httpx.AsyncClient) -> None:
    await relay.serving(0, 4, name="Ada")
    body = (await http.get("/api/swarm")).json()
    (model,), (volunteer,) = body["models"], body["volunteers"]
    assert (model["id"], model["complete"], model["missing"]) == (MODEL, False, [{"start": 4, "end": 8}])
    assert (volunteer["name"], volunteer["start"], volunteer["end"]) == ("Ada", 0, 4)


async def test_the_swarm_of_an_open_relay_is_shown_to_everybody(sqlite_file: Path) -> None:
    opened = running_relay(sqlite_file, open_chat=True)
    async with opened as relay, client_of(relay, None) as stranger:
        assert (await stranger.get("/api/swarm")).status_code == 200
        assert (await stranger.get("/v1/models")).status_code == 401


async def test_the_swarm_is_not_shown_to_other_sites_pages(sqlite_file: Path) -> None:
    opened = running_relay(sqlite_file, open_chat=True)
    async with opened as relay, client_of(relay, None) as stranger:
        response = await stranger.get("/api/swarm", headers={"Origin": "https://evil.example"})
    assert_error(response, 403, "forbidden", "permission_error")


# ---- health and figures ----


async def test_the_relay_is_healthy_and_ready(relay: RunningRelay) -> None:
    async with client_of(relay, None) as anybody:
        for path in ("/healthz", "/readyz"):
            assert (await anybody.get(path)).status_code == 200


async def test_without_its_database_the_relay_is_healthy_but_not_ready(relay: RunningRelay) -> None:
    async with client_of(relay, None) as anybody, database_away(relay):
        assert (await anybody.get("/healthz")).status_code == 200
        response = await anybody.get("/readyz")
    assert_error(response, 503, "unavailable", "server_error")
    assert response.headers["Retry-After"] == "5"


async def test_the_figures_are_in_prometheus_format(relay: RunningRelay) -> None:
    await relay.serving(name="Ada")
    async with client_of(relay, None) as anybody:
        response = await anybody.get("/metrics")
    assert response.headers["Content-Type"].startswith("text/plain; version=0.0.4")
    assert 'corolla_connections{role="volunteer"} 1.0' in response.text
    assert 'corolla_volunteers{state="serving"} 1.0' in response.text
    assert "Ada" not in response.text


async def test_requests_are_counted_by_route_and_status(
    relay: RunningRelay, head: ScriptedPeer, http: httpx.AsyncClient
) -> None:
    await answered(head, http.post(CHAT, json=QUESTION), "x")
    await answered(head, http.post(CHAT, json=QUESTION | {"stream": True}), "x")
    await http.post(CHAT, json=QUESTION | {"model": "other"})
    await http.get(CHAT)
    for status, count in (("200", 2), ("404", 1), ("405", 1)):
        assert await relay.metric("requests_total", route=CHAT, status=status) == count


async def test_paths_that_do_not_exist_make_no_labels(relay: RunningRelay, http: httpx.AsyncClient) -> None:
    for number in range(3):
        await http.get(f"/v1/made-up/{number}")
    assert await relay.metric("requests_total", route="unknown", status="404") == 3
    assert "made-up" not in (await http.get("/metrics")).text


async def test_a_client_that_left_is_counted_as_such(
    relay: RunningRelay, head: ScriptedPeer, http: httpx.AsyncClient
) -> None:
    posting = asyncio.create_task(http.post(CHAT, json=QUESTION))
    await head.hear(Generate)
    posting.cancel()
    await head.hear(Cancel)
    await head.is_served()
    assert await relay.metric("requests_total", route=CHAT, status="499") == 1
