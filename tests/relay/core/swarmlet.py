"""A forwarder between three peers without sockets, for what must hold for any bytes."""

import time

from relay.forwarding import Forwarder
from relay.hub import Hub
from relay.metrics import Metrics
from relay.outcomes import Outcomes
from relay.peer import Identity, Peer
from schema.awake import StayingAwake
from schema.ids import PeerId, Span, model_key, new_session_id
from schema.protocol import RelayConnection, State
from schema.routes import Hop, Route, sign_route
from tests.relay.core.peers import Journey


class Swarmlet:
    """A forwarder between three peers without sockets."""

    secret = b"k" * 32

    def __init__(self, awake: StayingAwake | None = None) -> None:
        self.hub = Hub(heartbeat_seconds=1.0)
        self.metrics = Metrics()
        self.outcomes = Outcomes()
        self.forwarder = Forwarder(self.hub, self.metrics, self.secret, self.outcomes, awake)
        self.peers = [self.connect(PeerId(f"{number:016x}")) for number in range(3)]
        hops = tuple(Hop(peer.id, Span(index, index + 1)) for index, peer in enumerate(self.peers[1:]))
        session = new_session_id()
        route = Route(self.peers[0].id, hops, model_key("m"), int(time.time()) + 1000)
        self.journey = Journey(session, sign_route(route, session, self.secret))

    def connect(self, peer_id: PeerId, queue_bytes: int = 1_000_000) -> Peer:
        connection = RelayConnection()
        connection.state = State.OPEN
        peer = Peer(Identity(peer_id, "tester", "token", "volunteer"), connection, queue_bytes, now=0.0)
        self.hub.add(peer)
        return peer

    def counted(self) -> int:
        metrics = self.metrics
        return (
            sum(metrics.frames_forwarded.values()) + sum(metrics.refusals.values()) + metrics.skipped_frames
        )
