"""What of a session that broke off can be gone on with over a new route, without computing it again. Pure.

Each hop has kept its KV cache, and each but the last what it has sent on (volunteer/sent.py). So where a hop
is gone, only whoever takes its place has anything to compute:

    driver ─ RESUME ─▶ every stop   the broken session goes on as the new one, cut to `position` tokens
    driver ─ REPLAY ─▶ every stop   of the tokens before that, slice by slice: whoever comes before a new stop
                                    sends it what the dead one was sent, the driver embeddings to stop 0;
                                    between stops that are left only the frame's head travels
    driver ─ PREFILL ▶ every stop   what no hop is sure to hold, as ever

All of it goes without a wait for answers, but for the window of any prompt. Where anything of it fails the
tokens are computed anew over all hops. Does not know frames or how they are sent.
"""

from collections.abc import Collection, Sequence
from typing import NamedTuple

from corolla.repair import Break
from schema.errors import FrameLost, KVCacheFull, NotServing, PeerGone, QueueFull, RouteExpired, Unavailable
from schema.ids import PeerId, SessionId
from schema.resuming import NewStops
from schema.routes import Hop

_NOBODYS_STATES = KVCacheFull | NotServing | PeerGone | QueueFull | RouteExpired | FrameLost | Unavailable


class Remains(NamedTuple):
    """What is left of a session that broke off."""

    id: SessionId
    hops: frozenset[Hop]
    """That are still there."""
    held: int
    """Tokens that all its hops held."""


class Resumption(NamedTuple):
    """How a session goes on as another one."""

    broken: SessionId
    position: int
    """Tokens that are not computed again where they are held."""
    new: NewStops
    """The stops that hold nothing of it."""


def is_sound(broken: Break | None) -> bool:
    """Whether what the hops hold can be trusted after this.

    Where a hop has sent what the next one, or the driver, could not use, it may have done so before.
    """
    if broken is None or broken.suspects:
        return False
    return broken.is_gone or isinstance(broken.error, _NOBODYS_STATES)


def hops_left(hops: Sequence[Hop], lost: Collection[PeerId]) -> frozenset[Hop]:
    """Who holds the session still. Who was lost holds nothing of it, also when it is back."""
    return frozenset(hop for hop in hops if hop.peer not in lost)


def plan_resumption(remains: Remains, hops: Sequence[Hop], tokens: int) -> Resumption | None:
    """How a session that is to have `tokens` tokens goes on over these hops; None: it had better begin anew.

    The last token is always computed, since what becomes of it is needed.
    """
    position = min(remains.held, tokens - 1)
    new = frozenset(stop for stop, hop in enumerate(hops) if hop not in remains.hops)
    if position < 1 or len(new) == len(hops):
        return None
    return Resumption(remains.id, position, new)
