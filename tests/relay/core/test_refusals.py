"""relay/refusals.py and `GET /api/join/refusal`: who has started a machine is told why it did not join."""

from pathlib import Path
from typing import Any

import msgspec
import pytest

from relay import refusals
from relay.bus import Crossing, InProcessBus
from relay.parcels import Notice, Refused
from relay.refusals import KEEP_SECONDS, REPEAT_SECONDS, Refusals, is_refusal
from schema.credentials import parse_credential
from schema.errors import JoinRefused, Moved, Replaced, Unresponsive
from schema.messages import ErrorInfo, Failed, Hello
from tests.relay.core.joining_steps import assigned, refusal
from tests.relay.core.peers import offer
from tests.relay.core.rest_client import assert_error, client_of
from tests.relay.core.support import RunningRelay, running_relay
from tests.relay.core.waiting import eventually

WRONG = ErrorInfo(code="join_refused", message="free memory")


async def told(relay: RunningRelay, token: str) -> dict[str, Any] | None:
    """What the relay says of a token's machines."""
    async with client_of(relay, token) as client:
        answer = await client.get("/api/join/refusal")
    assert answer.status_code == 200, answer.text
    return answer.json()["refusal"]


# ---- who is told what ----


async def test_a_join_that_is_refused_is_told_with_cause_and_remedy(relay: RunningRelay) -> None:
    token, other = await relay.token(), await relay.token()
    peer = await relay.dial(token, name="rosa")
    await peer.say(offer(max_blocks=0))
    error = await refusal(peer)
    found = await told(relay, token)
    assert found is not None
    assert (found["name"], found["code"], found["message"]) == ("rosa", "join_refused", error.message)
    assert await told(relay, other) is None


async def test_a_machine_that_says_it_cannot_serve_is_told_of(relay: RunningRelay) -> None:
    token = await relay.token()
    peer = await relay.dial(token, name="rosa")
    await assigned(peer, offer())
    await peer.say(Failed(error=ErrorInfo(code="device_too_small", message="out of memory")))
    await peer.is_served()
    found = await told(relay, token)
    assert found is not None
    assert (found["name"], found["code"], found["message"]) == ("rosa", "device_too_small", "out of memory")


async def test_a_machine_that_is_too_old_to_say_its_name_is_told_of(relay: RunningRelay) -> None:
    token = await relay.token()
    socket = await relay.socket(token)
    hello = Hello(protocol=0, software="old", instance="0" * 32, name="rosa")
    await socket.send(msgspec.json.encode(hello).decode())
    await socket.wait_closed()
    found = await told(relay, token)
    assert found is not None
    assert (found["name"], found["code"]) == ("", "unsupported_version")
    assert "update the older one" in found["message"]


async def test_once_it_serves_nothing_is_wrong_any_more(relay: RunningRelay) -> None:
    token = await relay.token()
    for name in ("rosa", "iris"):
        peer = await relay.dial(token, name=name)
        await peer.say(offer(max_blocks=0))
        await refusal(peer)
    await (await relay.dial(token, name="rosa")).join(0, 8)
    assert await told(relay, token) is not None, "iris has not been mended"
    await (await relay.dial(token, name="iris")).join(0, 8)
    assert await told(relay, token) is None


async def test_a_machine_that_leaves_by_itself_was_not_refused(relay: RunningRelay) -> None:
    token = await relay.token()
    peer = await relay.dial(token)
    await assigned(peer, offer())
    await peer.close()
    await eventually(lambda: relay.services.hub.get(peer.id) is None)
    assert await told(relay, token) is None


async def test_only_a_volunteers_token_is_told_and_a_revoked_one_why(relay: RunningRelay) -> None:
    token = await relay.token()
    async with client_of(relay, await relay.token("client")) as client:
        assert_error(await client.get("/api/join/refusal"), 403, "forbidden", "permission_error")
    await relay.services.store.revoke_token(parse_credential(token).id)
    async with client_of(relay, token) as client:
        answer = await client.get("/api/join/refusal")
    error = assert_error(answer, 401, "unauthorized", "authentication_error")
    assert "revoked" in error["message"]


async def test_asking_is_no_use_of_a_token(relay: RunningRelay) -> None:
    token = await relay.token()
    await told(relay, token)
    record = await relay.services.store.find_token(parse_credential(token).id)
    assert record is not None
    assert record.last_used_at is None


async def test_every_replica_tells_it_and_forgets_it(sqlite_file: Path) -> None:
    crossing, secret = Crossing(), b"s" * 32
    async with (
        running_relay(sqlite_file, bus=InProcessBus(crossing), relay_secret=secret, replica="one") as one,
        running_relay(sqlite_file, bus=InProcessBus(crossing), relay_secret=secret, replica="other") as other,
    ):
        await eventually(lambda: one.services.replicas.can_move_peers)
        token = await one.token()
        peer = await one.dial(token, name="rosa")
        await peer.say(offer(max_blocks=0))
        await refusal(peer)
        token_id = parse_credential(token).id
        await eventually(lambda: other.services.refusals.last(token_id, 0.0) is not None)
        await (await other.dial(token, name="rosa")).join(0, 8)
        await eventually(lambda: one.services.refusals.last(token_id, 0.0) is None)


# ---- how much is kept ----


class Listening:
    """Another replica."""

    def __init__(self) -> None:
        self.heard: list[Notice] = []

    def notify(self, notice: Notice) -> None:
        self.heard.append(notice)


def test_it_is_forgotten_after_a_while() -> None:
    kept = Refusals()
    kept.note("token", "rosa", WRONG, 0.0)
    assert kept.last("token", KEEP_SECONDS) is not None
    assert kept.last("token", KEEP_SECONDS + 1) is None


def test_of_too_many_tokens_the_oldest_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(refusals, "MOST_KEPT", 2)
    kept = Refusals()
    for token in ("first", "second", "first", "third"):
        kept.note(token, "rosa", WRONG, 0.0)
    assert [token for token in ("first", "second", "third") if kept.last(token, 0.0)] == ["first", "third"]


def test_a_machine_that_tries_without_end_does_not_keep_the_other_replicas_busy() -> None:
    kept, other = Refusals(), Listening()
    kept.use([other])
    times = [0.0, 1.0, REPEAT_SECONDS - 1, REPEAT_SECONDS, REPEAT_SECONDS + 1]
    for at in times:
        kept.note("token", "rosa", WRONG, at)
    told_at = [one.refusal.at for one in other.heard if isinstance(one, Refused) and one.refusal]
    assert told_at == [0.0, REPEAT_SECONDS]
    kept.note("token", "rosa", ErrorInfo(code="unavailable", message="another"), REPEAT_SECONDS + 1)
    assert len(other.heard) == 3, "another reason is news"


@pytest.mark.parametrize(
    ("ending", "state", "expected"),
    [
        (JoinRefused("no"), None, True),
        (Unresponsive("silent"), "loading", True),
        (Unresponsive("silent"), "serving", False),
        (Moved("elsewhere"), None, False),
        (Replaced("again"), "loading", False),
        (None, "probing", False),
    ],
    ids=str,
)
def test_what_counts_as_a_refusal(ending: Any, state: Any, expected: bool) -> None:
    assert is_refusal(ending, state) is expected
