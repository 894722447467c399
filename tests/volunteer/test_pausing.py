"""When a volunteer pauses: the owner's word at once, load only when it lasts."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from volunteer.pausing import OWNER, Judge, Limits, Load, Pauser

LIMITS = Limits(percent=30, busy_seconds=6, quiet_seconds=60)
BUSY, QUIET = Load(80), Load(5)


def judged(*samples: tuple[float, Load]) -> list[bool]:
    """Whether the machine counted as busy after each sample."""
    judge, seen = Judge(LIMITS), list[bool]()
    for now, load in samples:
        judge.observe(load, now)
        seen.append(judge.is_busy)
    return seen


class TestTheJudge:
    def test_finds_a_machine_busy_only_when_it_lasts(self) -> None:
        assert judged((100, BUSY), (103, BUSY), (105.9, BUSY), (106, BUSY)) == [False, False, False, True]

    def test_forgives_what_passes(self) -> None:
        assert judged((0, BUSY), (5, BUSY), (7, QUIET), (8, BUSY), (13, BUSY), (14, BUSY)) == [
            *[False] * 5,
            True,
        ]

    def test_finds_it_quiet_only_when_it_stays_so(self) -> None:
        assert judged((0, BUSY), (6, BUSY), (8, QUIET), (67, QUIET), (68, QUIET)) == [
            *(False, True, True, True),
            False,
        ]

    def test_begins_anew_after_every_burst(self) -> None:
        assert judged(
            (0, BUSY), (6, BUSY), (8, QUIET), (60, BUSY), (62, QUIET), (121, QUIET), (122, QUIET)
        ) == [
            *(False, True, True, True, True, True),
            False,
        ]

    def test_takes_the_limit_itself_for_quiet(self) -> None:
        assert judged(*((now, Load(30)) for now in range(100))) == [False] * 100

    @pytest.mark.parametrize("load", [Load(80, 0), Load(0, 80)])
    def test_looks_at_either_processor(self, load: Load) -> None:
        assert judged((0, load), (6, load))[-1]

    @given(
        st.lists(
            st.tuples(st.floats(0.01, 50), st.floats(0, 100), st.floats(0, 100)), min_size=1, max_size=60
        )
    )
    def test_changes_only_after_samples_that_agree_for_long_enough(
        self, steps: list[tuple[float, float, float]]
    ) -> None:
        judge, now = Judge(LIMITS), 0.0
        samples: list[tuple[float, bool]] = []
        for passed, cpu, gpu in steps:
            now += passed
            before = judge.is_busy
            load = Load(cpu, gpu)
            samples.append((now, max(load) > LIMITS.percent))
            judge.observe(load, now)
            if judge.is_busy == before:
                continue
            patience = LIMITS.quiet_seconds if before else LIMITS.busy_seconds
            begun = [at for at, _ in samples if now - at >= patience][-1]
            assert {above for at, above in samples if at >= begun} == {judge.is_busy}


@pytest.fixture
def told() -> list[str | None]:
    return []


class TestAPauser:
    def test_does_what_its_owner_says_at_once(self, told: list[str | None]) -> None:
        pauser = Pauser(told.append)
        pauser.ask()
        pauser.release()
        assert told == [OWNER, None]

    def test_without_limits_does_not_mind_the_load(self, told: list[str | None]) -> None:
        pauser = Pauser(told.append)
        for now in range(100):
            pauser.observe(BUSY, now)
        assert told == []

    def test_tells_what_made_it_pause(self, told: list[str | None]) -> None:
        pauser = Pauser(told.append, LIMITS)
        for now in range(0, 20, 2):
            pauser.observe(Load(12.4, 81.6), now)
        for now in range(20, 120, 2):
            pauser.observe(QUIET, now)
        assert told == ["other programs use 82 % of the GPU", None]

    def test_goes_on_only_when_its_owner_says_so_where_the_owner_asked(self, told: list[str | None]) -> None:
        pauser = Pauser(told.append, LIMITS)
        pauser.ask()
        for now in range(0, 10, 2):
            pauser.observe(BUSY, now)
        for now in range(10, 200, 2):
            pauser.observe(QUIET, now)
        assert told[-1] == OWNER
        pauser.release()
        assert told[-1] is None

    def test_goes_on_when_its_owner_says_so_until_load_has_lasted_again(self, told: list[str | None]) -> None:
        pauser = Pauser(told.append, LIMITS)
        for now in range(0, 8, 2):
            pauser.observe(BUSY, now)
        assert told[-1] == "other programs use 80 % of the CPU"
        pauser.release()
        pauser.observe(BUSY, 8)
        pauser.observe(BUSY, 13)
        assert told[-1] is None
        pauser.observe(BUSY, 14)
        assert told[-1] == "other programs use 80 % of the CPU"
