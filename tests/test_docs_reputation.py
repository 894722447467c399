"""docs/reputation.md: what every kind of evidence counts, every field that is shown, every metric."""

import re
from pathlib import Path
from typing import get_args

import msgspec
import pytest

from relay.metrics import Metrics
from relay.outcomes import MAX_KEPT, Outcomes
from relay.reputation import BAD_HALF_LIFE, GOOD_HALF_LIFE, HOUR, KINDS, PRIOR_BAD, PRIOR_GOOD, PRIOR_SCORE
from relay.standings import KEEP_SECONDS
from schema.swarm import EvidenceKind, EvidenceOfHour, EvidenceOfKind, VolunteerReport

PAGE = (Path(__file__).parent.parent / "docs/reputation.md").read_text(encoding="utf-8")
ROWS = {
    cells[0]: cells[1:]
    for line in PAGE.splitlines()
    if len(cells := [cell.strip() for cell in line.strip("|").split("|")]) >= 2
}


@pytest.mark.parametrize("kind", get_args(EvidenceKind))
def test_every_kind_has_a_row_with_what_it_counts(kind: EvidenceKind) -> None:
    weight = KINDS[kind]
    figures = [f"{value:g}" for value in (weight.good, weight.bad, weight.per, weight.most)]
    assert ROWS[f"`{kind}`"][:4] == figures


def test_every_metric_has_a_row() -> None:
    before, metrics = Metrics().render().decode(), Metrics()
    metrics.watch_outcomes(Outcomes())
    made = {
        line.split()[2]
        for line in metrics.render().decode().splitlines()
        if line.startswith("# TYPE") and line not in before
    }
    assert made == {"corolla_outcomes_total", "corolla_outcomes_dropped_total", "corolla_evidence_waiting"}
    assert {name.partition("{")[0].strip("`") for name in ROWS if name.startswith("`corolla_")} == made


@pytest.mark.parametrize("kind", [VolunteerReport, EvidenceOfKind, EvidenceOfHour])
def test_every_field_that_is_shown_is_told(kind: type[msgspec.Struct]) -> None:
    told = set(
        re.findall(r"`(\w+)`", "\n".join(line for line in PAGE.splitlines() if line.startswith("| `")))
    )
    assert {field.encode_name for field in msgspec.structs.fields(kind)} <= told


def test_the_figures_in_the_text_are_those_of_the_code() -> None:
    for words in (
        f"good = {PRIOR_GOOD:g} + samples for it,     each halved every {GOOD_HALF_LIFE / HOUR:g} hours",
        f"bad  = {PRIOR_BAD:g} + samples against it, each halved every {BAD_HALF_LIFE / HOUR:g} hours",
        f"a newcomer has {PRIOR_SCORE:g}",
        f"older than {KEEP_SECONDS / HOUR / 24:g} days",
        f"up to {MAX_KEPT:,} of them wait",
    ):
        assert words in PAGE
