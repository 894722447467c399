"""The swarm as its operators see it: bodies of what is for admins' tokens.

Knows shapes only. No addresses and no locations, ever.
"""

from typing import Annotated

from msgspec import UNSET, Meta, Struct, UnsetType

from schema.limits import MAX_QUARANTINE_CHARS
from schema.swarm import VolunteerStatus

Reason = Annotated[str, Meta(min_length=1, max_length=MAX_QUARANTINE_CHARS)]


class Decision(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Body of `POST /api/volunteers/{id}/quarantine` and `/restore`."""

    reason: Reason
    """Why. It is kept, and told to the volunteer's owner."""


class QuarantineInfo(Struct, frozen=True, kw_only=True):
    """That a volunteer is kept out of routes, or was."""

    volunteer: str
    """Its id."""
    at: float
    """Unix seconds, as all times here."""
    reason: str
    by: str | None
    """The admin's token; null: from the command line."""
    ended_at: float | None = None
    """Null: it is kept out still."""
    end_reason: str | None = None
    ended_by: str | None = None


class AdminVolunteer(Struct, frozen=True, kw_only=True):
    """A volunteer with what operators have to know."""

    id: str
    volunteer: VolunteerStatus | UnsetType = UNSET
    """As everybody sees it; left out where it is not connected. So for what follows."""
    token: str | UnsetType = UNSET
    """The id of the token with which it has joined."""
    token_name: str | UnsetType = UNSET
    memory: int | UnsetType = UNSET
    """Bytes that it has for the model."""
    since: float | UnsetType = UNSET
    """When it joined."""
    quarantines: list[QuarantineInfo] = []
    """The newest first. In a list of volunteers: only one that is not over."""


class AdminVolunteerPage(Struct, frozen=True, kw_only=True):
    """Answer of `GET /api/admin/volunteers`: connected volunteers, by id."""

    volunteers: list[AdminVolunteer]
    next: str | None = None
    """What to give as `after` for those that follow; null: these were the last."""
    quarantined: list[QuarantineInfo]
    """All that are kept out, connected or not; the newest first, at most 1000."""
