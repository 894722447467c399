"""relay/reputation.py: the score that follows from evidence, whatever the evidence is."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.records import Evidence
from relay.reputation import HOUR, KINDS, PRIOR_SCORE, Standing, hour_of, project
from schema.ids import PeerId
from schema.swarm import EvidenceKind

PEER = PeerId("00000000000000aa")
NOW = 500_000 * HOUR
GOOD: list[EvidenceKind] = [kind for kind, weight in KINDS.items() if weight.good]
BAD: list[EvidenceKind] = [kind for kind, weight in KINDS.items() if weight.bad]
NEUTRAL: list[EvidenceKind] = [kind for kind, weight in KINDS.items() if not weight.good and not weight.bad]


def seen(kind: EvidenceKind, hours_ago: float = 0, count: int = 1) -> Evidence:
    return Evidence(PEER, kind, NOW - hours_ago * HOUR, count)


def evidence_of(*kinds: EvidenceKind) -> st.SearchStrategy[list[Evidence]]:
    piece = st.builds(seen, st.sampled_from(kinds), st.integers(0, 400), st.integers(1, 10**9))
    return st.lists(piece, max_size=30)


anything = evidence_of(*KINDS)


def score(evidence: list[Evidence], now: float = NOW) -> float:
    return project(evidence, now).score


# ---- any evidence ----


@given(anything, st.floats(0, 1000 * HOUR))
def test_a_score_is_between_0_and_1(evidence: list[Evidence], later: float) -> None:
    assert 0 < score(evidence, NOW + later) < 1


@given(anything, st.sampled_from(GOOD), st.integers(0, 400), st.integers(1, 10**6))
def test_what_speaks_for_a_volunteer_never_lowers_its_score(
    evidence: list[Evidence], kind: EvidenceKind, hours_ago: int, count: int
) -> None:
    assert score([*evidence, seen(kind, hours_ago, count)]) >= score(evidence)


@given(anything, st.sampled_from(BAD), st.integers(0, 400), st.integers(1, 10**6))
def test_what_speaks_against_it_never_raises_it(
    evidence: list[Evidence], kind: EvidenceKind, hours_ago: int, count: int
) -> None:
    assert score([*evidence, seen(kind, hours_ago, count)]) <= score(evidence)


@given(anything, st.sampled_from(NEUTRAL), st.integers(0, 400), st.integers(1, 10**6))
def test_what_is_only_noted_changes_nothing(
    evidence: list[Evidence], kind: EvidenceKind, hours_ago: int, count: int
) -> None:
    assert score([*evidence, seen(kind, hours_ago, count)]) == score(evidence)


@given(anything)
def test_everything_fades_to_a_newcomers_score(evidence: list[Evidence]) -> None:
    assert score(evidence, NOW + 60 * 24 * HOUR) == pytest.approx(PRIOR_SCORE, abs=1e-6)


@given(evidence_of(*BAD), st.floats(0, 500 * HOUR), st.floats(0, 500 * HOUR))
def test_without_new_evidence_a_bad_score_only_rises(
    evidence: list[Evidence], one: float, other: float
) -> None:
    sooner, later = sorted((one, other))
    assert score(evidence, NOW + sooner) <= score(evidence, NOW + later) <= PRIOR_SCORE


@given(evidence_of(*GOOD), st.floats(0, 500 * HOUR), st.floats(0, 500 * HOUR))
def test_and_a_good_one_only_falls(evidence: list[Evidence], one: float, other: float) -> None:
    sooner, later = sorted((one, other))
    assert score(evidence, NOW + sooner) >= score(evidence, NOW + later) >= PRIOR_SCORE


@given(anything, st.randoms())
def test_order_does_not_matter(evidence: list[Evidence], random) -> None:
    shuffled = list(evidence)
    random.shuffle(shuffled)
    assert score(shuffled) == pytest.approx(score(evidence), rel=1e-12)


@given(anything, st.integers(2, 5))
def test_nor_how_many_parts_an_hour_was_written_in(evidence: list[Evidence], parts: int) -> None:
    split = [
        dataclasses.replace(one, count=one.count // parts + (part < one.count % parts))
        for one in evidence
        for part in range(parts)
    ]
    assert score(split) == pytest.approx(score(evidence), rel=1e-12)


@given(anything, st.floats(0, 100 * HOUR))
def test_a_standing_gives_the_same_score(evidence: list[Evidence], later: float) -> None:
    now = NOW + later
    assert Standing.of(evidence).score(now) == pytest.approx(score(evidence, now), rel=1e-9)


@given(anything, st.lists(st.tuples(st.sampled_from(list(KINDS)), st.integers(0, 5)), max_size=10))
def test_and_goes_on_doing_so_as_things_happen(
    before: list[Evidence], happens: list[tuple[EvidenceKind, int]]
) -> None:
    standing, now, everything = Standing.of(before), NOW, list(before)
    for kind, hours in happens:
        now += hours * HOUR
        one = Evidence(PEER, kind, hour_of(now), 1)
        standing = standing.plus(one)
        everything.append(one)
    assert standing.score(now + 60) == pytest.approx(score(everything, now + 60), rel=1e-9)


def test_evidence_of_a_clock_that_is_ahead_is_new() -> None:
    assert score([seen("vanished", hours_ago=-1)]) == score([seen("vanished")])
    assert Standing.of([seen("vanished", hours_ago=-1)]).score(NOW) == score([seen("vanished")])


# ---- slow up, fast down ----


def test_a_newcomer_has_the_prior() -> None:
    assert score([]) == Standing().score(NOW) == PRIOR_SCORE == 0.75


@pytest.mark.parametrize("kind", BAD)
def test_one_bad_sample_never_bans(kind: EvidenceKind) -> None:
    assert 0.5 <= score([seen(kind)]) < PRIOR_SCORE


@given(evidence_of(*GOOD), st.sampled_from(["vanished", "malformed"]))
def test_a_good_hour_does_not_make_up_for_having_vanished(
    evidence: list[Evidence], kind: EvidenceKind
) -> None:
    hour = [seen("answered", count=10**6)]
    assert score([*evidence, seen(kind), *hour]) < score(evidence)


def test_the_way_up_takes_hours_and_the_way_down_one() -> None:
    def after(hours: int) -> list[Evidence]:
        return [seen("answered", hours_ago, 10**6) for hours_ago in range(hours)]

    assert score(after(1)) < 0.81
    assert score(after(24)) > 0.9
    proven = after(24)
    lost = score(proven) - score([*proven, seen("vanished")])
    gained = score(after(25)) - score(after(24))
    assert lost > 10 * gained


def test_whoever_vanishes_again_and_again_is_soon_at_the_bottom() -> None:
    proven = [seen("answered", hours_ago, 10**6) for hours_ago in range(3, 100)]
    flapping = [seen("vanished", hours_ago, 5) for hours_ago in range(3)]
    assert score(flapping) < 0.2
    assert score([*proven, *flapping]) < 0.5


@pytest.mark.parametrize("kind", KINDS)
def test_one_hour_counts_no_more_than_it_may(kind: EvidenceKind) -> None:
    weight = KINDS[kind]
    (part,) = project([seen(kind, count=10**12)], NOW).parts
    assert part.good + part.bad == pytest.approx((weight.good + weight.bad) * weight.most)


# ---- what it is made of ----


def test_a_projection_says_what_each_kind_adds() -> None:
    found = project(
        [seen("answered", 1, 500), seen("late", 0, 2), Evidence(PEER, "late", NOW - 24 * HOUR, 4, worst=7.5)],
        NOW,
    )
    answered, late = found.parts
    assert (answered.kind, answered.count, late.kind, late.count, late.worst) == (
        "answered",
        500,
        "late",
        6,
        7.5,
    )
    assert (late.since, late.until) == (NOW - 24 * HOUR, NOW)
    assert (answered.good, answered.bad, late.good) == (pytest.approx(0.5 ** (1 / 12)), 0, 0)
    assert late.bad == pytest.approx(2 * 0.25 + 4 * 0.25 / 2)
    assert found.score == pytest.approx(found.good / (found.good + found.bad))
    assert found.good == 3 + answered.good
    assert found.bad == 1 + late.bad
