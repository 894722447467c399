"""How a replica stops at nobody's cost: its peers and pages go elsewhere, its requests come to their end.

    told to stop ─> no new connections ─> `go_elsewhere` to peers and pages, if there is another replica
                 ─> until all have arrived there and no reply is written, or `DRAIN_SECONDS` are over
                 ─> the server closes what is left, and the others are told (relay/app.py)

Peers that have moved serve on through other replicas, also the replies that are still run here. Without
another replica peers stay, so that the replies that are under way come to their end.
Does not know how peers move (relay/sockets.py) or what listens (relay/commands/serve.py).
"""

import asyncio
import logging
from collections.abc import Callable

from relay.services import Services

MOVES_PER_SECOND = 500
"""How many peers and pages may dial the other replicas in a second."""
LEAST_SECONDS = 0.5
"""In which those of a small replica do."""
POLL_SECONDS = 0.05

log = logging.getLogger(__name__)


def seconds_to_move(peers: int) -> float:
    """The time within which so many shall go elsewhere."""
    return max(LEAST_SECONDS, peers / MOVES_PER_SECOND)


async def hand_over(services: Services, is_forced: Callable[[], bool]) -> None:
    """Return when all is handed over or the time is up. `is_forced`: whether nobody wants to wait."""
    now = asyncio.get_running_loop().time
    until = now() + services.settings.drain_seconds
    hub, replicas = services.hub, services.replicas
    services.stopping.set()
    if replicas.can_move_peers:
        hub.send_elsewhere(seconds_to_move(len(hub)))
    log.info("stopping: %d peers to move, %d replies to finish", len(hub), len(services.replies))
    while not is_forced() and now() < until:
        movable = replicas.can_move_peers and any(peer.can_move for peer in hub)
        moving = any(peer.way is None for peer in hub.elsewhere.values())
        if not movable and not moving and not len(services.replies):
            return
        await asyncio.sleep(POLL_SECONDS)
    log.warning("stopping with %d peers and %d replies", len(hub), len(services.replies))
