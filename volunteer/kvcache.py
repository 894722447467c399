"""The account of KV cache memory: who holds how many bytes, who may have more, who has been idle.

Bytes are booked before they are allocated (`grow`, by an estimate) and corrected to what was really
allocated (`settle`), so that the sum is exact between two steps and refusals come before the memory
runs out. Nothing is reserved for a maximum length. Owner: the device thread. Does not hold the caches
and knows nothing of tensors. Times are seconds on any one steady clock, and never go back.
"""

from collections import OrderedDict
from dataclasses import dataclass

from schema.errors import KVCacheFull
from schema.ids import SessionId

IDLE_SECONDS = 600.0
"""How long a session may be silent before its memory is taken back."""
RETRY_SECONDS = 5.0
"""What a refused driver is told: replies end, and free their memory, within seconds."""


@dataclass(slots=True)
class _Entry:
    bytes: int
    used_at: float


class KVAccount:
    """Bytes of KV cache by session, up to a capacity."""

    def __init__(self, capacity: int, idle_seconds: float = IDLE_SECONDS) -> None:
        self.capacity = capacity
        self.idle_seconds = idle_seconds
        self.used = 0
        """The sum of all sessions' bytes. Above `capacity` only as far as estimates were too low."""
        self._entries: OrderedDict[SessionId, _Entry] = OrderedDict()
        """By last use, the longest idle first."""

    def __len__(self) -> int:
        """Sessions with an entry."""
        return len(self._entries)

    def held(self, session: SessionId) -> int:
        """Bytes booked for the session."""
        entry = self._entries.get(session)
        return entry.bytes if entry else 0

    def grow(self, session: SessionId, extra: int, now: float) -> None:
        """Books `extra` bytes more for the session, before they are allocated; counts as its use.

        Raises:
            KVCacheFull: there are not so many; nothing has changed.
        """
        if self.used + extra > self.capacity:
            raise KVCacheFull(
                f"no memory for more tokens: {extra} bytes are needed, "
                f"{max(0, self.capacity - self.used)} of {self.capacity} are free. "
                "Try again when other replies have ended, or use another volunteer",
                retry_after=RETRY_SECONDS,
            )
        self.settle(session, self.held(session) + extra, now)

    def settle(self, session: SessionId, exact: int, now: float) -> None:
        """Corrects the session's bytes to what its cache really holds; counts as its use."""
        self.used += exact - self.held(session)
        self._entries[session] = _Entry(exact, now)
        self._entries.move_to_end(session)

    def release(self, session: SessionId) -> int:
        """Takes the session out of the account; returns the bytes it held, 0 if it is not there."""
        entry = self._entries.pop(session, None)
        if entry is None:
            return 0
        self.used -= entry.bytes
        return entry.bytes

    def expire(self, now: float) -> list[SessionId]:
        """Releases every session that has been idle for longer than the limit, and names them."""
        expired: list[SessionId] = []
        while self._entries:
            session, entry = next(iter(self._entries.items()))
            if now - entry.used_at <= self.idle_seconds:
                break
            self.release(session)
            expired.append(session)
        return expired
