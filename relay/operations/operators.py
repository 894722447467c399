"""What operators see and decide. The handlers are in relay/operators_api.py."""

from relay.openapi import Answer, Operation
from schema.errors import NotFound
from schema.operators import AdminVolunteer, AdminVolunteerPage, Decision, QuarantineInfo
from schema.overview import VolunteerQuery

_TAG = "Operators"
_ID = (("id", "The volunteer's id, as `GET /api/volunteers` tells it."),)
_EXAMPLE = {"reason": "its replies are nonsense"}

OPERATORS: tuple[Operation, ...] = (
    Operation(
        method="POST",
        path="/api/volunteers/{id}/quarantine",
        tag=_TAG,
        summary="Keep a volunteer out of routes",
        description="On every replica within seconds. It keeps its connection, serves what it has begun, is "
        "shown as `quarantined`, and its owner is told the reason. One that is kept out has the new reason.",
        access="admin",
        in_path=_ID,
        body=Decision,
        example=_EXAMPLE,
        answers=(Answer(meaning="It is kept out.", shape=QuarantineInfo),),
        errors=(NotFound,),
    ),
    Operation(
        method="POST",
        path="/api/volunteers/{id}/restore",
        tag=_TAG,
        summary="Let it be in routes again",
        access="admin",
        in_path=_ID,
        body=Decision,
        example={"reason": "its memory was replaced"},
        answers=(Answer(meaning="The quarantine that is over.", shape=QuarantineInfo),),
        errors=(NotFound,),
    ),
    Operation(
        method="GET",
        path="/api/admin/volunteers",
        tag=_TAG,
        summary="The volunteers, with their tokens and quarantines",
        access="admin",
        query=VolunteerQuery,
        answers=(Answer(meaning="A page.", shape=AdminVolunteerPage),),
    ),
    Operation(
        method="GET",
        path="/api/admin/volunteers/{id}",
        tag=_TAG,
        summary="One of them, with all its quarantines",
        access="admin",
        in_path=_ID,
        answers=(Answer(meaning="The volunteer.", shape=AdminVolunteer),),
        errors=(NotFound,),
    ),
)
