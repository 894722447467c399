"""The swarm as people see it: the body of `GET /api/swarm`, and what pages are pushed.

Knows shapes only; the relay fills them. No addresses and no locations, ever.
"""

from typing import Literal

from msgspec import UNSET, Struct, UnsetType

VolunteerState = Literal["connected", "loading", "probing", "serving", "paused", "draining", "quarantined"]
EvidenceKind = Literal[
    "answered",  # a step of somebody else's session passed on
    "replied",  # a reply driven to its end
    "probe_passed",  # a probe came back
    "late",  # a step answered, but much later than usual
    "unanswered",  # a step never answered before its session was closed
    "failed",  # a step that it could not compute, and nobody else is to blame
    "disputed",  # a hop refused what the hop before had sent: one of the two
    "refused",  # a step refused for want of room, or of what is not kept any more
    "reply_failed",  # a reply that it could not finish, for whatever reason
    "vanished",  # gone without a word while others' sessions went through it
    "silent",  # ended for its silence while none did
    "unread",  # it read nothing for a while, so that a step for it had no room
    "malformed",  # its connection ended for what it sent
    "forged",  # a frame at a hop, or with a route, that is not its own
    "probe_failed",  # it could not prove that it serves
    "quarantined",  # an operator keeps it out of routes
    "restored",  # and no longer
]
"""What the relay sees of volunteers; docs/reputation.md says what each counts."""


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
    score: float | UnsetType = UNSET
    """How far it can be relied on, 0 to 1: `GET /api/volunteers/{id}` says why."""


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
    missing_bytes: int | UnsetType = UNSET
    """About how much memory the missing blocks take at 16 bits; left out when none are missing."""
    missing_bytes_nf4: int | UnsetType = UNSET
    """The same in 4 bits, where all of their layers can be held so."""
    heads: int = 0
    reason: str | None = None
    """In plain words, why it is not complete."""


class EvidenceOfKind(Struct, frozen=True, kw_only=True):
    """What one kind of evidence adds to a score."""

    kind: EvidenceKind
    count: int
    good: float
    bad: float
    """Samples for and against the volunteer that are left of it now."""
    since: float
    until: float
    """The first and the last hour of it, Unix seconds."""
    worst: float | UnsetType = UNSET
    """Seconds for `late` and `unanswered`, sessions broken off at once for `vanished`."""


class EvidenceOfHour(Struct, frozen=True, kw_only=True):
    """What was seen in one hour."""

    hour: float
    """Its beginning, Unix seconds."""
    kind: EvidenceKind
    count: int
    worst: float | UnsetType = UNSET


class Contribution(Struct, frozen=True, kw_only=True):
    """What a volunteer has done for others in the last 31 days."""

    blocks_steps: int
    """Blocks that it has run in others' sessions, each as often as a step went through it."""
    replies: int
    """That it has driven to their end."""
    hours: int
    """In which it did."""


class VolunteerReport(Struct, frozen=True, kw_only=True):
    """The body of `GET /api/volunteers/{id}`: one volunteer, its score, and the evidence for it."""

    id: str
    score: float
    prior: float
    """The score of one of whom nothing is known."""
    good: float
    bad: float
    """`score` is good / (good + bad)."""
    kinds: list[EvidenceOfKind]
    hours: list[EvidenceOfHour]
    """The newest first."""
    volunteer: VolunteerStatus | UnsetType = UNSET
    """Left out when it is not connected to the relay that answers."""
    memory: int | UnsetType = UNSET
    """Bytes that it has for the model; left out like `volunteer`."""
    since: float | UnsetType = UNSET
    """When it joined, Unix seconds; left out like `volunteer`."""
    contribution: Contribution | UnsetType = UNSET


class SwarmStatus(Struct, frozen=True, kw_only=True):
    """Everything, at one moment."""

    models: list[ModelStatus]
    volunteers: list[VolunteerStatus]
