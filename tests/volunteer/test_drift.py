"""When real work counts as off what was measured, and that it does so once."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schema.errors import NotServing
from schema.frames import FrameType
from schema.ids import SessionId, Span
from volunteer.drift import FACTOR, RECENT_RUNS, Drift, Run, run_of
from volunteer.throughput import DecodeStep, PromptPart, Spread, Table
from volunteer.work import Result, Work

BLOCKS = 4
SPAN = Span(0, BLOCKS)
DUE = 0.01
"""Seconds of a step through a block, however many sequences take part."""


def spread(seconds: float) -> Spread:
    return Spread(median=seconds, low=seconds, high=seconds, runs=4)


def table(seconds: float = DUE) -> Table:
    steps = [DecodeStep(batch=batch, context=0, seconds=spread(seconds)) for batch in (1, 2, 4)]
    parts = [PromptPart(tokens=tokens, seconds=spread(seconds)) for tokens in (32, 128)]
    return Table(decode=tuple(steps), prefill=tuple(parts))


def step(ratio: float, tokens: int = 1, context: float = 0.0) -> Run:
    return Run(True, tokens, context, ratio * DUE * BLOCKS)


def part(ratio: float, tokens: int = 64) -> Run:
    return Run(False, tokens, 0.0, ratio * DUE * BLOCKS)


def after(*runs: Run, times: int = RECENT_RUNS) -> Drift:
    drift = Drift(table(), BLOCKS)
    feed(drift, *runs, times=times)
    return drift


def feed(drift: Drift, *runs: Run, times: int = RECENT_RUNS) -> None:
    for _ in range(times):
        for run in runs:
            drift.add(run)


class TestDrift:
    def test_of_nothing_is_none(self) -> None:
        assert Drift(table(), BLOCKS).find() is None

    @pytest.mark.parametrize("ratio", [1 / FACTOR + 0.01, 1.0, FACTOR - 0.01])
    def test_within_the_factor_is_none(self, ratio: float) -> None:
        assert after(step(ratio), part(ratio)).find() is None

    @pytest.mark.parametrize("ratio", [1 / FACTOR - 0.01, FACTOR + 0.01, 100.0])
    @pytest.mark.parametrize("make", [step, part])
    def test_beyond_it_is_found_either_way(self, make: Callable[[float], Run], ratio: float) -> None:
        finding = after(make(ratio)).find()
        assert finding is not None
        assert finding.ratio == pytest.approx(ratio)

    def test_names_what_is_furthest_off(self) -> None:
        finding = after(step(2.0), step(0.1, tokens=4), part(3.0)).find()
        assert (
            str(finding) == "decode steps of up to 4 tokens at once take 0.10 times as long as was measured"
        )

    def test_takes_many_runs(self) -> None:
        assert after(step(10.0), times=RECENT_RUNS - 1).find() is None

    def test_is_not_what_happens_now_and_then(self) -> None:
        assert after(step(1.0), step(1.0), step(50.0)).find() is None

    def test_forgets_what_is_long_ago(self) -> None:
        drift = after(step(10.0))
        feed(drift, step(1.0))
        assert drift.find() is None

    def test_is_not_judged_where_nothing_was_measured(self) -> None:
        assert after(step(10.0, tokens=8), step(10.0, context=5000.0), part(10.0, tokens=7)).find() is None

    @given(st.lists(st.tuples(st.booleans(), st.integers(1, 1 << 20), st.floats(0, 1e6)), max_size=100))
    def test_remembers_a_bounded_number(self, runs: list[tuple[bool, int, float]]) -> None:
        drift = Drift(table(), BLOCKS)
        for is_decode, tokens, context in runs:
            drift.add(Run(is_decode, tokens, context, 1.0))
        assert drift.find() is None


class TestANewMeasurement:
    def test_ends_the_drift_that_it_explains(self) -> None:
        drift = after(step(3.0))
        drift.measured(table(3 * DUE))
        feed(drift, step(3.0))
        assert drift.find() is None

    def test_that_says_the_same_is_not_asked_for_again(self) -> None:
        drift = after(step(3.0))
        drift.measured(table())
        feed(drift, step(3.0))
        assert drift.find() is None

    @pytest.mark.parametrize("ratio", [1.0, 3.0 * FACTOR + 0.1])
    def test_is_asked_for_again_when_work_moves_on(self, ratio: float) -> None:
        drift = after(step(3.0))
        drift.measured(table())
        feed(drift, step(ratio))
        assert drift.find() is not None
        drift.measured(table(ratio * DUE))
        feed(drift, step(ratio))
        assert drift.find() is None

    def test_takes_as_many_runs_as_before(self) -> None:
        drift = after(step(3.0))
        drift.measured(table(100 * DUE))
        assert drift.find() is None

    def test_that_was_accepted_of_one_size_stays_so_while_others_are_at_work(self) -> None:
        drift = after(step(2.0))
        findings = 0
        for phase in range(6):
            if drift.find() is not None:
                findings += 1
                drift.measured(table())
            feed(drift, step(2.0, tokens=1 + phase % 2))
        assert findings <= 2  # once for each size


def result(
    kind: FrameType = FrameType.STEP, position: int = 10, tokens: int = 0, error: NotServing | None = None
) -> Result:
    work = Work(kind, SessionId(b"s" * 16), 0, position, 0, SPAN, b"")
    return Result(work, error=error, tokens=tokens)


class TestABatch:
    def test_of_steps_is_a_run_of_as_many_tokens(self) -> None:
        assert run_of([result(position=10), result(position=20)], 0.5, SPAN) == Run(True, 2, 15.0, 0.5)

    def test_of_a_prompts_part_is_a_run_of_its_tokens(self) -> None:
        assert run_of([result(FrameType.PREFILL, 0, tokens=32)], 0.5, SPAN) == Run(False, 32, 0.0, 0.5)

    @pytest.mark.parametrize(
        "results",
        [
            [],
            [result(), result(FrameType.PREFILL, 0, tokens=32)],
            [result(FrameType.PREFILL, 512, tokens=32)],
            [result(position=0)],
            [result(FrameType.PROBE)],
            [result(), result(error=NotServing("gone"))],
        ],
    )
    def test_that_was_not_measured_so_is_no_run(self, results: list[Result]) -> None:
        assert run_of(results, 0.5, SPAN) is None

    def test_over_a_part_of_the_span_is_no_run(self) -> None:
        assert run_of([result()], 0.5, Span(0, BLOCKS + 1)) is None
