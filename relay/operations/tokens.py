"""`/api/tokens`: access tokens, one's own and those that it has made. Handlers: relay/tokens_api.py."""

from relay.openapi import Answer, Operation
from schema.errors import InvalidRequest, NotFound, QuotaExceeded, TooManyRequests
from schema.tokens import (
    MadeToken,
    NewToken,
    TokenChange,
    TokenInfo,
    TokenList,
    TokenQuery,
    TokenUsage,
    UsageQuery,
)

_TAG = "Tokens"
_ID = (("id", "The token's id, as `GET /api/tokens` tells it."),)

TOKENS: tuple[Operation, ...] = (
    Operation(
        method="GET",
        path="/api/tokens",
        tag=_TAG,
        summary="The tokens that one's own has made",
        description="For an admin's token: all.",
        access="holder",
        query=TokenQuery,
        answers=(Answer(meaning="A page, without secrets.", shape=TokenList),),
        errors=(NotFound,),
    ),
    Operation(
        method="POST",
        path="/api/tokens",
        tag=_TAG,
        summary="Make a token",
        description="A client's token makes clients' keys of its own, which end with it, and, where the "
        "relay lets it (`OPEN_JOIN`), tokens of volunteers; these nobody has to be signed in for where the "
        "relay is open. What keys use counts as its own too. An admin's token makes all kinds, and they are "
        "nobody's. A token that a client's has made makes none.",
        access="viewer",
        body=NewToken,
        example={"kind": "client", "name": "notebook", "tokens_a_day": 100_000},
        answers=(Answer(meaning="The token, with its secret.", status=201, shape=MadeToken),),
        errors=(QuotaExceeded, TooManyRequests),
    ),
    Operation(
        method="GET",
        path="/api/tokens/me",
        tag=_TAG,
        summary="The token itself that asks",
        access="holder",
        answers=(Answer(meaning="Without its secret.", shape=TokenInfo),),
    ),
    Operation(
        method="GET",
        path="/api/tokens/me/usage",
        tag=_TAG,
        summary="What its replies took, by day and model",
        access="holder",
        query=UsageQuery,
        answers=(Answer(meaning="The sums, and each day's.", shape=TokenUsage),),
    ),
    Operation(
        method="GET",
        path="/api/tokens/{id}",
        tag=_TAG,
        summary="A token that one's own has made",
        description="For an admin's token: any. So for all of these paths.",
        access="holder",
        in_path=_ID,
        answers=(Answer(meaning="Without its secret.", shape=TokenInfo),),
        errors=(NotFound,),
    ),
    Operation(
        method="PATCH",
        path="/api/tokens/{id}",
        tag=_TAG,
        summary="Change its name or its limits",
        access="holder",
        in_path=_ID,
        body=TokenChange,
        example={"tokens_a_day": 200_000, "expires_at": None},
        answers=(Answer(meaning="As it is now.", shape=TokenInfo),),
        errors=(NotFound,),
    ),
    Operation(
        method="DELETE",
        path="/api/tokens/{id}",
        tag=_TAG,
        summary="Revoke it, and all that it has made",
        description="Their connections are closed within seconds.",
        access="holder",
        in_path=_ID,
        answers=(Answer(meaning="It is refused from now on.", shape=TokenInfo),),
        errors=(NotFound,),
    ),
    Operation(
        method="GET",
        path="/api/tokens/{id}/usage",
        tag=_TAG,
        summary="What its replies took, by day and model",
        access="holder",
        in_path=_ID,
        query=UsageQuery,
        answers=(Answer(meaning="The sums, and each day's.", shape=TokenUsage),),
        errors=(NotFound, InvalidRequest),
    ),
)
