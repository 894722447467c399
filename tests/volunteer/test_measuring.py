"""What is measured of a real tiny span, what is left out, and that it makes way."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from corolla.models.facts import ModelFacts, describe
from corolla.models.source import ModelSource
from tests.corolla.tiny_text import SHAPE, TinyLlama
from tests.volunteer.tiny import CONTEXT, tiny_facts, tiny_source, tiny_span
from volunteer import measuring
from volunteer.kvcache import KVAccount
from volunteer.measuring import (
    BATCHES,
    CONTEXTS,
    MAX_RUNS,
    MIN_RUNS,
    PARTS,
    WARMUP_RUNS,
    Measurement,
    timed_runs,
)
from volunteer.noise import Noise
from volunteer.stage import Stage
from volunteer.throughput import UNMEASURED, Spread, Table

GB = 10**9


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> ModelSource:
    torch.set_num_threads(1)
    return tiny_source(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """However slow this machine is, nothing is left out for want of time; and little is measured often."""
    monkeypatch.setattr(measuring, "TABLE_SECONDS", 1e9)
    monkeypatch.setattr(measuring, "MOST_RUN_SECONDS", 1e9)
    monkeypatch.setattr(measuring, "FIRST_SECONDS", 0.0)
    monkeypatch.setattr(measuring, "CELL_SECONDS", 0.0)


def measured(source: ModelSource, capacity: int = GB, facts: ModelFacts | None = None) -> Measurement:
    stage = Stage(tiny_span(source), tiny_facts(source), KVAccount(capacity))
    return Measurement(Noise(stage, facts or tiny_facts(source), torch.float32))


def never() -> bool:
    return False


def whole(measurement: Measurement) -> Table:
    measurement.begin()
    assert measurement.go_on(never)
    return measurement.table


def spreads(table: Table) -> list[Spread]:
    return [*(step.seconds for step in table.decode), *(part.seconds for part in table.prefill)]


def steps(table: Table) -> list[tuple[int, int]]:
    return [(step.batch, step.context) for step in table.decode]


def parts(table: Table) -> list[int]:
    return [part.tokens for part in table.prefill]


class TestATable:
    @pytest.mark.usefixtures("patient")
    def test_has_batches_contexts_and_parts_with_their_spread(self, llama: TinyLlama) -> None:
        facts = describe(llama.source, torch.float32)
        assert facts.block_count == SHAPE.blocks
        stage = Stage(tiny_span(llama.source, 1, 3), facts, KVAccount(GB))
        table = whole(Measurement(Noise(stage, facts, torch.float32)))
        assert steps(table) == [(batch, context) for context in CONTEXTS for batch in BATCHES]
        assert parts(table) == list(PARTS)
        for one in spreads(table):
            assert 0 < one.low <= one.median <= one.high
            assert one.runs == MIN_RUNS
        assert (stage.sessions, stage.kv_used) == (0, 0)

    def test_begins_with_what_the_swarm_is_told(self, source: ModelSource) -> None:
        measurement = measured(source)
        measurement.begin()
        assert steps(measurement.table) == [(1, 0)]
        assert 0 < measurement.table.throughput.slow <= measurement.table.throughput.fast

    @pytest.mark.usefixtures("patient")
    def test_leaves_out_positions_that_the_model_does_not_have(self, source: ModelSource) -> None:
        table = whole(measured(source))
        assert steps(table) == [(batch, 0) for batch in BATCHES]
        assert parts(table) == [tokens for tokens in PARTS if tokens <= CONTEXT]

    @pytest.mark.usefixtures("patient")
    def test_leaves_out_what_has_no_memory(self, source: ModelSource) -> None:
        facts = tiny_facts(source)
        capacity = 5 * 64 * sum(facts.kv_bytes_per_token)  # a room of the least size for each of five
        table = whole(measured(source, capacity))
        assert steps(table) == [(1, 0), (2, 0), (4, 0)]

    def test_of_a_span_without_any_memory_is_empty(self, source: ModelSource) -> None:
        table = whole(measured(source, capacity=0))
        assert (table, table.throughput) == (Table(), UNMEASURED)

    def test_leaves_out_all_but_the_first_figure_where_that_takes_too_long(
        self, source: ModelSource, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(measuring, "FIRST_SECONDS", 0.0)
        monkeypatch.setattr(measuring, "TABLE_SECONDS", 1e-9)
        measurement = measured(source)
        assert measurement.go_on(never)
        assert steps(measurement.table) == [(1, 0)]

    def test_leaves_out_what_would_keep_others_waiting(
        self, source: ModelSource, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(measuring, "FIRST_SECONDS", 0.0)
        monkeypatch.setattr(measuring, "MOST_RUN_SECONDS", 1e-9)
        table = whole(measured(source))
        assert (steps(table), parts(table)) == ([(1, 0)], [])

    @pytest.mark.usefixtures("patient")
    def test_of_sequences_that_cannot_go_back_is_measured_with_new_ones(self, source: ModelSource) -> None:
        facts = replace(tiny_facts(source), can_roll_back=False)
        assert steps(whole(measured(source, facts=facts))) == [(batch, 0) for batch in BATCHES]


@pytest.mark.usefixtures("patient")
class TestMakingWay:
    def test_ends_it_before_the_next_run(self, source: ModelSource) -> None:
        measurement = measured(source)
        measurement.begin()
        assert not measurement.go_on(lambda: True)
        assert steps(measurement.table) == [(1, 0)]

    def test_at_any_time_costs_nothing_that_was_measured(self, source: ModelSource) -> None:
        stage = Stage(tiny_span(source), tiny_facts(source), KVAccount(GB))
        measurement = Measurement(Noise(stage, tiny_facts(source), torch.float32))
        interruptions = 0
        while not measurement.go_on(wanted_after(WARMUP_RUNS + MIN_RUNS + interruptions % 2)):
            interruptions += 1
            assert (stage.sessions, stage.kv_used) == (0, 0)
        assert interruptions >= len(BATCHES) - 1
        assert steps(measurement.table) == [(batch, 0) for batch in BATCHES]

    def test_before_the_first_figure_leaves_that_for_later(self, source: ModelSource) -> None:
        measurement = measured(source)
        assert not measurement.go_on(lambda: True)
        assert measurement.table == Table()
        assert measurement.go_on(never)
        assert (1, 0) in steps(measurement.table)


def wanted_after(runs: int) -> Callable[[], bool]:
    left = runs

    def is_wanted() -> bool:
        nonlocal left
        left -= 1
        return left < 0

    return is_wanted


class TestRuns:
    def test_of_something_slow_are_a_few(self) -> None:
        assert timed_runs(lambda: 100.0, WARMUP_RUNS, MAX_RUNS, seconds=0.1) == [100.0] * MIN_RUNS

    def test_of_something_fast_are_not_endless(self) -> None:
        assert len(timed_runs(lambda: 1e-9, WARMUP_RUNS, MAX_RUNS, seconds=60.0)) == MAX_RUNS

    def test_to_warm_up_do_not_count(self) -> None:
        times = iter([9.0, 9.0, 9.0, *[0.5] * 10])
        assert set(timed_runs(lambda: next(times), WARMUP_RUNS, MAX_RUNS, seconds=3.0)) == {0.5}
