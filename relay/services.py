"""What the relay's handlers work with, built once by the lifespan (relay/app.py) and never changed."""

import asyncio
from dataclasses import dataclass
from typing import cast

from starlette.types import Scope

from relay.forwarding import Forwarder
from relay.hub import Hub
from relay.joining import Joining
from relay.metrics import Metrics
from relay.outcomes import Outcomes
from relay.probing import Probing
from relay.replicas import Replicas
from relay.replies import Replies
from relay.revocation import Revocation
from relay.routing import Routing
from relay.settings import Settings
from relay.standings import Standings
from relay.store import Store
from relay.swarm import Swarm


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
    forwarder: Forwarder
    routing: Routing
    joining: Joining
    probing: Probing
    revocation: Revocation
    replies: Replies
    replicas: Replicas
    stopping: asyncio.Event
    """Set when the replica was told to stop."""


def services_of(scope: Scope) -> Services:
    """The services that the lifespan put into the scope of every request."""
    return cast(Services, scope["state"]["services"])
