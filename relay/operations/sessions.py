"""`/api/session`: a page's sign-in. The handlers are in relay/sessions.py."""

from relay.openapi import Answer, Operation
from schema.errors import Forbidden, Unauthorized, Unavailable
from schema.session import SessionAccess, SignIn

_TAG = "Sign-in of pages"
_PATH = "/api/session"
_COOKIE = (("Set-Cookie", "`corolla_session`, which scripts cannot read."),)

SESSIONS: tuple[Operation, ...] = (
    Operation(
        method="GET",
        path=_PATH,
        tag=_TAG,
        summary="Whether one is signed in",
        access="everyone",
        answers=(Answer(meaning="What this browser may do.", shape=SessionAccess),),
        errors=(Unavailable,),
    ),
    Operation(
        method="POST",
        path=_PATH,
        tag=_TAG,
        summary="Sign in with a client's or an admin's token",
        access="everyone",
        body=SignIn,
        answers=(Answer(meaning="Signed in.", status=204, media="", headers=_COOKIE),),
        errors=(Unauthorized, Forbidden, Unavailable),
    ),
    Operation(
        method="DELETE",
        path=_PATH,
        tag=_TAG,
        summary="Sign out",
        access="everyone",
        answers=(Answer(meaning="Signed out.", status=204, media="", headers=_COOKIE),),
        errors=(Forbidden,),
    ),
)
