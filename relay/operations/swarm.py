"""`/api`: the swarm as people see it. The handlers are in relay/swarm_api.py and relay/events.py."""

from relay.openapi import Answer, Operation
from schema.errors import ModelUnavailable, NotFound, TooManyRequests
from schema.history import History, HistoryQuery, Leaderboard, LeaderboardQuery
from schema.overview import (
    ModelDetail,
    ModelDetails,
    RoutePreview,
    RouteQuery,
    SwarmEvent,
    VolunteerPage,
    VolunteerQuery,
)
from schema.swarm import SwarmStatus, VolunteerReport

_TAG = "Swarm"
_KNOWN = (("If-None-Match", "The `ETag` of an earlier answer."),)
_TAGGED = (("ETag", "Changes when the swarm does; figures of load alone do not change it."),)
_SAME = Answer(meaning="Nothing has changed since.", status=304, media="", headers=_TAGGED)

SWARM: tuple[Operation, ...] = (
    Operation(
        method="GET",
        path="/api/swarm",
        tag=_TAG,
        summary="Everything at one moment",
        access="viewer",
        headers=_KNOWN,
        answers=(Answer(meaning="Models and volunteers.", shape=SwarmStatus, headers=_TAGGED), _SAME),
    ),
    Operation(
        method="GET",
        path="/api/models",
        tag=_TAG,
        summary="Every model, with who holds what of it",
        description="And why it cannot answer: the blocks that are missing, and the memory that they take.",
        access="viewer",
        headers=_KNOWN,
        answers=(Answer(meaning="The models.", shape=ModelDetails, headers=_TAGGED), _SAME),
    ),
    Operation(
        method="GET",
        path="/api/models/{id}",
        tag=_TAG,
        summary="One model, with who holds what of it",
        access="viewer",
        in_path=(("id", "The model's name; it may contain slashes."),),
        headers=_KNOWN,
        answers=(Answer(meaning="The model.", shape=ModelDetail, headers=_TAGGED), _SAME),
        errors=(NotFound,),
    ),
    Operation(
        method="GET",
        path="/api/volunteers",
        tag=_TAG,
        summary="The volunteers, page by page",
        description="By id. One that joins or leaves between two pages moves no other.",
        access="viewer",
        query=VolunteerQuery,
        headers=_KNOWN,
        answers=(Answer(meaning="A page.", shape=VolunteerPage, headers=_TAGGED), _SAME),
    ),
    Operation(
        method="GET",
        path="/api/volunteers/{id}",
        tag=_TAG,
        summary="A volunteer's score, and why",
        access="viewer",
        in_path=(("id", "The volunteer's id, as `GET /api/volunteers` tells it."),),
        answers=(
            Answer(
                meaning="Its score with the evidence for it, and what it has done.", shape=VolunteerReport
            ),
        ),
        errors=(NotFound,),
    ),
    Operation(
        method="GET",
        path="/api/route",
        tag=_TAG,
        summary="Which way a session would take now, and what a step takes",
        access="viewer",
        query=RouteQuery,
        answers=(Answer(meaning="The way.", shape=RoutePreview),),
        errors=(NotFound, ModelUnavailable),
    ),
    Operation(
        method="GET",
        path="/api/events",
        tag=_TAG,
        summary="What changes, as it does",
        description="The whole swarm first. Figures of load and progress are no change. The stream ends when "
        "the relay stops; then ask again.",
        access="viewer",
        answers=(
            Answer(
                meaning="Server-sent events, and a comment when nothing changes for a while. `event: error` "
                "with an error's body comes last where the token was revoked.",
                shape=SwarmEvent,
                media="text/event-stream",
            ),
        ),
        errors=(TooManyRequests,),
    ),
    Operation(
        method="GET",
        path="/api/leaderboard",
        tag=_TAG,
        summary="The volunteers that have done most for others",
        description="Added up twice a minute.",
        access="viewer",
        query=LeaderboardQuery,
        headers=_KNOWN,
        answers=(
            Answer(
                meaning="At most a hundred of them.",
                shape=Leaderboard,
                headers=(("ETag", "Changes when it is added up anew; scores alone do not change it."),),
            ),
            _SAME,
        ),
    ),
    Operation(
        method="GET",
        path="/api/history",
        tag=_TAG,
        summary="The last minutes: what replies were like, and what happened with volunteers",
        description="What the replica that answers has seen, kept in memory for a day.",
        access="viewer",
        query=HistoryQuery,
        headers=_KNOWN,
        answers=(
            Answer(
                meaning="Minutes and events.",
                shape=History,
                headers=(("ETag", "Changes with every minute, reply and event."),),
            ),
            _SAME,
        ),
    ),
)
