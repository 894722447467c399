"""What the relay's handlers work with, built once by the lifespan (relay/app.py) and never changed."""

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from starlette.types import Scope

from relay.admission import Admission
from relay.allowances import Allowances
from relay.batches.storage import Storage
from relay.batches.uploads import Uploading
from relay.contributions import Contributions
from relay.feed import Feed
from relay.forwarding import Forwarder
from relay.handing_out import HandingOut
from relay.history import HistoryOfSwarm
from relay.hub import Hub
from relay.joining import Joining
from relay.kept_replies import KeptReplies
from relay.leaderboard import Leaderboard
from relay.metrics import Metrics
from relay.open_pages import OpenPages
from relay.outcomes import Outcomes
from relay.pictures import Pictures
from relay.probing import Probing
from relay.quarantine import Quarantine
from relay.refusals import Refusals
from relay.replicas import Replicas
from relay.replies import Replies
from relay.revocation import Revocation
from relay.routing import Routing
from relay.settings import Settings
from relay.standings import Standings
from relay.store import Store
from relay.swarm import Swarm
from relay.usage import UsageAccount

if TYPE_CHECKING:  # its parts work with all services
    from relay.batches.running import Batches


@dataclass(frozen=True, slots=True)
class Services:
    """The parts of one replica."""

    settings: Settings
    software: str
    """Name and version, shown to peers and pages."""
    started: int
    """Unix seconds at which this replica started."""
    secret: bytes
    store: Store
    metrics: Metrics
    hub: Hub
    swarm: Swarm
    outcomes: Outcomes
    standings: Standings
    contributions: Contributions
    leaderboard: Leaderboard
    forwarder: Forwarder
    routing: Routing
    joining: Joining
    refusals: Refusals
    probing: Probing
    revocation: Revocation
    quarantine: Quarantine
    replies: Replies
    kept_replies: KeptReplies
    """Of pages."""
    open_pages: OpenPages
    admission: Admission
    allowances: Allowances
    handing_out: HandingOut
    """Of tokens."""
    replicas: Replicas
    usage: UsageAccount
    feed: Feed
    pictures: Pictures
    """For pages."""
    history: HistoryOfSwarm
    storage: Storage
    """Of files."""
    uploading: Uploading
    batches: "Batches"
    stopping: asyncio.Event
    """Set when the replica was told to stop."""


def services_of(scope: Scope) -> Services:
    """The services that the lifespan put into the scope of every request."""
    return cast(Services, scope["state"]["services"])
