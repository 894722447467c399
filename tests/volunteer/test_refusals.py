"""The owner of a volunteer can see in its log how many steps were not computed, and why."""

import asyncio
from collections import Counter

import pytest

from volunteer import refusals as refusals_module
from volunteer.refusals import Refusals, telling

PATIENCE_SECONDS = 10.0


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.message for record in caplog.records]


def test_what_is_new_is_told_the_most_frequent_first(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    counted = Counter({"kv_cache_full": 1, "stale": 2, "idle": 0})
    refusals = Refusals(lambda: counted)
    refusals.tell()
    counted["kv_cache_full"] += 3
    refusals.tell()
    assert lines(caplog) == ["not computed: stale 2, kv_cache_full 1", "not computed: kv_cache_full 3"]


def test_nothing_new_is_not_told(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    counted = Counter({"stale": 2, "idle": 0})
    refusals = Refusals(lambda: counted)
    refusals.tell()
    refusals.tell()
    assert len(lines(caplog)) == 1


async def test_it_is_told_again_and_again_and_at_the_end(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    monkeypatch.setattr(refusals_module, "TELL_SECONDS", 0.001)
    counted, looks, third = Counter({"stale": 1}), 0, asyncio.Event()

    def count() -> Counter[str]:
        nonlocal looks
        looks += 1
        if looks == 3:
            third.set()
        return counted.copy()

    async with telling(Refusals(count)):
        await asyncio.wait_for(third.wait(), PATIENCE_SECONDS)
        monkeypatch.setattr(refusals_module, "TELL_SECONDS", 1000.0)
        counted["not_serving"] += 1
    assert lines(caplog) == ["not computed: stale 1", "not computed: not_serving 1"]
