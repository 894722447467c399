"""When a batch is worth waiting for: decode steps that are about to come should go with those that are here.

Sessions that were computed together come back within a millisecond or two of each other. Whoever starts
with the first of them computes two batches where one would do. So the queue waits a little, but only for
sessions that, by when they came back the last time, should be here by the end of the wait.

Pure: no clock (`now` is given), no threads. Owner: the scheduler.
"""

from collections.abc import Collection

from schema.ids import SessionId

SHARE = 0.2
"""How long to wait, as a part of what a batch takes."""
MOST_SECONDS = 0.01
WEIGHT = 0.3
"""Of the newest batch in the average."""


class Gathering:
    """Which sessions are expected, and until when."""

    def __init__(self) -> None:
        self._batch_seconds = 0.0
        self._done_at: dict[SessionId, float] = {}
        """When the last step of a session that decodes was done."""
        self._away: dict[SessionId, float] = {}
        """How long after that its next step came, the last time."""
        self._since = float("-inf")
        """When the wait began: the last batch's end, or the first arrival after it."""
        self._has_arrived = False

    def arrived(self, session: SessionId, now: float) -> None:
        """A decode step was queued."""
        if not self._has_arrived:
            self._has_arrived, self._since = True, max(self._since, now)
        if session in self._done_at:
            self._away[session] = now - self._done_at.pop(session)

    def done(self, sessions: list[SessionId], seconds: float, now: float) -> None:
        """A batch with decode steps of `sessions` has taken `seconds`."""
        self._batch_seconds += WEIGHT * (seconds - self._batch_seconds)
        self._since, self._has_arrived = now, False
        for session in [one for one, at in self._done_at.items() if self._is_overdue(one, at, now)]:
            self.forget(session)
        self._done_at.update(dict.fromkeys(sessions, now))

    def forget(self, session: SessionId) -> None:
        """The session is over, or away for too long to be reckoned with."""
        self._done_at.pop(session, None)
        self._away.pop(session, None)

    def wait(self, here: Collection[SessionId], now: float) -> float:
        """Seconds to wait for more than the steps of `here`; 0 to go on at once.

        Where nothing but prompts waits it may take as long as a batch: beside decode steps they cost less.
        """
        limit = min(SHARE * self._batch_seconds, MOST_SECONDS) if here else self._batch_seconds
        until = self._since + limit
        if now >= until:
            return 0.0
        expected = any(
            at + self._away[session] <= until
            for session, at in self._done_at.items()
            if session in self._away and session not in here
        )
        return until - now if expected else 0.0

    def _is_overdue(self, session: SessionId, done_at: float, now: float) -> bool:
        """Not seen for twice as long as the last time: it has ended, or left this rhythm."""
        return now - done_at > 2 * self._away.get(session, 0.0) + MOST_SECONDS
