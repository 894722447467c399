"""Bodies of `/api/session`, where pages sign in. Knows shapes only."""

from typing import Literal

from msgspec import UNSET, Struct, UnsetType

from schema.credentials import TokenKind


class SignIn(Struct, frozen=True, forbid_unknown_fields=True):
    """Body of `POST /api/session`."""

    token: str
    """A client's or an admin's access token."""


class SessionAccess(Struct, frozen=True, omit_defaults=True):
    """Answer of `GET /api/session`."""

    access: Literal["open", "signed_in", "sign_in"]
    """`open`: nobody has to sign in. `sign_in`: one has to."""
    kind: TokenKind | UnsetType = UNSET
    """Of the token that this page is signed in with; left out when it is not."""
    join: bool = False
    """Whether `POST /api/tokens` makes tokens of volunteers for this page; left out when it does not."""
