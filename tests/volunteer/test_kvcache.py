"""The account is exact: what is booked is what is held, and nothing is left when all have gone."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schema.errors import KVCacheFull
from schema.ids import SessionId
from volunteer.kvcache import KEPT_SECONDS, KVAccount

A, B, C, D = (SessionId(letter * 16) for letter in (b"a", b"b", b"c", b"d"))


def test_growing_books_bytes() -> None:
    account = KVAccount(100)
    account.grow(A, 30, 0.0)
    account.grow(A, 20, 1.0)
    account.grow(B, 10, 1.0)
    assert (account.held(A), account.held(B), account.used, len(account)) == (50, 10, 60, 2)


def test_growing_to_the_last_byte_is_allowed() -> None:
    account = KVAccount(100)
    account.grow(A, 100, 0.0)
    assert account.used == account.capacity


def test_growing_beyond_the_capacity_is_refused_and_changes_nothing() -> None:
    account = KVAccount(100)
    account.grow(A, 60, 0.0)
    with pytest.raises(KVCacheFull) as refusal:
        account.grow(B, 41, 0.0)
    assert (account.used, account.held(B), len(account)) == (60, 0, 1)
    assert refusal.value.retry_after is not None


def test_what_is_kept_goes_the_least_recently_used_first() -> None:
    account = KVAccount(100, kept_share=1.0)
    for name in (A, B, C):
        account.grow(name, 30, 0.0)
        assert account.keep(name, 0.0) == []
    account.wake(A, 1.0)
    assert account.keep(A, 1.0) == []
    assert account.grow(D, 40, 2.0) == [B]
    assert (account.used, account.kept, len(account)) == (100, 60, 1)
    with pytest.raises(KVCacheFull):
        account.grow(D, 61, 2.0)
    assert (account.used, account.kept) == (100, 60)
    assert account.grow(D, 60, 2.0) == [C, A]
    assert (account.used, account.kept) == (100, 0)


def test_what_is_in_use_is_not_evicted() -> None:
    account = KVAccount(100, kept_share=1.0)
    account.grow(A, 60, 0.0)
    account.keep(A, 0.0)
    account.wake(A, 0.0)
    assert account.evict() is None
    with pytest.raises(KVCacheFull):
        account.grow(B, 60, 0.0)


def test_no_more_is_kept_than_its_share() -> None:
    account = KVAccount(100, kept_share=0.5)
    for name, size in ((A, 30), (B, 30), (C, 40)):
        account.grow(name, size, 0.0)
    assert (account.keep(A, 0.0), account.keep(B, 0.0)) == ([], [A])
    assert account.keep(C, 0.0) == [B]
    assert (account.used, account.kept, account.release(C)) == (40, 40, 40)
    assert (account.used, account.kept) == (0, 0)


def test_what_is_kept_has_a_time_of_its_own() -> None:
    account = KVAccount(100, idle_seconds=10 * KEPT_SECONDS)
    account.grow(A, 10, 0.0)
    account.grow(B, 10, 0.0)
    account.keep(A, 0.0)
    assert account.expire(KEPT_SECONDS) == []
    assert account.expire(KEPT_SECONDS + 1) == [A]
    assert (account.used, account.kept) == (10, 0)


def test_settling_corrects_the_estimate_both_ways() -> None:
    account = KVAccount(100)
    account.grow(A, 50, 0.0)
    account.settle(A, 44, 0.0)
    account.grow(B, 10, 0.0)
    account.settle(B, 12, 0.0)
    assert account.used == 56


def test_what_was_really_allocated_is_told_even_above_the_capacity() -> None:
    account = KVAccount(100)
    account.grow(A, 100, 0.0)
    account.settle(A, 104, 0.0)
    assert account.used == 104
    with pytest.raises(KVCacheFull):
        account.grow(B, 1, 0.0)


def test_releasing_gives_everything_back_once() -> None:
    account = KVAccount(100)
    account.grow(A, 50, 0.0)
    assert account.release(A) == 50
    assert account.release(A) == 0
    assert (account.used, len(account)) == (0, 0)


def test_only_sessions_idle_for_longer_than_the_limit_expire() -> None:
    account = KVAccount(100, idle_seconds=10.0)
    account.grow(A, 20, 0.0)
    account.grow(B, 30, 5.0)
    assert account.expire(10.0) == []
    assert account.expire(10.1) == [A]
    assert account.used == 30


def test_use_postpones_expiry() -> None:
    account = KVAccount(100, idle_seconds=10.0)
    account.grow(A, 20, 0.0)
    account.grow(B, 20, 1.0)
    account.settle(A, 20, 9.0)
    assert account.expire(12.0) == [B]


@settings(max_examples=20, deadline=None)
@given(seed=st.integers())
def test_thousands_of_random_operations_end_at_zero(seed: int) -> None:
    rng = random.Random(seed)
    account = KVAccount(10_000, idle_seconds=50.0)
    held: dict[SessionId, int] = {}
    now = 0.0
    for _ in range(3000):
        now += rng.random()
        session = SessionId(rng.randrange(40).to_bytes(16, "big"))
        match rng.choice(["grow", "grow", "settle", "release", "expire"]):
            case "grow":
                extra = rng.randrange(800)
                try:
                    account.grow(session, extra, now)
                    held[session] = held.get(session, 0) + extra
                except KVCacheFull:
                    assert sum(held.values()) + extra > account.capacity
            case "settle" if session in held:
                held[session] = rng.randrange(held[session] + 1)
                account.settle(session, held[session], now)
            case "release":
                assert account.release(session) == held.pop(session, 0)
            case _:
                for gone in account.expire(now):
                    del held[gone]
        assert account.used == sum(held.values()) <= account.capacity
        assert len(account) == len(held)
    account.expire(now + 51.0)
    assert (account.used, len(account)) == (0, 0)
