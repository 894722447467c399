"""The swarm as people see it: the body of `GET /api/swarm`, and what pages are pushed.

Knows shapes only; the relay fills them. No addresses and no locations, ever.
"""

from typing import Literal

from msgspec import UNSET, Struct, UnsetType

VolunteerState = Literal["connected", "loading", "probing", "serving", "paused", "draining"]


class VolunteerStatus(Struct, frozen=True, kw_only=True):
    """One connected volunteer."""

    id: str
    name: str
    state: VolunteerState
    device: str
    model: str | None = None
    start: int | None = None
    end: int | None = None
    head: bool = False
    dtype: str | None = None
    done: int = 0
    total: int = 0
    """Progress of its present state, in the state's own units; 0 of 0 when there is none."""
    sessions: int = 0
    blocks_per_second: float | UnsetType = UNSET
    """Measured decode throughput of a session alone; left out when it was not measured."""


class MissingBlocks(Struct, frozen=True):
    """Blocks `[start, end)` that no volunteer serves."""

    start: int
    end: int


class ModelStatus(Struct, frozen=True, kw_only=True):
    """One model of the swarm."""

    id: str
    blocks: int | None = None
    """None until a volunteer has reported the model's shape."""
    context: int | None = None
    complete: bool = False
    """Whether a chat would be answered now: every block and a head are served."""
    missing: list[MissingBlocks] = []
    heads: int = 0
    reason: str | None = None
    """In plain words, why it is not complete."""


class SwarmStatus(Struct, frozen=True, kw_only=True):
    """Everything, at one moment."""

    models: list[ModelStatus]
    volunteers: list[VolunteerStatus]
