"""relay/store.py and relay/queries/: what is kept is found again, on both databases, and races end well."""

import asyncio
import dataclasses
import sqlite3
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from sqlalchemy.exc import IntegrityError

from relay import database as database_module
from relay.errors import DatabaseRefused
from relay.placement import Placement
from relay.queries import tokens as tokens_module
from relay.queries import volunteers as volunteer_queries
from relay.rebalancing import LastMove, Move
from relay.records import HeldSpan, HeldTogether, VolunteerRecord
from relay.settings import Settings
from relay.store import Store
from relay.tables import Volunteer
from relay.throughputs import FASTEST, SLOWEST
from schema.credentials import Credential, new_credential
from schema.errors import InvalidRequest, JoinRefused, NotFound, Unauthorized, Unavailable
from schema.ids import PeerId, Span
from schema.messages import ModelFacts

PATIENCE_SECONDS = 10.0
URL = "https://relay.example"
FACTS = ModelFacts(
    name="llama", digest="a" * 64, family="llama", blocks=8, hidden_size=64, parameters=2**40, context=2**31
)
OTHER_FACTS = ModelFacts(
    name="llama", digest="b" * 64, family="llama", blocks=9, hidden_size=64, parameters=1, context=128
)


@pytest.fixture
async def other_replica(settings: Settings, store: Store) -> AsyncIterator[Store]:
    """A second relay process on the same database."""
    async with Store.open(dataclasses.replace(settings, replica="there")) as opened:
        yield opened


@pytest.fixture
async def token(store: Store) -> Credential:
    return await store.create_token("volunteer", "Ada", URL)


def peer_id(number: int) -> PeerId:
    return PeerId(f"{number:016x}")


def volunteer(token: Credential, number: int = 1, replica: str = "here") -> VolunteerRecord:
    return VolunteerRecord(
        peer=peer_id(number),
        token_id=token.id,
        name=f"volunteer {number}",
        device="cpu",
        memory=2**40,
        replica=replica,
        state="connected",
        joined_at=10.0 + number,
    )


# ---- secret, health -----------------------------------------------------------------------------


async def test_the_secret_is_made_once_for_all_replicas(store: Store, other_replica: Store) -> None:
    found = await asyncio.gather(*(one.relay_secret() for one in [store, other_replica] * 4))
    assert len(set(found)) == 1
    assert len(found[0]) == 32


async def test_the_secret_survives_a_restart(settings: Settings) -> None:
    async with Store.open(settings) as before:
        secret = await before.relay_secret()
    async with Store.open(settings) as after:
        assert await after.relay_secret() == secret


async def test_the_secret_of_the_settings_wins(settings: Settings) -> None:
    async with Store.open(dataclasses.replace(settings, relay_secret=b"s" * 32)) as store:
        assert await store.relay_secret() == b"s" * 32


async def test_ping_answers(store: Store) -> None:
    await store.ping()


# ---- tokens -------------------------------------------------------------------------------------


async def test_a_new_token_signs_in(store: Store) -> None:
    token = await store.create_token("client", "  Grace ", URL)
    found = await store.authenticate(str(token))
    assert (found.id, found.kind, found.name, found.revoked_at) == (token.id, "client", "Grace", None)


async def test_a_token_carries_the_relays_address(token: Credential) -> None:
    assert token.relay_url == URL


async def test_a_token_without_its_address_signs_in(store: Store, token: Credential) -> None:
    assert (await store.authenticate(str(dataclasses.replace(token, relay_url="")))).id == token.id


async def test_a_wrong_secret_is_refused(store: Store, token: Credential) -> None:
    with pytest.raises(Unauthorized, match="does not know"):
        await store.authenticate(str(dataclasses.replace(token, secret="wrong")))


async def test_an_unknown_token_is_refused_in_the_same_words(store: Store, token: Credential) -> None:
    wrong = [str(dataclasses.replace(token, secret="wrong")), str(new_credential("volunteer", URL))]
    answers: set[str] = set()
    for text in wrong:
        with pytest.raises(Unauthorized) as refusal:
            await store.authenticate(text)
        answers.add(refusal.value.message)
    assert len(answers) == 1


async def test_a_token_cannot_be_used_as_another_kind(store: Store, token: Credential) -> None:
    with pytest.raises(Unauthorized, match="does not know"):
        await store.authenticate(str(dataclasses.replace(token, kind="client")))


@pytest.mark.parametrize("text", ["", "hello", "corolla-operator.a.b"])
async def test_what_is_no_token_is_refused(store: Store, text: str) -> None:
    with pytest.raises(Unauthorized, match="not a Corolla token"):
        await store.authenticate(text)


async def test_a_revoked_token_is_refused_by_every_replica(
    store: Store, other_replica: Store, token: Credential
) -> None:
    await store.revoke_token(token.id)
    with pytest.raises(Unauthorized, match="revoked"):
        await other_replica.authenticate(str(token))


async def test_revoking_again_keeps_the_first_time(store: Store, token: Credential) -> None:
    first = await store.revoke_token(token.id)
    again = await store.revoke_token(token.id)
    assert first.revoked_at is not None
    assert again == first


async def test_an_unknown_token_cannot_be_revoked(store: Store) -> None:
    with pytest.raises(NotFound, match="token list"):
        await store.revoke_token("nobody")


async def test_the_first_use_of_a_token_is_noted(store: Store, token: Credential) -> None:
    before = time.time()
    await store.authenticate(str(token))
    (found,) = await store.list_tokens()
    assert found.last_used_at is not None
    assert before <= found.last_used_at <= time.time()


async def test_a_use_soon_after_another_is_no_write(store: Store, token: Credential) -> None:
    await store.authenticate(str(token))
    first = await store.list_tokens()
    await store.authenticate(str(token))
    assert await store.list_tokens() == first


async def test_a_use_long_after_another_is_noted(
    store: Store, token: Credential, monkeypatch: pytest.MonkeyPatch
) -> None:
    await store.authenticate(str(token))
    first = await store.list_tokens()
    monkeypatch.setattr(tokens_module, "LAST_USED_GRAIN", -1.0)
    await store.authenticate(str(token))
    assert await store.list_tokens() != first


async def test_tokens_are_listed_oldest_first(store: Store) -> None:
    made = [await store.create_token("client", f"token {number}", URL) for number in range(3)]
    assert [one.id for one in await store.list_tokens()] == [one.id for one in made]


async def test_whether_a_token_was_revoked(store: Store) -> None:
    kept, revoked = [await store.create_token("client", "x", URL) for _ in range(2)]
    await store.revoke_token(revoked.id)
    assert [await store.good_token(one.id, time.time()) is None for one in (kept, revoked)] == [False, True]


async def test_tokens_are_found_that_were_revoked_since(store: Store) -> None:
    _, earlier, later = [await store.create_token("client", "x", URL) for _ in range(3)]
    for one in (earlier, later):
        await store.revoke_token(one.id)
    when = {one.id: one.revoked_at for one in await store.list_tokens()}
    assert await store.ended_since(0.0, time.time()) == {earlier.id, later.id}
    assert await store.ended_since(when[later.id] or 0.0, time.time()) == {later.id}
    assert await store.ended_since((when[later.id] or 0.0) + 1, time.time()) == set()


@pytest.mark.parametrize("name", ["", "  ", "x" * 81])
async def test_a_token_needs_a_name_of_reasonable_length(store: Store, name: str) -> None:
    with pytest.raises(InvalidRequest, match="name"):
        await store.create_token("client", name, URL)


# ---- models -------------------------------------------------------------------------------------


async def names(store: Store) -> list[str]:
    return [model.name for model in await store.list_models()]


async def test_the_models_of_the_settings_come_first_in_their_order(store: Store) -> None:
    await store.add_model("added")
    await store.seed_models(["two", "one"])
    assert await names(store) == ["two", "one", "added"]


async def test_a_model_taken_out_of_the_settings_is_gone_but_added_ones_stay(store: Store) -> None:
    await store.seed_models(["one", "two"])
    await store.add_model("added")
    await store.seed_models(["two"])
    assert await names(store) == ["two", "added"]


async def test_seeding_again_keeps_what_is_known(store: Store) -> None:
    await store.seed_models(["llama"])
    await store.record_facts(FACTS, "me")
    await store.seed_models(["other", "llama"])
    assert (await store.list_models())[1].facts == FACTS


async def test_added_models_keep_the_order_of_their_addition(store: Store) -> None:
    assert [await store.add_model(name) for name in ("b", "a", "c")] == [True] * 3
    assert await names(store) == ["b", "a", "c"]


async def test_adding_a_model_again_changes_nothing(store: Store) -> None:
    await store.add_model("a")
    await store.add_model("b")
    assert await store.add_model("a") is False
    assert await names(store) == ["a", "b"]


@pytest.mark.parametrize("name", ["", "x" * 201])
async def test_a_model_needs_a_name_of_reasonable_length(store: Store, name: str) -> None:
    with pytest.raises(InvalidRequest, match="model's name"):
        await store.add_model(name)


async def test_an_added_model_can_be_removed(store: Store) -> None:
    await store.add_model("a")
    await store.remove_model("a")
    assert await names(store) == []


async def test_a_model_of_the_settings_cannot_be_removed_here(store: Store) -> None:
    await store.seed_models(["a"])
    with pytest.raises(InvalidRequest, match="MODELS"):
        await store.remove_model("a")
    assert await names(store) == ["a"]


async def test_an_unknown_model_cannot_be_removed(store: Store) -> None:
    with pytest.raises(NotFound, match="model list"):
        await store.remove_model("a")


async def test_a_models_facts_are_unknown_until_they_are_reported(store: Store) -> None:
    await store.add_model("llama")
    (before,) = await store.list_models()
    await store.record_facts(FACTS, "peer 1")
    (after,) = await store.list_models()
    assert (before.facts, before.reported_by) == (None, None)
    assert (after.facts, after.reported_by) == (FACTS, "peer 1")


async def test_the_same_facts_may_be_reported_again_and_the_first_reporter_is_kept(store: Store) -> None:
    await store.add_model("llama")
    await store.record_facts(FACTS, "peer 1")
    await store.record_facts(FACTS, "peer 2")
    assert (await store.list_models())[0].reported_by == "peer 1"


async def test_another_digest_is_refused_naming_both_and_the_remedy(store: Store) -> None:
    await store.add_model("llama")
    await store.record_facts(FACTS, "peer 1")
    with pytest.raises(JoinRefused, match="python -m relay model forget llama") as refusal:
        await store.record_facts(OTHER_FACTS, "peer 2")
    assert FACTS.digest in refusal.value.message
    assert OTHER_FACTS.digest in refusal.value.message
    assert "peer 1" in refusal.value.message


async def test_facts_of_a_model_that_is_not_served_are_refused(store: Store) -> None:
    with pytest.raises(JoinRefused, match="model add llama"):
        await store.record_facts(FACTS, "peer 1")


async def test_of_two_reports_at_once_one_wins(store: Store, other_replica: Store) -> None:
    await store.add_model("llama")
    reports = [store.record_facts(FACTS, "peer 1"), other_replica.record_facts(OTHER_FACTS, "peer 2")]
    outcomes = await asyncio.gather(*reports, return_exceptions=True)
    assert sorted(type(outcome).__name__ for outcome in outcomes) == ["JoinRefused", "NoneType"]


async def test_forgotten_facts_may_be_reported_differently(store: Store) -> None:
    await store.add_model("llama")
    await store.record_facts(FACTS, "peer 1")
    await store.forget_model_facts("llama")
    await store.record_facts(OTHER_FACTS, "peer 2")
    assert (await store.list_models())[0].facts == OTHER_FACTS


async def test_facts_of_an_unknown_model_cannot_be_forgotten(store: Store) -> None:
    with pytest.raises(NotFound, match="llama"):
        await store.forget_model_facts("llama")


# ---- volunteers ---------------------------------------------------------------------------------


def test_records_and_rows_have_the_same_fields_in_the_same_order() -> None:
    # Rows become records by position.
    columns = [column.name for column in Volunteer.__table__.columns]
    assert [field.name for field in dataclasses.fields(VolunteerRecord)] == columns


async def test_a_saved_volunteer_is_found_as_it_was(
    store: Store, other_replica: Store, token: Credential
) -> None:
    record = dataclasses.replace(
        volunteer(token),
        state="serving",
        model="llama",
        start=0,
        end=4,
        head=True,
        dtype="bfloat16",
        quantization="none",
        blocks_per_second=123.5,
    )
    await store.save_volunteer(record)
    assert await other_replica.volunteers() == [record]


async def test_saving_again_replaces(store: Store, token: Credential) -> None:
    await store.save_volunteer(volunteer(token))
    moved = volunteer(token, replica="there")
    await store.save_volunteer(moved)
    assert await store.volunteers() == [moved]


async def test_a_volunteer_without_a_known_token_is_a_mistake_and_no_outage(store: Store) -> None:
    with pytest.raises(IntegrityError):
        await store.save_volunteer(volunteer(new_credential("volunteer", URL)))


async def test_a_state_changes_with_what_was_loaded(store: Store, token: Credential) -> None:
    await store.save_volunteer(volunteer(token))
    assert await store.set_volunteer_state(peer_id(1), "probing", dtype="float32", quantization="nf4")
    assert await store.set_volunteer_state(peer_id(1), "serving")
    (found,) = await store.volunteers()
    assert (found.state, found.dtype, found.quantization) == ("serving", "float32", "nf4")


async def test_a_replica_does_not_change_anothers_volunteer(
    store: Store, other_replica: Store, token: Credential
) -> None:
    await store.save_volunteer(volunteer(token, replica="there"))
    assert await store.set_volunteer_state(peer_id(1), "draining") is False
    assert await other_replica.set_volunteer_state(peer_id(1), "serving") is True


async def test_volunteers_of_replicas_not_heard_of_lately_are_left_out(
    store: Store, other_replica: Store, token: Credential
) -> None:
    await store.save_volunteer(volunteer(token, 1, "here"))
    await store.save_volunteer(volunteer(token, 2, "there"))
    await store.save_volunteer(volunteer(token, 3, "never heard of"))
    await store.renew_lease(100)
    await other_replica.renew_lease(100)
    await other_replica.renew_lease(200)
    assert [one.peer for one in await store.volunteers(seen_since=100)] == [peer_id(1), peer_id(2)]
    assert [one.peer for one in await store.volunteers(seen_since=150)] == [peer_id(2)]
    assert [one.peer for one in await store.volunteers_elsewhere(seen_since=150)] == [peer_id(2)]
    assert len(await store.volunteers()) == 3


async def test_speeds_of_several_are_saved_at_once(store: Store, token: Credential) -> None:
    for number in range(3):
        await store.save_volunteer(volunteer(token, number))
    await store.save_speeds({peer_id(0): 1.5, peer_id(2): 2.5, peer_id(9): 3.5})
    await store.save_speeds({})
    found = {one.peer: one.blocks_per_second for one in await store.volunteers()}
    assert found == {peer_id(0): 1.5, peer_id(1): 0.0, peer_id(2): 2.5}


async def test_a_volunteer_that_left_is_removed(store: Store, token: Credential) -> None:
    await store.save_volunteer(volunteer(token))
    assert await store.remove_volunteer(peer_id(1), "here") is True
    assert await store.volunteers() == []


async def test_a_volunteer_that_joined_another_replica_since_is_kept(store: Store, token: Credential) -> None:
    await store.save_volunteer(volunteer(token, replica="there"))
    assert await store.remove_volunteer(peer_id(1), "here") is False
    assert len(await store.volunteers()) == 1


async def test_a_replicas_volunteers_are_removed_together(store: Store, token: Credential) -> None:
    for number, replica in enumerate(["here", "there", "here"]):
        await store.save_volunteer(volunteer(token, number, replica))
    await store.renew_lease(100)
    assert await store.remove_replica("here") == 2
    assert await store.volunteers(seen_since=100) == []
    assert [one.replica for one in await store.volunteers()] == ["there"]


async def test_volunteers_of_dead_replicas_are_removed(
    store: Store, other_replica: Store, token: Credential
) -> None:
    await store.save_volunteer(volunteer(token, 1, "here"))
    await store.save_volunteer(volunteer(token, 2, "there"))
    await store.save_volunteer(volunteer(token, 3, "never heard of"))
    await store.renew_lease(100)
    await other_replica.renew_lease(200)
    assert await store.remove_unseen(150) == 2
    assert [one.peer for one in await store.volunteers()] == [peer_id(2)]
    await store.save_volunteer(volunteer(token, 1, "here"))
    assert [one.peer for one in await store.volunteers(seen_since=0)] == [peer_id(2)], "the lease is gone too"


# ---- assignment ---------------------------------------------------------------------------------


def first_hole(others: list[HeldSpan]) -> Placement:
    taken = {other.start for other in others}
    start = next(block for block in range(1000) if block not in taken)
    return Placement("llama", Span(start, start + 1), head=start == 0)


async def test_a_span_is_decided_kept_and_returned(store: Store, token: Credential) -> None:
    await store.save_volunteer(dataclasses.replace(volunteer(token), dtype="float16", state="serving"))
    placement = await store.assign_span(peer_id(1), first_hole)
    (found,) = await store.volunteers()
    assert placement == Placement("llama", Span(0, 1), True)
    assert (found.model, found.start, found.end, found.head) == ("llama", 0, 1, True)
    assert (found.state, found.dtype) == ("loading", None)


async def test_the_decision_is_made_from_the_others_that_hold_a_span_and_were_seen(
    store: Store, other_replica: Store, token: Credential
) -> None:
    holding = dataclasses.replace(
        volunteer(token, 1), model="llama", start=2, end=5, head=True, blocks_per_second=7.5
    )
    await store.save_volunteers(
        [
            holding,
            dataclasses.replace(holding, peer=peer_id(2), replica="there"),
            dataclasses.replace(holding, peer=peer_id(3), state="draining"),
            volunteer(token, 4),
            volunteer(token, 5),
            dataclasses.replace(holding, peer=peer_id(6)),
        ]
    )
    await other_replica.renew_lease(100)
    await store.renew_lease(200)
    asked: list[HeldSpan] = []

    def decide(others: list[HeldSpan]) -> Placement:
        asked.extend(others)
        return first_hole(others)

    await store.assign_span(peer_id(5), decide, seen_since=150, without=[peer_id(6)])
    assert asked == [HeldSpan("llama", 2, 5, True, 1, 7.5)]


async def test_those_that_hold_the_same_are_put_together_and_the_unmeasured_apart(
    store: Store, token: Credential
) -> None:
    held = [(0, 2.0), (0, 4.0), (0, 0.0), (0, 0.0), (3, 1e12), (3, 1e-9)]
    for number, (start, speed) in enumerate(held):
        record = volunteer(token, number)
        await store.save_volunteer(
            dataclasses.replace(record, model="llama", start=start, end=start + 3, blocks_per_second=speed)
        )
    await store.save_volunteer(volunteer(token, 7))
    asked: list[HeldSpan] = []

    def decide(others: list[HeldSpan]) -> Placement:
        asked.extend(others)
        return Placement("llama", Span(0, 1), head=False)

    await store.assign_span(peer_id(7), decide)
    believed = (SLOWEST + FASTEST) / 2  # nobody's figure beyond these counts
    assert asked == [
        HeldSpan("llama", 0, 3, False, 2, 0.0),
        HeldSpan("llama", 0, 3, False, 2, 3.0),
        HeldSpan("llama", 3, 6, False, 2, believed),
    ]


async def test_joining_at_once_nobody_takes_the_same_hole(
    store: Store, other_replica: Store, token: Credential
) -> None:
    for number in range(12):
        await store.save_volunteer(volunteer(token, number))
    replicas = [store, other_replica] * 6
    placements = await asyncio.gather(
        *(replica.assign_span(peer_id(number), first_hole) for number, replica in enumerate(replicas))
    )
    assert sorted(placement.span.start for placement in placements) == list(range(12))


async def test_a_refused_placement_changes_nothing_and_blocks_nobody(store: Store, token: Credential) -> None:
    def refuse(others: list[HeldSpan]) -> Placement:
        raise JoinRefused("no room")

    record = volunteer(token)
    await store.save_volunteer(record)
    with pytest.raises(JoinRefused, match="no room"):
        await store.assign_span(peer_id(1), refuse)
    assert await store.volunteers() == [record]
    await store.assign_span(peer_id(1), first_hole)


async def test_a_volunteer_that_is_not_there_gets_no_span(store: Store) -> None:
    with pytest.raises(NotFound, match="may have left"):
        await store.assign_span(peer_id(1), first_hole)


async def test_room_and_disk_are_kept_with_the_span(store: Store, token: Credential) -> None:
    await store.save_volunteer(volunteer(token))
    roomy = Placement("llama", Span(0, 4), head=False, room=6, cached=(Span(0, 4), Span(6, 8)))
    await store.assign_span(peer_id(1), lambda _: roomy, now=70.0)
    (found,) = await store.volunteers()
    assert (found.room, found.cached, found.settled_at) == (6, (Span(0, 4), Span(6, 8)), 70.0)
    await store.save_volunteer(found)
    assert await store.volunteers() == [found]


# ---- moves --------------------------------------------------------------------------------------


async def serving(store: Store, token: Credential, *numbers: int) -> None:
    """Volunteers of this replica that serve the first half of a model."""
    for number in numbers:
        row = dataclasses.replace(volunteer(token, number), state="serving", model="llama", start=0, end=4)
        await store.save_volunteer(row)


def second_half(rows: list[VolunteerRecord], last: list[LastMove]) -> Move | None:
    """Moves the first one to where nobody is."""
    if any(row.start == 4 for row in rows):
        return None
    return Move(rows[0].peer, Span(0, 4), Span(4, 8), gain=2.5, members="who is there")


def as_it_is(row: VolunteerRecord) -> VolunteerRecord:
    return row


async def test_a_move_changes_the_row_and_is_remembered(store: Store, token: Credential) -> None:
    await serving(store, token, 1, 2)
    seen: list[list[LastMove]] = []

    def decide(rows: list[VolunteerRecord], last: list[LastMove]) -> Move | None:
        seen.append(last)
        return second_half(rows, last)

    move = await store.move_span("llama", as_it_is, decide, now=90.0)
    assert move is not None
    assert (move.peer, move.after) == (peer_id(1), Span(4, 8))
    moved, other = await store.volunteers()
    assert (moved.start, moved.end, moved.state, moved.settled_at) == (4, 8, "loading", 90.0)
    assert (other.start, other.end, other.state) == (0, 4, "serving")
    assert await store.move_span("llama", as_it_is, decide, now=91.0) is None
    assert seen == [[], [LastMove(peer_id(1), 90.0, "who is there")]]


async def test_what_is_moved_is_decided_beside_the_event_loop(store: Store, token: Credential) -> None:
    """It compares thousands of places with each other, and frames are not to wait for that."""
    await serving(store, token, 1, 2)
    loop, has_gone_on = asyncio.get_running_loop(), threading.Event()

    def decide(rows: list[VolunteerRecord], last: list[LastMove]) -> Move | None:
        loop.call_soon_threadsafe(has_gone_on.set)
        return second_half(rows, last) if has_gone_on.wait(PATIENCE_SECONDS) else None

    assert await store.move_span("llama", as_it_is, decide, now=90.0) is not None


async def test_who_is_seen_as_nothing_is_not_decided_about(
    store: Store, token: Credential, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(volunteer_queries, "SEEN_AT_ONCE", 2)
    await serving(store, token, 1, 2, 3, 4, 5)
    seen: list[PeerId] = []

    def view(row: VolunteerRecord) -> PeerId | None:
        return None if row.peer == peer_id(3) else row.peer

    def decide(peers: list[PeerId], last: list[LastMove]) -> None:
        seen.extend(peers)

    assert await store.move_span("llama", view, decide, now=90.0) is None
    assert seen == [peer_id(1), peer_id(2), peer_id(4), peer_id(5)]


async def test_two_replicas_that_decide_at_once_move_one_volunteer(
    store: Store, other_replica: Store, token: Credential
) -> None:
    await serving(store, token, 1, 2, 3)
    moves = await asyncio.gather(
        *(one.move_span("llama", as_it_is, second_half, now=90.0) for one in [store, other_replica] * 3)
    )
    starts = [one.start for one in await store.volunteers()]
    assert starts.count(4) == len([move for move in moves if move is not None]) <= 1


async def test_what_is_held_is_put_together_by_span_and_room(
    store: Store, other_replica: Store, token: Credential
) -> None:
    base = dataclasses.replace(volunteer(token), state="serving", model="llama", start=0, end=4, room=4)
    others = [
        {"blocks_per_second": 100.0},
        {"blocks_per_second": 50.0},
        {"blocks_per_second": 0.0},
        {"blocks_per_second": 30.0, "room": None},
        {"blocks_per_second": 1e9, "start": 4, "end": 8},
        {"blocks_per_second": 70.0, "state": "draining"},
        {"blocks_per_second": 70.0, "model": "another"},
        {"blocks_per_second": 70.0},
    ]
    for number, other in enumerate(others):
        await store.save_volunteer(dataclasses.replace(base, peer=peer_id(number), **other))  # pyright: ignore[reportArgumentType]
    found = await store.held_together("llama", without=[peer_id(len(others) - 1)])
    assert set(found) == {
        HeldTogether(0, 4, 4, 150.0, 100.0),
        HeldTogether(0, 4, None, 30.0, 30.0),
        HeldTogether(4, 8, 4, FASTEST, FASTEST),
    }
    assert await other_replica.held_together("llama", seen_since=time.time() + 1) == []


async def test_who_serves_at_another_replica_or_no_more_is_not_moved(
    store: Store, other_replica: Store, token: Credential
) -> None:
    await serving(store, token, 1)
    assert await other_replica.move_span("llama", as_it_is, second_half, now=90.0) is None
    await store.set_volunteer_state(peer_id(1), "draining")
    assert await store.move_span("llama", as_it_is, second_half, now=90.0) is None
    assert [one.start for one in await store.volunteers()] == [0]


# ---- outages ------------------------------------------------------------------------------------


class Gate:
    """A TCP proxy to a server; `shut` breaks what goes through it, as a network or a crash does."""

    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self._open: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None
        self.port = 0

    async def open(self) -> None:
        self._server = await asyncio.start_server(self._pass, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def shut(self) -> None:
        if self._server is not None:
            self._server.close()
            for writer in self._open:
                writer.transport.abort()
            await self._server.wait_closed()

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection(*self._target)
        ends = {writer, far_writer}
        self._open |= ends
        await asyncio.gather(_copy(reader, far_writer), _copy(far_reader, writer), return_exceptions=True)
        self._open -= ends


async def _copy(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    while data := await source.read(65536):
        sink.write(data)
        await sink.drain()
    sink.close()


@asynccontextmanager
async def gate_to(url: str) -> AsyncIterator[tuple[Gate, str]]:
    """A gate in front of a database server, and the address through it."""
    parts = urlsplit(url)
    gate = Gate(parts.hostname or "", parts.port or 5432)
    await gate.open()
    user = f"{parts.netloc.rpartition('@')[0]}@" if "@" in parts.netloc else ""
    yield gate, parts._replace(netloc=f"{user}127.0.0.1:{gate.port}").geturl()
    await gate.shut()


@pytest.mark.parametrize("dialect", [pytest.param("postgresql", marks=pytest.mark.postgres)])
async def test_a_database_that_is_away_is_unavailable_and_then_back(settings: Settings) -> None:
    async with (
        gate_to(settings.database_url) as (gate, url),
        Store.open(dataclasses.replace(settings, database_url=url)) as store,
    ):
        await gate.shut()
        with pytest.raises(Unavailable) as outage:
            await store.list_tokens()
        assert outage.value.retry_after is not None
        with pytest.raises(Unavailable):
            await store.seed_models(["a"])
        await gate.open()
        await store.seed_models(["a"])
        assert await names(store) == ["a"]


@pytest.mark.parametrize("dialect", [pytest.param("postgresql", marks=pytest.mark.postgres)])
async def test_a_decision_cut_off_by_an_outage_is_not_kept(settings: Settings) -> None:
    async with (
        gate_to(settings.database_url) as (gate, url),
        Store.open(settings) as near,
        Store.open(dataclasses.replace(settings, database_url=url)) as far,
    ):
        record = volunteer(await near.create_token("volunteer", "x", URL))
        await near.save_volunteer(record)
        closing: list[asyncio.Task[None]] = []

        def decide_while_the_line_breaks(others: list[HeldSpan]) -> Placement:
            closing.append(asyncio.create_task(gate.shut()))
            return first_hole(others)

        with pytest.raises(Unavailable):
            await far.assign_span(record.peer, decide_while_the_line_breaks)
        await closing[0]
        assert await near.volunteers() == [record]


@pytest.mark.parametrize("dialect", ["sqlite"])
async def test_a_file_that_somebody_else_keeps_locked_is_unavailable(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database_module, "CONNECT_SECONDS", 0.05)
    async with Store.open(settings) as store:
        token = await store.create_token("client", "x", URL)
        blocker = sqlite3.connect(tmp_path / "corolla.sqlite3", isolation_level=None)
        blocker.execute("BEGIN IMMEDIATE")
        with pytest.raises(Unavailable, match="locked") as outage:
            await store.add_model("a")
        assert outage.value.retry_after is not None
        # Reading goes on, and a good token is good even if its use cannot be noted.
        assert (await store.authenticate(str(token))).id == token.id
        blocker.close()
        assert await store.add_model("a")


@pytest.mark.parametrize("dialect", ["sqlite"])
async def test_many_that_write_to_a_file_at_once_all_have_their_turn(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However short they would wait for its lock: else some starve when many volunteers join."""
    monkeypatch.setattr(database_module, "CONNECT_SECONDS", 0.0)
    async with Store.open(settings) as store:
        await asyncio.gather(*(store.create_token("client", f"{number}", URL) for number in range(50)))
        assert len(await store.list_tokens()) == 50


@pytest.mark.parametrize("dialect", ["sqlite"])
async def test_a_file_that_has_vanished_is_unavailable_and_no_new_one_is_made(
    settings: Settings, tmp_path: Path
) -> None:
    async with Store.open(settings):
        pass
    file = tmp_path / "corolla.sqlite3"
    async with Store.open(settings) as store:
        await store._engine.dispose()
        file.rename(tmp_path / "elsewhere")
        with pytest.raises(Unavailable, match="unable to open"):
            await store.list_tokens()
        assert not file.exists()
        (tmp_path / "elsewhere").rename(file)
        assert await store.list_tokens() == []


@pytest.mark.parametrize("dialect", ["sqlite"])
async def test_a_connection_that_was_given_up_is_closed_with_the_store(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its thread tells the event loop of its end, which fails where that is closed by then."""
    begun, leave = asyncio.Event(), threading.Event()
    loop, threads = asyncio.get_running_loop(), list[threading.Thread]()
    connect = sqlite3.connect

    def hold(*where: Any, **options: Any) -> sqlite3.Connection:
        threads.append(threading.current_thread())
        loop.call_soon_threadsafe(begun.set)
        leave.wait(PATIENCE_SECONDS)
        return connect(*where, **options)

    async with Store.open(settings) as store:
        monkeypatch.setattr(sqlite3, "connect", hold)
        asking = asyncio.create_task(store.list_tokens())
        await begun.wait()
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
        loop.call_later(0.1, leave.set)
    assert not threads[0].is_alive()


async def test_an_unreachable_server_is_unavailable() -> None:
    nowhere = "postgresql+asyncpg://me:hunter2@127.0.0.1:1/base"
    with pytest.raises(Unavailable, match="not available") as outage:
        async with Store.open(Settings(database_url=nowhere)):
            pass
    assert "hunter2" not in outage.value.message


async def test_a_missing_folder_is_refused_with_the_remedy(tmp_path: Path) -> None:
    url = f"sqlite+aiosqlite:///{tmp_path}/missing/x.sqlite3"
    with pytest.raises(DatabaseRefused, match="DATABASE_URL"):
        async with Store.open(Settings(database_url=url)):
            pass


async def test_a_path_that_is_a_folder_is_refused_with_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(DatabaseRefused, match="DATABASE_URL"):
        async with Store.open(Settings(database_url=f"sqlite+aiosqlite:///{tmp_path}")):
            pass
