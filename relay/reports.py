"""A volunteer's score with its evidence, as people are shown it: the body of `GET /api/volunteers/{id}`.

Pure: evidence in, shapes of schema/swarm.py out.
"""

from collections.abc import Sequence

from msgspec import UNSET

from relay.records import Evidence
from relay.reputation import PRIOR_SCORE, Part, merged, project
from schema.ids import PeerId
from schema.swarm import EvidenceOfHour, EvidenceOfKind, VolunteerReport, VolunteerStatus

MAX_HOURS = 500
"""Rows of single hours that are shown, the newest."""
NO_VOLUNTEER = (
    "no volunteer {0!r} is connected, and nothing was seen of one: GET /api/swarm shows who is there, by id"
)


def report(
    peer: PeerId, evidence: Sequence[Evidence], now: float, here: VolunteerStatus | None = None
) -> VolunteerReport:
    """What is known of a volunteer. `here`: what it does now, where it is connected."""
    projection = project(evidence, now)
    hours = merged(evidence)[::-1][:MAX_HOURS]
    return VolunteerReport(
        id=peer,
        score=round(projection.score, 3),
        prior=PRIOR_SCORE,
        good=round(projection.good, 3),
        bad=round(projection.bad, 3),
        kinds=[_of_kind(part) for part in projection.parts],
        hours=[
            EvidenceOfHour(hour=one.hour, kind=one.kind, count=one.count, worst=one.worst or UNSET)
            for one in hours
        ],
        volunteer=UNSET if here is None else here,
    )


def _of_kind(part: Part) -> EvidenceOfKind:
    return EvidenceOfKind(
        kind=part.kind,
        count=part.count,
        good=round(part.good, 3),
        bad=round(part.bad, 3),
        since=part.since,
        until=part.until,
        worst=part.worst or UNSET,
    )
