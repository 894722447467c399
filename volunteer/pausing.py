"""Whether a volunteer takes new sessions: what its owner says, and whether the owner uses the machine.

Decides over samples of load that it is given with their time, and tells the reason to whoever listens. Reads
no load (volunteer/load.py), no clock and no signals. Does not know the relay or sessions.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

BUSY_SECONDS = 6.0
"""How long the load has to be above the limit before a volunteer pauses."""
QUIET_SECONDS = 60.0
"""How long it has to stay at the limit or below before it goes on: work comes in bursts."""
OWNER = "its owner asked for it"

Tell = Callable[[str | None], None]
"""Is told why to pause, or None: no reason any more."""


class Load(NamedTuple):
    """How much of the machine others use, in percent."""

    cpu: float
    gpu: float = 0.0

    def __str__(self) -> str:
        share, part = max((self.cpu, "CPU"), (self.gpu, "GPU"))
        return f"other programs use {share:.0f} % of the {part}"


@dataclass(frozen=True, slots=True)
class Limits:
    """When a machine counts as used by its owner."""

    percent: float
    busy_seconds: float = BUSY_SECONDS
    quiet_seconds: float = QUIET_SECONDS


class Judge:
    """Busy or quiet, with patience both ways: only what lasts changes it."""

    def __init__(self, limits: Limits) -> None:
        self.is_busy = False
        self._limits = limits
        self._otherwise_since: float | None = None
        """Time of the first of the latest samples in a row that say the opposite of `is_busy`."""

    def observe(self, load: Load, now: float) -> None:
        is_above = max(load) > self._limits.percent
        if is_above == self.is_busy:
            self._otherwise_since = None
            return
        if self._otherwise_since is None:
            self._otherwise_since = now
        patience = self._limits.quiet_seconds if self.is_busy else self._limits.busy_seconds
        if now - self._otherwise_since >= patience:
            self.is_busy = is_above
            self._otherwise_since = None


class Pauser:
    """Turns the owner's word and the machine's load into one reason to pause. The owner's word goes first."""

    def __init__(self, tell: Tell, limits: Limits | None = None) -> None:
        """`limits`: None when load is no reason."""
        self._tell = tell
        self._limits = limits
        self._judge = None if limits is None else Judge(limits)
        self._asked = False
        self._load = ""
        """What was going on when it became busy."""

    def ask(self) -> None:
        """The owner wants a pause, until `release`."""
        self._asked = True
        self._decide()

    def release(self) -> None:
        """The owner wants no pause now. Load is a reason again when it has lasted from here on."""
        self._asked = False
        self._judge = None if self._limits is None else Judge(self._limits)
        self._decide()

    def observe(self, load: Load, now: float) -> None:
        """A sample of the load; `now` in seconds of any one steady clock."""
        if self._judge is None:
            return
        was_busy = self._judge.is_busy
        self._judge.observe(load, now)
        if self._judge.is_busy != was_busy:
            self._load = str(load)
            self._decide()

    def _decide(self) -> None:
        is_busy = self._judge is not None and self._judge.is_busy
        self._tell(OWNER if self._asked else self._load if is_busy else None)
