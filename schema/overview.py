"""More of the swarm than its picture: bodies of `/api` beside schema/swarm.py.

Knows shapes only; the relay fills them. No addresses and no locations, ever.
"""

from typing import Annotated, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

from schema.messages import ModelName
from schema.swarm import ModelStatus, SwarmStatus, VolunteerState, VolunteerStatus

MOST_VOLUNTEERS = 1000
"""Of one answer."""

# ---- models ----


class BlocksHeld(Struct, frozen=True, kw_only=True):
    """Blocks `[start, end)` that equally many volunteers serve."""

    start: int
    end: int
    holders: int


class SpanHeld(Struct, frozen=True, kw_only=True):
    """Blocks `[start, end)` that volunteers were given."""

    start: int
    end: int
    head: bool
    volunteers: int
    serving: int
    """How many of them take sessions now."""


class ModelDetail(ModelStatus, frozen=True, kw_only=True):
    """One model, and who holds what of it."""

    family: str | None = None
    parameters: int | None = None
    block_bytes: int | UnsetType = UNSET
    """About what one block takes at 16 bits; left out until a volunteer has reported the model's shape."""
    coverage: list[BlocksHeld] = []
    """From the first block to the last, by how many volunteers serve them."""
    spans: list[SpanHeld] = []
    """In order."""


class ModelDetails(Struct, frozen=True, kw_only=True):
    """Answer of `GET /api/models`: the most wanted first."""

    models: list[ModelDetail]


# ---- volunteers ----


class VolunteerQuery(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which volunteers `GET /api/volunteers` shows."""

    model: ModelName | UnsetType = UNSET
    """Only those of this model."""
    state: VolunteerState | UnsetType = UNSET
    """Only those in this state."""
    limit: Annotated[int, Meta(ge=1, le=MOST_VOLUNTEERS)] = 100
    """How many at most."""
    after: Annotated[str, Meta(min_length=1, max_length=64)] | UnsetType = UNSET
    """Go on after this volunteer: `next` of the answer before."""


class VolunteerPage(Struct, frozen=True, kw_only=True):
    """Answer of `GET /api/volunteers`: connected volunteers, by id."""

    volunteers: list[VolunteerStatus]
    next: str | None = None
    """What to give as `after` for those that follow; null: these were the last."""


# ---- routes ----


class RouteQuery(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """For which model `GET /api/route` looks for a route."""

    model: ModelName
    """A model of the swarm."""


class RouteHop(Struct, frozen=True, kw_only=True):
    """A volunteer on the way, and the blocks that it would run."""

    volunteer: str
    name: str
    start: int
    end: int
    seconds: float
    """About what a step takes there: the way, the wait and the blocks."""


class RoutePreview(Struct, frozen=True, kw_only=True):
    """Answer of `GET /api/route`: which way a session would take now. The next moment's may be another."""

    model: str
    head: str
    """The volunteer that would drive it."""
    head_name: str
    hops: list[RouteHop]
    seconds: float
    """About what a step takes, and so each token once the prompt is read. What is not measured is assumed."""


# ---- one's own ----


class RunningReply(Struct, frozen=True, kw_only=True):
    """A reply that is being written."""

    id: str
    model: str
    head: str | None
    """The volunteer that drives it; null while another one is looked for."""
    seconds: float
    """Since it was asked for."""
    tokens: int
    """That it has by now."""


class RunningReplies(Struct, frozen=True, kw_only=True):
    """Answer of `GET /api/sessions`: the replies that this token has under way at this replica."""

    replies: list[RunningReply]


# ---- what changes ----


class SwarmEvent(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One event of `GET /api/events`; `event:` before it says the same as `type`."""

    type: Literal["swarm", "joined", "left", "serving", "state", "moved", "progress", "model", "missed"]
    """`swarm`: everything, first. `moved`: other blocks. `progress`: further on its way, in steps of 5 %.
    `missed`: this reader was too slow for some events, so that it has to read `GET /api/swarm` once more."""
    swarm: SwarmStatus | UnsetType = UNSET
    """Of `swarm`."""
    volunteer: VolunteerStatus | UnsetType = UNSET
    """Of `joined`, `left` (as it was last), `serving`, `state`, `moved` and `progress`."""
    model: ModelStatus | UnsetType = UNSET
    """Of `model`."""
    missed: int | UnsetType = UNSET
    """Of `missed`: how many events."""
