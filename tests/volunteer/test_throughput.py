"""What can be read off a table of measured seconds, and what it does not say."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from volunteer.throughput import (
    CONTEXT_MARGIN,
    DECILE_RUNS,
    UNMEASURED,
    DecodeStep,
    PromptPart,
    Spread,
    Table,
    Throughput,
)


def seconds(median: float) -> Spread:
    return Spread(median=median, low=median / 2, high=median * 2, runs=5)


def table() -> Table:
    steps = [(1, 0, 0.001), (4, 0, 0.004), (1, 1000, 0.003), (4, 1000, 0.008)]
    return Table(
        decode=tuple(DecodeStep(batch=b, context=c, seconds=seconds(s)) for b, c, s in steps),
        prefill=(PromptPart(tokens=32, seconds=seconds(0.01)), PromptPart(tokens=128, seconds=seconds(0.04))),
    )


class TestASpread:
    @given(st.lists(st.floats(1e-7, 1e3), min_size=2, max_size=40), st.integers(1, 100))
    def test_has_its_median_between_low_and_high(self, times: list[float], blocks: int) -> None:
        spread = Spread.of(times, blocks)
        assert min(times) / blocks <= spread.low <= spread.median <= spread.high <= max(times) / blocks
        assert spread.runs == len(times)

    def test_of_few_runs_has_all_of_them(self) -> None:
        assert Spread.of([2.0, 4.0, 8.0], 2) == Spread(median=2.0, low=1.0, high=4.0, runs=3)

    def test_of_many_leaves_out_what_is_rare(self) -> None:
        spread = Spread.of([1.0] * (2 * DECILE_RUNS) + [100.0], 1)
        assert (spread.low, spread.median, spread.high) == (1.0, 1.0, 1.0)

    @pytest.mark.parametrize(("low", "median", "high"), [(2.0, 1.0, 3.0), (1.0, 3.0, 2.0)])
    def test_in_another_order_is_none(self, low: float, median: float, high: float) -> None:
        with pytest.raises(ValueError, match="between"):
            Spread(median=median, low=low, high=high, runs=2)


class TestATable:
    def test_tells_the_speed_of_one_session_at_its_beginning(self) -> None:
        assert table().throughput == Throughput(1000.0, slow=500.0, fast=2000.0)
        assert str(table().throughput) == "1000 blocks/s (500 to 2000)"

    def test_without_that_says_that_it_was_not_measured(self) -> None:
        assert Table().throughput == UNMEASURED
        several = DecodeStep(batch=2, context=0, seconds=seconds(1.0))
        assert Table(decode=(several,)).throughput == UNMEASURED

    @pytest.mark.parametrize(
        ("batch", "context", "due"),
        [(1, 0, 0.001), (4, 1000, 0.008), (2, 0, 0.002), (1, 500, 0.002), (1, 1000 + CONTEXT_MARGIN, 0.003)],
    )
    def test_is_read_between_what_was_measured(self, batch: int, context: float, due: float) -> None:
        assert table().decode_seconds(batch, context) == pytest.approx(due)

    @pytest.mark.parametrize(("batch", "context"), [(5, 0), (1, 1001 + CONTEXT_MARGIN), (8, 5000)])
    def test_says_nothing_beyond_it(self, batch: int, context: float) -> None:
        assert table().decode_seconds(batch, context) is None

    def test_is_read_by_the_tokens_of_a_part(self) -> None:
        assert table().prefill_seconds(80) == pytest.approx(0.025)
        assert (table().prefill_seconds(31), table().prefill_seconds(129)) == (None, None)

    def test_of_nothing_says_nothing(self) -> None:
        assert (Table().decode_seconds(1, 0), Table().prefill_seconds(32), Table().lines()) == (
            None,
            None,
            [],
        )

    def test_has_a_line_for_each_thing(self) -> None:
        lines = table().lines()
        assert lines[1] == "decode, 4 at once after 0 tokens: 1000 blocks/s (500 to 2000, 5 runs)"
        assert lines[4] == "prefill, 32 tokens at once: 3200 blocks/s (1600 to 6400, 5 runs)"
        assert len(lines) == 6

    def test_outlives_being_written_down(self) -> None:
        assert msgspec.json.decode(msgspec.json.encode(table()), type=Table) == table()
