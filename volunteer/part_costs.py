"""What parts of prompts take by how many tokens they have, learned from those that were computed.

Now and then a part takes many times as long as the next one like it: the first of all, or of its size, for
which kernels are chosen and memory is taken; or another program had the processor. That says nothing of the
parts to come, and must not make them small. What has really become slow says so again.

Pure: seconds are given. Knows nothing of replies, queues or devices. Owner: volunteer/pacing.py.
"""

from dataclasses import dataclass

WEIGHT = 0.2
"""Of the newest measurement in a moving average."""
SURPRISE = 2.0
"""How many times as long as expected a part may have taken without being a surprise."""
DOUBT = 0.1
"""How much what was measured before counts after a part that was quicker than that by `SURPRISE`."""
ALIKE = 2.0
"""By how much parts differ that are about as large, at most."""
SURPRISES = 2
"""So many in a row count as no more than that. The next one is no surprise: that is what parts take."""


@dataclass(slots=True)
class PartCosts:
    """Seconds of a part by its tokens: a straight line through what was measured, the newest count most."""

    last_tokens: int = 0
    """Of the part that was measured last."""
    alike: int = 0
    """How many parts in a row were about as large."""
    _count: float = 0.0
    _tokens: float = 0.0
    _seconds: float = 0.0
    _tokens_squared: float = 0.0
    _products: float = 0.0
    _is_one: bool = False
    """Whether only one measurement counts."""
    _surprises: int = 0
    """In a row."""

    @property
    def is_known(self) -> bool:
        return self._count > 0

    def add(self, tokens: int, seconds: float) -> None:
        """A part of `tokens` tokens has taken `seconds`."""
        keep = 1 - WEIGHT
        if self.is_known and seconds < self._bounds(tokens)[0] / SURPRISE:
            keep *= 0.0 if self._is_one else DOUBT  # nothing is quick by accident: those before were slow so
        elif self.is_known:
            seconds = self._without_surprise(tokens, seconds)
        is_alike = self.is_known and 1 / ALIKE < tokens / self.mean_tokens < ALIKE
        self.alike = self.alike + 1 if is_alike else 0
        self._is_one = not self.is_known or not keep
        self.last_tokens = tokens
        self._count = keep * self._count + 1
        self._tokens = keep * self._tokens + tokens
        self._seconds = keep * self._seconds + seconds
        self._tokens_squared = keep * self._tokens_squared + tokens * tokens
        self._products = keep * self._products + tokens * seconds

    @property
    def mean_tokens(self) -> float:
        return self._tokens / self._count

    @property
    def is_of_one_size(self) -> bool:
        """Whether parts are so much alike that they do not tell what one takes without any token."""
        return self._spread < 0.01 * self.mean_tokens**2

    def fit(self) -> tuple[float, float]:
        """Seconds of a part without tokens, and of each; what cannot be told apart is the tokens'."""
        mean_tokens, mean_seconds = self.mean_tokens, self._seconds / self._count
        if self.is_of_one_size:
            return 0.0, max(mean_seconds / mean_tokens, 1e-9)
        slope = (self._products / self._count - mean_tokens * mean_seconds) / self._spread
        each = min(max(slope, 1e-9), mean_seconds / mean_tokens) if mean_seconds > 0 else 1e-9
        return max(0.0, mean_seconds - each * mean_tokens), each

    def _without_surprise(self, tokens: int, seconds: float) -> float:
        most = SURPRISE * self._bounds(tokens)[1]
        self._surprises = self._surprises + 1 if seconds > most else 0
        return most if 0 < self._surprises <= SURPRISES else seconds

    def _bounds(self, tokens: int) -> tuple[float, float]:
        """The least and the most seconds that so many tokens are expected to take."""
        if not self.is_of_one_size:
            fixed, each = self.fit()
            return fixed + each * tokens, fixed + each * tokens
        seconds, ratio = self._seconds / self._count, tokens / self.mean_tokens
        return seconds * min(1.0, ratio), seconds * max(1.0, ratio)

    @property
    def _spread(self) -> float:
        return self._tokens_squared / self._count - self.mean_tokens**2
