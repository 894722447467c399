"""How the swarm has done lately: bodies of `GET /api/history` and `GET /api/leaderboard`.

Knows shapes only; the relay fills them. No addresses and no locations, ever.
"""

from typing import Annotated, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

MOST_MINUTES = 24 * 60
"""That are kept."""
MOST_DAYS = 31
"""Of which it is known what volunteers have done."""


class HistoryQuery(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How far back `GET /api/history` goes."""

    minutes: Annotated[int, Meta(ge=1, le=MOST_MINUTES)] = 60
    """How many, the present one included."""


class HistoryMinute(Struct, frozen=True, kw_only=True):
    """What the replies that ended in one minute were like."""

    at: int
    """The minute's beginning, Unix seconds."""
    tokens: int
    """That heads wrote, also of replies that were stopped."""
    replies: int
    """That were finished."""
    failed: int
    """That could not be finished, through no fault of whoever asked."""
    first_token: float | None
    """Seconds from the request to the first token, the median of the finished ones; null: there are none."""
    step: float | None
    """Seconds from each token to the next, the median of theirs; null: none had two tokens."""
    serving: int
    """Volunteers that served when the minute ended, or serve now."""


HistoryEventType = Literal["joined", "left", "lost", "moved", "repaired"]


class HistoryEvent(Struct, frozen=True, kw_only=True):
    """Something that happened with a volunteer."""

    at: float
    """Unix seconds; as exact as a few seconds."""
    type: HistoryEventType
    """`left`: having said so. `lost`: gone without a word. `moved`: given other blocks. `repaired`: as a
    head, it went on with replies that had broken."""
    volunteer: str
    """Its id."""
    name: str
    count: int | UnsetType = UNSET
    """Of `repaired`: how often, where it was more than once in these seconds."""


class History(Struct, frozen=True, kw_only=True):
    """Answer of `GET /api/history`: what the replica that answers has seen since it began, for at most
    a day."""

    minutes: list[HistoryMinute]
    """The newest last, which is not over yet."""
    events: list[HistoryEvent]
    """Of these minutes, the newest last; of very many, the newest."""


# ---- who has done most ----


class LeaderboardQuery(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Over which days `GET /api/leaderboard` adds up."""

    days: Annotated[int, Meta(ge=1, le=MOST_DAYS)] = 7
    """How many, today included. Days are those of UTC."""


class LeaderboardEntry(Struct, frozen=True, kw_only=True):
    """What a volunteer has done for others."""

    id: str
    name: str
    """As it was called last."""
    blocks_steps: int
    """Blocks that it has run in others' sessions, each as often as a step went through it."""
    replies: int
    """That it has driven to their end."""
    score: float | None
    """Its present score; null: it is not connected."""
    hours: int
    """In which it did something."""


class Leaderboard(Struct, frozen=True, kw_only=True):
    """Answer of `GET /api/leaderboard`: by blocks and steps, the most first, and then by replies."""

    volunteers: list[LeaderboardEntry]
