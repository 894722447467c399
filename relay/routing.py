"""Granting signed routes to drivers and to volunteers that prove themselves.

Reads the swarm, asks the planner, signs. Does not know sockets or SQL.
"""

import time

from relay.planner import Wishes, plan
from relay.swarm import Swarm
from schema.errors import InvalidRequest, ModelUnavailable
from schema.ids import PeerId, SessionId, Span, model_key, new_session_id
from schema.messages import GrantedHop, Probe, RouteGrant, RouteRequest, peer_ids
from schema.routes import Hop, Route, sign_route


class Routing:
    """Signs routes with the relays' shared secret."""

    def __init__(self, swarm: Swarm, secret: bytes, route_seconds: float) -> None:
        self._swarm = swarm
        self._secret = secret
        self._route_seconds = route_seconds

    def grant(self, origin: PeerId, request: RouteRequest) -> RouteGrant:
        """A route for a driver's session.

        Raises:
            NotFound: no such model.
            ModelUnavailable: some blocks have no volunteer outside `exclude`.
            InvalidRequest: a span that is not in the model.
        """
        facts = self._swarm.facts(request.model)
        if facts is None:
            raise ModelUnavailable(f"no volunteer has joined for {request.model!r} yet", retry_after=10.0)
        start = 0 if request.start is None else request.start
        end = facts.blocks if request.end is None else request.end
        if not start < end <= facts.blocks:
            raise InvalidRequest(f"blocks {start}:{end} are not in {request.model!r} (0:{facts.blocks})")
        wishes = Wishes(peer_ids(request.exclude), peer_ids(request.prefer or []))
        hops = plan(self._swarm.candidates(request.model), Span(start, end), origin, wishes).hops
        self._swarm.count_grant(hop.peer for hop in hops)
        route = self._route(origin, hops, request.model)
        signed = sign_route(route, SessionId(bytes.fromhex(request.session)), self._secret)
        shown = [self._show(hop) for hop in hops]
        return RouteGrant(request=request.request, route=signed, hops=shown, expires=route.expires)

    def probe(self, volunteer: PeerId, model: str, span: Span) -> Probe:
        """A route from a volunteer through the relay to itself."""
        session = new_session_id()
        route = self._route(volunteer, (Hop(volunteer, span),), model)
        return Probe(session=session.hex(), route=sign_route(route, session, self._secret))

    def _route(self, origin: PeerId, hops: tuple[Hop, ...], model: str) -> Route:
        return Route(origin, hops, model_key(model), int(time.time() + self._route_seconds))

    def _show(self, hop: Hop) -> GrantedHop:
        volunteer = self._swarm.get(hop.peer)
        name = volunteer.peer.name if volunteer else hop.peer
        return GrantedHop(peer=hop.peer, name=name, start=hop.span.start, end=hop.span.end)
