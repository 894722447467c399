"""relay/queries/quarantines.py: who is kept out, why, and until when, on both databases."""

import asyncio

import pytest

from relay.store import Store
from schema.errors import InvalidRequest, NotFound
from schema.ids import PeerId
from schema.limits import MAX_QUARANTINE_CHARS

NOW = 1_800_000_000.0
A, B = PeerId("a" * 16), PeerId("b" * 16)


async def test_a_quarantine_begins_has_another_reason_and_ends(store: Store) -> None:
    first = await store.quarantine(A, "nonsense", "admin", NOW)
    assert (first.peer, first.at, first.reason, first.by, first.ended_at) == (
        A,
        NOW,
        "nonsense",
        "admin",
        None,
    )
    second = await store.quarantine(A, "worse", None, NOW + 1)
    assert (second.at, second.reason, second.by) == (NOW, "worse", None)
    await store.quarantine(B, "x", None, NOW + 2)
    assert [one.peer for one in await store.quarantined()] == [B, A]
    ended = await store.restore(A, "mended", "other", NOW + 3)
    assert (ended.ended_at, ended.end_reason, ended.ended_by) == (NOW + 3, "mended", "other")
    assert [one.peer for one in await store.quarantined()] == [B]
    again = await store.quarantine(A, "again", None, NOW + 4)
    assert await store.quarantines_of(A) == [again, ended]
    seen = {(one.kind, one.count) for one in await store.evidence_of([A], 0.0)}
    assert seen == {("quarantined", 2), ("restored", 1)}


async def test_who_is_in_none_cannot_be_restored(store: Store) -> None:
    with pytest.raises(NotFound):
        await store.restore(A, "mended", None, NOW)
    assert await store.evidence_of([A], 0.0) == []


@pytest.mark.parametrize("reason", ["", "  ", "a\0b", "two\nlines", "x" * (MAX_QUARANTINE_CHARS + 1)])
async def test_a_reason_is_words_that_can_be_shown(store: Store, reason: str) -> None:
    with pytest.raises(InvalidRequest):
        await store.quarantine(A, reason, None, NOW)
    assert await store.quarantined() == []


async def test_of_decisions_at_once_one_quarantine_comes(store: Store) -> None:
    await asyncio.gather(*(store.quarantine(A, f"{number}", None, NOW) for number in range(8)))
    assert len(await store.quarantined()) == 1


async def test_whether_anything_was_seen_of_a_volunteer(store: Store) -> None:
    assert not await store.has_seen(A)
    await store.quarantine(A, "x", None, NOW)
    assert await store.has_seen(A)
    assert not await store.has_seen(B)
