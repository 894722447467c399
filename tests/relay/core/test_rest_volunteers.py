"""relay/rest/: `GET /api/volunteers/{id}`, a volunteer's score with its evidence."""

from pathlib import Path

import httpx
import pytest

from relay.reputation import PRIOR_SCORE
from relay.standings import KEEP_SECONDS
from tests.relay.core.peers import ScriptedPeer
from tests.relay.core.rest_client import assert_error, client_of
from tests.relay.core.support import RunningRelay, database_away, running_relay


async def test_a_volunteer_is_shown_with_what_was_seen_of_it(
    relay: RunningRelay, http: httpx.AsyncClient
) -> None:
    volunteer = await relay.serving(name="Ada")
    relay.services.outcomes.note(volunteer.id, "late", 7.5)
    response = await http.get(f"/api/volunteers/{volunteer.id}")
    assert response.status_code == 200
    body = response.json()
    assert (body["id"], body["volunteer"]["name"], body["volunteer"]["state"]) == (
        volunteer.id,
        "Ada",
        "serving",
    )
    passed, late = body["kinds"]
    assert (passed["kind"], passed["count"], passed["bad"]) == ("probe_passed", 1, 0)
    assert (late["kind"], late["count"], late["worst"], late["good"]) == ("late", 1, 7.5, 0)
    assert {(one["kind"], one["count"]) for one in body["hours"]} == {("probe_passed", 1), ("late", 1)}
    assert body["good"] == pytest.approx(3 + passed["good"], abs=1e-3)
    assert body["bad"] == pytest.approx(1 + late["bad"], abs=1e-3)
    assert body["score"] == pytest.approx(body["good"] / (body["good"] + body["bad"]), abs=2e-3)
    assert body["score"] < body["prior"] == PRIOR_SCORE


async def test_the_swarm_shows_scores(relay: RunningRelay, http: httpx.AsyncClient) -> None:
    await relay.serving()
    (volunteer,) = (await http.get("/api/swarm")).json()["volunteers"]
    assert volunteer["score"] == PRIOR_SCORE


async def test_one_that_has_left_is_shown_as_long_as_evidence_is_kept(
    relay: RunningRelay, http: httpx.AsyncClient
) -> None:
    volunteer = await relay.serving()
    await volunteer.close()
    body = (await http.get(f"/api/volunteers/{volunteer.id}")).json()
    assert body["score"] > PRIOR_SCORE
    now = body["hours"][0]["hour"]
    await relay.services.standings.write(now)
    await relay.services.store.remove_evidence(before=now + KEEP_SECONDS)
    response = await http.get(f"/api/volunteers/{volunteer.id}")
    assert_error(response, 404, "not_found", "invalid_request_error")


@pytest.mark.parametrize("peer", ["0" * 16, "nobody", "0" * 15 + "\N{LATIN SMALL LETTER E WITH ACUTE}"])
async def test_one_that_nobody_has_seen_is_not_found(http: httpx.AsyncClient, peer: str) -> None:
    error = assert_error(await http.get(f"/api/volunteers/{peer}"), 404, "not_found", "invalid_request_error")
    assert peer in error["message"]
    assert "GET /api/swarm" in error["message"]


async def test_only_those_who_may_see_the_swarm_see_its_volunteers(
    relay: RunningRelay, head: ScriptedPeer
) -> None:
    async with client_of(relay, None) as stranger:
        response = await stranger.get(f"/api/volunteers/{head.id}")
    assert_error(response, 401, "unauthorized", "authentication_error")


async def test_everybody_does_where_the_relay_is_open(sqlite_file: Path) -> None:
    async with running_relay(sqlite_file, open_chat=True) as relay, client_of(relay, None) as stranger:
        volunteer = await relay.serving()
        assert (await stranger.get(f"/api/volunteers/{volunteer.id}")).status_code == 200


async def test_without_the_database_it_cannot_be_told(relay: RunningRelay, http: httpx.AsyncClient) -> None:
    volunteer = await relay.serving()
    async with database_away(relay):
        response = await http.get(f"/api/volunteers/{volunteer.id}")
    assert_error(response, 503, "unavailable", "server_error")
