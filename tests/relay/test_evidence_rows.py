"""relay/queries/evidence.py: evidence in SQL is appended, put together and at last removed."""

import pytest
from sqlalchemy import select

from relay.database import reading
from relay.queries import evidence as evidence_queries
from relay.records import Evidence
from relay.reputation import HOUR, merged
from relay.store import Store
from relay.tables import EvidenceRow
from schema.ids import PeerId

A, B = PeerId("a" * 16), PeerId("b" * 16)
ONE, TWO, THREE = (1_700_000_000 // HOUR * HOUR + hour * HOUR for hour in range(3))


async def rows(store: Store) -> list[tuple[object, ...]]:
    columns = (
        EvidenceRow.peer,
        EvidenceRow.kind,
        EvidenceRow.hour,
        EvidenceRow.count,
        EvidenceRow.worst,
        EvidenceRow.replica,
    )
    async with reading(store._engine) as connection:
        return sorted(tuple(row) for row in await connection.execute(select(*columns)))


async def test_evidence_is_appended_and_summed_up(store: Store) -> None:
    await store.append_evidence([Evidence(A, "late", ONE, 2, 3.5), Evidence(B, "failed", ONE, 1)])
    await store.append_evidence([Evidence(A, "late", ONE, 1, 2.5), Evidence(A, "late", TWO, 10**12, 0.5)])
    await store.append_evidence([])
    assert len(await rows(store)) == 4
    assert merged(await store.evidence_of([A], since=0)) == [
        Evidence(A, "late", ONE, 3, 3.5),
        Evidence(A, "late", TWO, 10**12, 0.5),
    ]
    assert await store.evidence_of([A], since=THREE) == []
    assert {one.peer for one in await store.evidence_of([A, B], since=ONE)} == {A, B}


async def test_rows_of_past_hours_are_put_together_and_say_the_same(store: Store) -> None:
    for count in (1, 2, 3):
        for hour in (ONE, TWO, THREE):
            await store.append_evidence(
                [Evidence(A, "late", hour, count, count), Evidence(B, "failed", hour, 1)]
            )
    before = merged(await store.evidence_of([A, B], since=0))
    assert await store.merge_evidence(before=THREE) == 2
    assert merged(await store.evidence_of([A, B], since=0)) == before
    left = await rows(store)
    assert len(left) == 4 + 6
    assert (A, "late", ONE, 6, 3.0, "") in left
    assert await store.merge_evidence(before=THREE) == 0


async def test_what_comes_late_is_put_together_the_next_time(store: Store) -> None:
    for count in (1, 2, 3):
        await store.append_evidence([Evidence(A, "late", ONE, count)])
        await store.merge_evidence(before=TWO)
    assert [row[3] for row in await rows(store)] == [6]


async def test_many_hours_are_put_together_bit_by_bit(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evidence_queries, "HOURS_AT_ONCE", 1)
    for hour in (ONE, TWO):
        await store.append_evidence([Evidence(A, "late", hour, 1), Evidence(A, "late", hour, 1)])
    assert [await store.merge_evidence(before=THREE) for _ in range(3)] == [1, 1, 0]


async def test_many_volunteers_are_put_together_some_at_a_time(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evidence_queries, "PEERS_AT_ONCE", 2)
    peers = [PeerId(letter * 16) for letter in "abcde"]
    for _ in range(2):
        await store.append_evidence([Evidence(peer, "late", ONE, 1) for peer in peers])
    await store.merge_evidence(before=TWO)
    assert [(row[0], row[3]) for row in await rows(store)] == [(peer, 2) for peer in peers]


async def test_old_evidence_is_removed(store: Store) -> None:
    await store.append_evidence([Evidence(A, "late", hour, 1) for hour in (ONE, TWO, THREE)])
    assert await store.remove_evidence(before=TWO) == 1
    assert [one.hour for one in merged(await store.evidence_of([A], since=0))] == [TWO, THREE]
