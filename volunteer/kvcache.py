"""The account of KV cache memory: who holds how many bytes, who may have more, who has been idle.

Bytes are booked before they are allocated (`grow`, by an estimate) and corrected to what was really
allocated (`settle`), so that the sum is exact between two steps and refusals come before the memory
runs out. Nothing is reserved for a maximum length.

A session that is over may be kept for others that begin like it. What is kept is the first to go: the
least recently used one leaves whenever a session needs its memory, or when they are too many or too old.
Owner: who has the device. Does not hold the caches and knows nothing of tensors. Times are seconds on any
one steady clock, and never go back.
"""

from collections import OrderedDict
from dataclasses import dataclass

from schema.errors import KVCacheFull
from schema.ids import SessionId

IDLE_SECONDS = 600.0
"""How long a session may be silent before its memory is taken back."""
KEPT_SECONDS = 600.0
"""How long a session that is over is kept after it was last used."""
KEPT_SHARE = 0.5
"""How much of the capacity kept sessions may take, unless told otherwise."""
RETRY_SECONDS = 5.0
"""What a refused driver is told: replies end, and free their memory, within seconds."""


@dataclass(slots=True)
class _Entry:
    bytes: int
    used_at: float


Entries = OrderedDict[SessionId, _Entry]
"""By last use, the longest idle first."""


class KVAccount:
    """Bytes of KV cache by session, up to a capacity."""

    def __init__(
        self, capacity: int, idle_seconds: float = IDLE_SECONDS, kept_share: float = KEPT_SHARE
    ) -> None:
        self.capacity = capacity
        self.idle_seconds = idle_seconds
        self.most_kept = int(capacity * kept_share)
        """Bytes of kept sessions at most."""
        self.used = 0
        """The sum of all bytes. Above `capacity` only as far as estimates were too low."""
        self.kept = 0
        """The part of `used` that is of kept sessions."""
        self._sessions: Entries = OrderedDict()
        self._kept: Entries = OrderedDict()

    def __len__(self) -> int:
        """Sessions with an entry, without those that are only kept."""
        return len(self._sessions)

    def held(self, session: SessionId) -> int:
        """Bytes booked for the session."""
        entry = self._sessions.get(session) or self._kept.get(session)
        return entry.bytes if entry else 0

    def grow(self, session: SessionId, extra: int, now: float) -> list[SessionId]:
        """Books `extra` bytes more for the session, before they are allocated; counts as its use.

        Takes out, and names, the kept sessions that have to go for that.

        Raises:
            KVCacheFull: there are not so many; nothing has changed.
        """
        if self.used - self.kept + extra > self.capacity:
            raise KVCacheFull(
                f"no memory for more tokens: {extra} bytes are needed, "
                f"{max(0, self.capacity - self.used + self.kept)} of {self.capacity} are free. "
                "Try again when other replies have ended, or use another volunteer",
                retry_after=RETRY_SECONDS,
            )
        evicted: list[SessionId] = []
        while self.used + extra > self.capacity and (oldest := self.evict()) is not None:
            evicted.append(oldest)
        self.settle(session, self.held(session) + extra, now)
        return evicted

    def settle(self, session: SessionId, exact: int, now: float) -> None:
        """Corrects the session's bytes to what its cache really holds; counts as its use."""
        self.used += exact - self.held(session)
        self._sessions[session] = _Entry(exact, now)
        self._sessions.move_to_end(session)

    def use(self, session: SessionId, now: float) -> None:
        """The session is used, and holds what it held."""
        self._sessions[session].used_at = now
        self._sessions.move_to_end(session)

    def rename(self, session: SessionId, name: SessionId) -> None:
        """What the session holds is of another name from now on, under which nothing is held."""
        self._sessions[name] = self._sessions.pop(session)

    def release(self, session: SessionId) -> int:
        """Takes the session out of the account; returns the bytes it held, 0 if it is not there."""
        entry = self._sessions.pop(session, None)
        if entry is None:
            entry = self._kept.pop(session, None)
            self.kept -= entry.bytes if entry else 0
        if entry is None:
            return 0
        self.used -= entry.bytes
        return entry.bytes

    def keep(self, session: SessionId, now: float) -> list[SessionId]:
        """The session is over but kept. Takes out, and names, what then is too much, perhaps itself."""
        entry = self._sessions.pop(session)
        if entry.bytes > self.most_kept:  # nothing that others may still use goes for what cannot stay
            self.used -= entry.bytes
            return [session]
        self._kept[session] = _Entry(entry.bytes, now)
        self.kept += entry.bytes
        evicted: list[SessionId] = []
        while self.kept > self.most_kept and (oldest := self.evict()) is not None:
            evicted.append(oldest)
        return evicted

    def wake(self, session: SessionId, now: float) -> None:
        """A kept session is in use, so that it cannot be evicted, until it is kept again."""
        entry = self._kept.pop(session)
        self.kept -= entry.bytes
        self._sessions[session] = _Entry(entry.bytes, now)

    def evict(self) -> SessionId | None:
        """Takes out, and names, the kept session that was used least recently; None when none is kept."""
        session = next(iter(self._kept), None)
        if session is not None:
            self.release(session)
        return session

    def expire(self, now: float) -> list[SessionId]:
        """Releases every session that has been idle, or kept, for longer than its limit; names them."""
        expired = [
            *_older(self._sessions, now - self.idle_seconds),
            *_older(self._kept, now - KEPT_SECONDS),
        ]
        for session in expired:
            self.release(session)
        return expired


def _older(entries: Entries, since: float) -> list[SessionId]:
    """Those that were last used before `since`."""
    found: list[SessionId] = []
    for session, entry in entries.items():
        if entry.used_at >= since:
            break
        found.append(session)
    return found
