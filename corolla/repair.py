"""When a reply whose session broke off goes on over another route, and when it is given up. Pure.

    a hop is gone ──────────> over whoever holds its blocks now, or comes to hold them in `WAIT_SECONDS`
    a hop refuses a step ───> over others, as long as this reply lasts; if there are none, its reason stands
    a hop refuses what the one before sent, or nobody answers
                        ───> without all who may be at fault; if that leaves no route, without some of them
    a route has expired ────> over a new one
    the relay lost a frame, or the connection to it was lost ──> over a new one, when there is one again
    anything else ──────────> the reply ends with it

Knows neither sessions nor tokens nor the clock. Owner: the task that drives the reply.
"""

from typing import NamedTuple

from schema.errors import CorollaError, FrameLost, PeerGone, RouteExpired, Unavailable
from schema.ids import PeerId

MOST_REPAIRS = 16
"""Of one reply."""
MOST_LOSSES = 2
"""How often one peer may vanish from under a reply before it is not used for it any more."""
WAIT_SECONDS = 15.0
"""For somebody to take the place of a hop that is gone: a connection that broke is back in less."""
POLL_SECONDS = 0.25
"""How often it is asked whether somebody has."""
PASSING = RouteExpired | FrameLost | Unavailable
"""What breaks a session though no hop is to blame."""


class Break(NamedTuple):
    """Why a session cannot go on."""

    error: CorollaError
    hop: PeerId | None = None
    """The volunteer at fault, where one is known."""
    is_gone: bool = False
    """Whether that one has left, rather than refused."""
    suspects: tuple[PeerId, ...] = ()
    """Who else may be at fault: who sent what was refused, or everybody where nobody has answered."""


class Repairs:
    """What has become of one reply's sessions, and so of the next one."""

    def __init__(self) -> None:
        self.count = 0
        """Sessions that were begun in place of a broken one."""
        self._refused: frozenset[PeerId] = frozenset()
        self._choices: list[frozenset[PeerId]] = []
        """Whom else to leave out, instead of all who may have broken the last session."""
        self._accused: frozenset[PeerId] = frozenset()
        """Those that are left out for it now."""
        self._losses: dict[PeerId, int] = {}
        self.may_resume = True
        """Whether it makes sense to go on with what hops still hold; see corolla/resuming.py."""
        self._cause: Break | None = None
        self._since = 0.0

    @property
    def excluded(self) -> frozenset[PeerId]:
        """Who is not to be on the next route."""
        flapping = {peer for peer, losses in self._losses.items() if losses >= MOST_LOSSES}
        return self._refused | self._accused | flapping

    @property
    def reason(self) -> str | None:
        """The code of what broke the last session; None when none has broken."""
        cause = self._cause
        return None if cause is None else PeerGone.code if cause.is_gone else cause.error.code

    def broke(self, broken: Break | None, now: float) -> bool:
        """Whether to begin again after this; None: what ended the session was not a hop's doing."""
        if broken is None or self.count >= MOST_REPAIRS:
            return False
        choices: list[frozenset[PeerId]] = []
        if broken.hop is not None and broken.is_gone:
            self._losses[broken.hop] = self._losses.get(broken.hop, 0) + 1
        elif broken.hop is not None or broken.suspects:
            choices = _choices(broken)
        elif not isinstance(broken.error, PASSING):
            return False
        self._refused |= self._accused
        self._accused, *self._choices = choices or [frozenset[PeerId]()]
        self.count += 1
        self._cause, self._since = broken, now
        return True

    def wait(self, now: float, is_cut_off: bool = False) -> float:
        """There is no route now: seconds until it is worth while to ask for one again.

        `is_cut_off`: nobody could be asked, so that it says nothing about who may be left out.
        Raises what broke the session, when nobody is to be waited for any more.
        """
        cause = self._cause
        if cause is None:
            raise RuntimeError("nothing has broken")
        if self._choices and not is_cut_off:
            self._accused = self._choices.pop(0)
            return 0.0
        is_passing = is_cut_off or cause.is_gone or isinstance(cause.error, FrameLost | Unavailable)
        if not is_passing or now - self._since >= WAIT_SECONDS:
            raise cause.error
        return POLL_SECONDS


def _choices(broken: Break) -> list[frozenset[PeerId]]:
    """Whom to leave out after this; where that leaves no route, the next ones instead."""
    refuser = frozenset[PeerId]() if broken.hop is None else frozenset({broken.hop})
    suspects = frozenset(broken.suspects)
    return list(dict.fromkeys(one for one in (refuser | suspects, suspects, refuser) if one))
