"""How often somebody may do something: so many times at once, and then as they grow back.

Pure but for what it remembers, which is bounded: of very many, those are forgotten who came first. Owned by
whoever asks. Does not know what is done, and asks no clock.
"""

from collections import OrderedDict
from typing import NamedTuple

MOST_KEYS = 10_000


class _Left(NamedTuple):
    times: float
    at: float


class Rate:
    """A limit for each of many."""

    def __init__(self, times: int, seconds: float) -> None:
        """So many times in so many seconds, for each of them."""
        self._times = times
        self._seconds_each = seconds / times
        self._left: OrderedDict[str, _Left] = OrderedDict()

    def wait(self, key: str, now: float) -> float:
        """Seconds until it may be done once more; 0: now. `now`: of any clock."""
        return max(0.0, 1.0 - self._of(key, now)) * self._seconds_each

    def take(self, key: str, now: float) -> None:
        """It is done."""
        self._put(key, self._of(key, now) - 1.0, now)

    def give_back(self, key: str, now: float) -> None:
        """It was not done after all."""
        self._put(key, min(float(self._times), self._of(key, now) + 1.0), now)

    def _put(self, key: str, times: float, now: float) -> None:
        self._left[key] = _Left(times, now)
        self._left.move_to_end(key)
        if len(self._left) > MOST_KEYS:
            self._left.popitem(last=False)

    def _of(self, key: str, now: float) -> float:
        left = self._left.get(key)
        if left is None:
            return float(self._times)
        return min(float(self._times), left.times + max(0.0, now - left.at) / self._seconds_each)
