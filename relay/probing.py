"""Asking again, now and then, whether those that serve can: a probe through the relay, as at their joining.

A volunteer that does not pass one in time is in doubt, which keeps it out of routes until it passes another;
its sessions go on. Owned by the event loop's thread. Does not know sockets or SQL.
"""

import logging
import math

from relay.forwarding import Forwarder
from relay.metrics import Metrics
from relay.routing import Routing
from relay.swarm import Swarm, Volunteer
from schema.errors import UnexpectedMessage
from schema.ids import PeerId, SessionId

PATIENCE_SECONDS = 30.0
"""For an answer: probes are work among other work."""
MOST_AT_ONCE = 2
"""Probes of one pass, so that thousands that joined together are not all asked together."""

LOOKED_AT = 50
"""Volunteers of one pass: a look at ten thousand would hold up frames for milliseconds."""

log = logging.getLogger(__name__)


class Probing:
    """Probes of those that serve already; the first one of each is joining's."""

    def __init__(
        self, swarm: Swarm, routing: Routing, forwarder: Forwarder, metrics: Metrics, seconds: float
    ) -> None:
        """`seconds`: from one probe of a volunteer to its next."""
        self._swarm = swarm
        self._routing = routing
        self._forwarder = forwarder
        self._metrics = metrics
        self._seconds = seconds

    def ask(self, now: float) -> None:
        """Send the probes that are due, and doubt those that have not answered theirs. `now`: loop time."""
        sent = 0
        for volunteer in self._swarm.next_here(LOOKED_AT):
            if volunteer.state != "serving":
                continue
            if volunteer.probe is not None:
                if now - volunteer.probed > PATIENCE_SECONDS:
                    self._doubt(volunteer)
            elif math.isinf(volunteer.probed):
                volunteer.probed = now  # it has just passed its first one
            elif now - volunteer.probed >= self._seconds and sent < MOST_AT_ONCE and not volunteer.is_paused:
                self._send(volunteer, now)
                sent += 1

    def asks(self, peer: PeerId) -> bool:
        """Whether a volunteer's first probe, which is joining's, is behind it: later ones are asked here."""
        volunteer = self._swarm.get(peer)
        if volunteer is None:
            return False
        has_served = volunteer.state == "loading" and not math.isinf(volunteer.probed)
        return volunteer.state in ("serving", "draining") or has_served

    def take(self, peer: PeerId, session: SessionId) -> bool:
        """A volunteer says that it has passed a probe: whether that is the one that it was asked for last.

        Raises:
            UnexpectedMessage: the answer has not come through here.
        """
        volunteer = self._swarm.get(peer)
        if volunteer is None or volunteer.probe != session:
            return False  # too late: that one was given up, and the next one will tell
        self._passed(volunteer, session)
        return True

    def _passed(self, volunteer: Volunteer, session: SessionId) -> None:
        if not self._forwarder.probe_passed(session):
            raise UnexpectedMessage("no answer to the probe has passed this relay")
        self._forget(volunteer)
        self._metrics.probes["passed"] += 1
        if volunteer.is_in_doubt:
            volunteer.is_in_doubt = False
            self._swarm.refresh(volunteer)
            self._swarm.touch()

    def _send(self, volunteer: Volunteer, now: float) -> None:
        place = volunteer.placement
        probe = self._routing.probe(volunteer.peer.id, place.model, place.span)
        volunteer.probe, volunteer.probed = SessionId(bytes.fromhex(probe.session)), now
        self._forwarder.expect_probe(volunteer.probe)
        volunteer.peer.tell(probe)

    def _doubt(self, volunteer: Volunteer) -> None:
        self._forget(volunteer)
        self._metrics.probes["late"] += 1
        log.warning(
            "%s has not passed its probe in %g s: no new routes until it does",
            volunteer.peer.name,
            PATIENCE_SECONDS,
            extra={"peer": volunteer.peer.id},
        )
        if not volunteer.is_in_doubt:
            volunteer.is_in_doubt = True
            self._swarm.refresh(volunteer)
            self._swarm.touch()

    def _forget(self, volunteer: Volunteer) -> None:
        if volunteer.probe is not None:
            self._forwarder.forget_probe(volunteer.probe)
            volunteer.probe = None
