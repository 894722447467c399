"""Access tokens as their holders and operators see them: bodies of `/api/tokens`.

Knows shapes only. A secret is in the answer that makes its token, and nowhere else.
"""

from typing import Annotated, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

from schema.credentials import TokenKind
from schema.messages import Name

MOST_TOKENS = 500
"""Of one answer."""
MOST_DAYS = 366
_LAST_TIME = 253_402_300_799.0
"""The last second of the year 9999: what people's calendars can show."""

TokenId = Annotated[str, Meta(pattern="^[0-9a-f]{12}$", max_length=12)]
RepliesAtOnce = Annotated[int, Meta(ge=1, le=100_000)]
TokensADay = Annotated[int, Meta(ge=1, le=2**53)]
Time = Annotated[float, Meta(gt=0.0, le=_LAST_TIME)]


class NewToken(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Body of `POST /api/tokens`: a token to be made. Limits that are left out, or null, are none."""

    kind: TokenKind
    name: Name = "unnamed"
    """Whose it is, or what for; only its holder and operators see it."""
    expires_at: Time | None = None
    """Unix seconds. One that another token makes ends with that one at the latest."""
    replies_at_once: RepliesAtOnce | None = None
    """Of a client's: replies that it may have made, or wait for, at once."""
    tokens_a_day: TokensADay | None = None
    """Of a client's: tokens that its replies may take in a day of UTC, prompts included."""


class TokenChange(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Body of `PATCH /api/tokens/{id}`: what is left out stays; a limit that is null goes."""

    name: Name | UnsetType = UNSET
    expires_at: Time | UnsetType | None = UNSET
    replies_at_once: RepliesAtOnce | UnsetType | None = UNSET
    tokens_a_day: TokensADay | UnsetType | None = UNSET


class TokenInfo(Struct, frozen=True, kw_only=True):
    """A token without its secret."""

    id: str
    kind: TokenKind
    name: str
    created_at: float
    """Unix seconds, as all times here."""
    last_used_at: float | None
    """To the hour; null when it was never used before."""
    parent: str | None = None
    """The token that has made it, with which it ends; null: the operator has."""
    revoked_at: float | None = None
    """Null: it is good, or has expired."""
    expires_at: float | None = None
    """Null: it is good until it is revoked."""
    replies_at_once: int | None = None
    """Null: as many as any token."""
    tokens_a_day: int | None = None
    """Null: any number."""


class MadeToken(TokenInfo, frozen=True, kw_only=True):
    """Answer of `POST /api/tokens`."""

    token: str
    """The token itself, with its secret. It is shown only now: keep it."""


class TokenQuery(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which tokens `GET /api/tokens` shows."""

    kind: TokenKind | UnsetType = UNSET
    """Only those of this kind."""
    show: Literal["good", "all"] = "good"
    """`all`: also those that were revoked or have expired."""
    limit: Annotated[int, Meta(ge=1, le=MOST_TOKENS)] = 100
    """How many at most."""
    after: TokenId | UnsetType = UNSET
    """Go on after this token: `next` of the answer before."""


class TokenList(Struct, frozen=True, kw_only=True):
    """Answer of `GET /api/tokens`, the newest first: those that one's own token has made; an admin's: all."""

    tokens: list[TokenInfo]
    next: str | None = None
    """What to give as `after` for those that follow; null: these were the last."""


# ---- what they have used ----


class UsageQuery(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which days are added up."""

    days: Annotated[int, Meta(ge=1, le=MOST_DAYS)] = 30
    """How many, today included. Days are those of UTC."""


class UsageOfDay(Struct, frozen=True, kw_only=True):
    """Tokens that the replies of one model took on one day."""

    day: str
    """Such as `2026-11-27`, in UTC."""
    model: str
    replies: int
    prompt_tokens: int
    cached_tokens: int
    """Of the prompts, that were not computed again."""
    completion_tokens: int


class TokenUsage(Struct, frozen=True, kw_only=True):
    """What one token's replies took. What other replicas served in the last minute may be missing."""

    days: list[UsageOfDay]
    """The newest first."""
    replies: int
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
