"""relay/quarantine.py and relay/operators_api.py: operators keep volunteers out of routes, and no longer."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from relay.hub import Hub
from relay.quarantine import Quarantine
from relay.records import QuarantineRecord
from schema import messages
from schema.credentials import parse_credential
from schema.errors import ModelUnavailable
from schema.frames import PROTOCOL_VERSION
from schema.ids import PeerId, new_instance_key
from schema.messages import Quarantined, Restored
from tests.relay.core.peers import ScriptedPeer
from tests.relay.core.rest_client import CHAT, QUESTION, answered, assert_error, client_of
from tests.relay.core.support import RunningRelay, database_away, running_relay
from tests.relay.core.test_swarm import swarm_of, volunteer
from tests.relay.core.waiting import DEADLINE, eventually

WHY = {"reason": "its replies are nonsense"}
MENDED = {"reason": "its memory was replaced"}
NOBODY = "0" * 16


@pytest.fixture
async def admins_token(relay: RunningRelay) -> str:
    return await relay.token("admin")


@pytest.fixture
async def admin(relay: RunningRelay, admins_token: str) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(relay, admins_token) as client:
        yield client


async def hearing(relay: RunningRelay, instance: str | None = None, token: str | None = None) -> ScriptedPeer:
    """A volunteer that serves the whole model and can be told what operators decide."""
    token, instance = token or await relay.token(), instance or new_instance_key()
    peer = ScriptedPeer(await relay.socket(token), token, instance)
    await peer.say(
        messages.Hello(
            protocol=PROTOCOL_VERSION, software="tests", instance=instance, name="Ada", hears_operators=True
        )
    )
    peer.welcome = await peer.hear(messages.Welcome)
    peer.id = peer.welcome.peer  # pyright: ignore[reportAttributeAccessIssue]
    peer.name = "Ada"
    return peer


def path(peer: ScriptedPeer | str, what: str) -> str:
    return f"/api/volunteers/{peer if isinstance(peer, str) else peer.id}/{what}"


async def state(http: httpx.AsyncClient) -> list[str]:
    return [one["state"] for one in (await http.get("/api/swarm")).json()["volunteers"]]


# ---- what it does ----


async def test_a_volunteer_in_quarantine_is_in_no_routes_and_keeps_its_connection(
    relay: RunningRelay, head: ScriptedPeer, http: httpx.AsyncClient, admin: httpx.AsyncClient
) -> None:
    swarm = relay.services.swarm
    decided = (await admin.post(path(head, "quarantine"), json=WHY)).json()
    assert (decided["volunteer"], decided["reason"], decided["ended_at"]) == (head.id, WHY["reason"], None)
    assert await state(http) == ["quarantined"]
    assert swarm.holders("llama") == []
    with pytest.raises(ModelUnavailable):
        swarm.require_heads("llama")
    assert head.id in swarm.resting, "newcomers are given its blocks"
    await head.is_served()  # and heard nothing that it does not know
    ended = (await admin.post(path(head, "restore"), json=MENDED)).json()
    assert (ended["end_reason"], ended["at"]) == (MENDED["reason"], decided["at"])
    assert await state(http) == ["serving"]
    await answered(head, http.post(CHAT, json=QUESTION), "a")


async def test_what_it_has_begun_goes_on(
    relay: RunningRelay, head: ScriptedPeer, http: httpx.AsyncClient, admin: httpx.AsyncClient
) -> None:
    asking = asyncio.create_task(http.post(CHAT, json=QUESTION))
    await eventually(lambda: len(relay.services.replies) == 1)
    await admin.post(path(head, "quarantine"), json=WHY)
    await answered(head, asking, "a")
    assert asking.result().status_code == 200


async def test_its_owner_is_told_why_and_again_when_it_comes_back(
    relay: RunningRelay, admin: httpx.AsyncClient
) -> None:
    volunteer = await hearing(relay)
    await volunteer.join(0, 8, head=True)
    await admin.post(path(volunteer, "quarantine"), json=WHY)
    assert await volunteer.hear(Quarantined) == Quarantined(reason=WHY["reason"])
    await relay.services.quarantine.look()
    await volunteer.close()
    await eventually(lambda: relay.services.hub.get(volunteer.id) is None)
    back = await hearing(relay, volunteer.instance, volunteer.token)
    await relay.services.quarantine.look()
    await back.hear(Quarantined)
    await back.join(0, 8, head=True)
    assert relay.services.swarm.head_count("llama") == 0, "it is kept out all the same"
    await admin.post(path(back, "restore"), json=MENDED)
    assert await back.hear(Restored) == Restored(reason=MENDED["reason"])
    assert relay.services.swarm.head_count("llama") == 1


async def test_other_replicas_and_those_that_start_see_it(
    sqlite_file: Path, head: ScriptedPeer, relay: RunningRelay
) -> None:
    await relay.services.store.quarantine(head.id, "from the command line", None, 0.0)
    await relay.services.quarantine.look()
    assert relay.services.swarm.head_count("llama") == 0
    async with running_relay(sqlite_file) as other:
        assert other.services.swarm._quarantined == {head.id}
        await other.services.store.restore(head.id, "mended", None, 1.0)
    await relay.services.quarantine.look()
    assert relay.services.swarm.head_count("llama") == 1


async def test_while_the_database_is_away_all_stays_as_it_was(
    relay: RunningRelay, head: ScriptedPeer, http: httpx.AsyncClient, admin: httpx.AsyncClient
) -> None:
    await admin.post(path(head, "quarantine"), json=WHY)
    async with database_away(relay):
        with pytest.raises(Exception, match="not available"):
            await relay.services.quarantine.look()
    assert await state(http) == ["quarantined"]


class SlowAnswer:
    """A store whose first answer comes late."""

    def __init__(self) -> None:
        self.kept_out: list[QuarantineRecord] = []
        self.asked, self.decided, self.late = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def quarantined(self) -> list[QuarantineRecord]:
        answer, is_first = list(self.kept_out), not self.asked.is_set()
        self.asked.set()
        if is_first:
            await self.late.wait()
        return answer

    async def quarantine(self, peer: PeerId, reason: str, by: str | None, now: float) -> QuarantineRecord:
        self.kept_out.append(QuarantineRecord(peer, now, reason, by))
        self.decided.set()
        return self.kept_out[-1]


async def test_an_answer_that_comes_late_undoes_nothing_that_was_decided_since() -> None:
    store, swarm = SlowAnswer(), swarm_of(one := volunteer(1))
    quarantine = Quarantine(store, swarm, Hub(1.0))  # pyright: ignore[reportArgumentType]
    looking = asyncio.create_task(quarantine.look())
    await asyncio.wait_for(store.asked.wait(), DEADLINE)
    deciding = asyncio.create_task(quarantine.put(one.peer.id, "nonsense", None, 0.0))
    await asyncio.wait_for(store.decided.wait(), DEADLINE)
    for _ in range(10):  # it goes as far as it can
        await asyncio.sleep(0)
    store.late.set()
    await asyncio.gather(looking, deciding)
    assert one.shown_state == "quarantined"


# ---- what operators see ----


async def test_operators_see_tokens_and_quarantines(
    relay: RunningRelay, head: ScriptedPeer, admin: httpx.AsyncClient, admins_token: str
) -> None:
    await admin.post(path(head, "quarantine"), json=WHY)
    page = (await admin.get("/api/admin/volunteers")).json()
    (one,) = page["volunteers"]
    assert (one["id"], one["token"], one["token_name"]) == (
        head.id,
        parse_credential(head.token).id,
        "tester",
    )
    assert (one["volunteer"]["state"], one["memory"]) == ("quarantined", 2**30)
    assert page["quarantined"] == one["quarantines"]
    assert one["quarantines"][0]["by"] == parse_credential(admins_token).id
    assert (await admin.get("/api/admin/volunteers", params={"state": "serving"})).json()["volunteers"] == []
    await head.close()
    await eventually(lambda: relay.services.swarm.get(head.id) is None)
    assert len((await admin.get("/api/admin/volunteers")).json()["quarantined"]) == 1
    await admin.post(path(head, "restore"), json=MENDED)
    gone = (await admin.get(f"/api/admin/volunteers/{head.id}")).json()
    assert "volunteer" not in gone
    assert [one["end_reason"] for one in gone["quarantines"]] == [MENDED["reason"]]


async def test_that_it_was_kept_out_is_evidence_and_the_reason_is_the_owners(
    relay: RunningRelay, head: ScriptedPeer, http: httpx.AsyncClient, admin: httpx.AsyncClient
) -> None:
    await admin.post(path(head, "quarantine"), json=WHY)
    seen = await http.get(f"/api/volunteers/{head.id}")
    assert ("quarantined", 1) in {(one["kind"], one["count"]) for one in seen.json()["kinds"]}
    assert WHY["reason"] not in seen.text


# ---- who may, and what ----


@pytest.mark.parametrize(
    "body", [{}, {"reason": ""}, {"reason": "\0"}, {"reason": 5}, {"reason": "x" * 501}, WHY | {"for": 5}, []]
)
async def test_what_is_no_reason_is_refused(head: ScriptedPeer, admin: httpx.AsyncClient, body: Any) -> None:
    for what in ("quarantine", "restore"):
        refused = await admin.post(path(head, what), json=body)
        assert_error(refused, 400, "invalid_request", "invalid_request_error")


@pytest.mark.parametrize("peer", [NOBODY, "nobody", "%00", "\N{SNOWMAN}"])
async def test_who_is_not_known_is_not_found(admin: httpx.AsyncClient, peer: str) -> None:
    for request in (
        admin.post(path(peer, "quarantine"), json=WHY),
        admin.post(path(peer, "restore"), json=WHY),
        admin.get(f"/api/admin/volunteers/{peer}"),
    ):
        assert_error(await request, 404, "not_found", "invalid_request_error")


async def test_who_is_in_no_quarantine_cannot_be_restored(
    head: ScriptedPeer, admin: httpx.AsyncClient
) -> None:
    refused = await admin.post(path(head, "restore"), json=MENDED)
    assert "in no quarantine" in assert_error(refused, 404, "not_found", "invalid_request_error")["message"]


async def test_only_operators_decide_by_token_or_page(
    relay: RunningRelay, head: ScriptedPeer, http: httpx.AsyncClient, admins_token: str
) -> None:
    async with client_of(relay, None) as page:
        for asker, status, code, kind in (
            (http, 403, "forbidden", "permission_error"),
            (page, 401, "unauthorized", "authentication_error"),
        ):
            for request in (
                asker.post(path(head, "quarantine"), json=WHY),
                asker.post(path(head, "restore"), json=WHY),
                asker.get("/api/admin/volunteers"),
                asker.get(f"/api/admin/volunteers/{head.id}"),
            ):
                assert_error(await request, status, code, kind)
        await page.post("/api/session", json={"token": admins_token})
        elsewhere = {"Origin": "https://evil.example"}
        refused = await page.post(path(head, "quarantine"), json=WHY, headers=elsewhere)
        assert_error(refused, 403, "forbidden", "permission_error")
        here = {"Origin": relay.url}
        assert (await page.post(path(head, "quarantine"), json=WHY, headers=here)).status_code == 200
