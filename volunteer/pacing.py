"""How many tokens of a prompt go with the next batch, so that the replies beside it keep their pace.

Learns from measured times only. Pure: no clock (`now` and `seconds` are given), no threads, no tensors.
Owner: the scheduler.
"""

from dataclasses import dataclass, field

SHARE = 0.3
"""How much longer than without a prompt a batch of decode steps may take."""
MOST_TOKENS = 512
"""Of one part, however fast."""
FIRST_TOKENS = 8
"""Of a part beside decode steps, before anything was measured."""
ALONE_SECONDS = 0.25
"""How long a part may take while nobody decodes: who comes meanwhile waits for its end."""
QUIET_SECONDS = 1.0
"""After how long without decode steps nobody is decoding."""
BARE_EVERY = 16
"""So many batches with a prompt, and one goes without: how long that takes changes with the contexts."""
WEIGHT = 0.3
"""Of the newest measurement in a moving average."""


@dataclass(slots=True)
class Pace:
    """Moving averages of what batches take."""

    _decode: dict[int, float] = field(default_factory=dict[int, float])
    """Seconds of a batch of so many decode steps and nothing else."""
    _beside: float | None = None
    """Seconds that each token of a prompt adds to a batch of decode steps."""
    _alone: float | None = None
    """Seconds of each token of a part that goes alone."""
    _decoded_at: float = float("-inf")
    _decoding: int = 0
    """Decode steps in the last batch that had any."""
    _since_bare: int = 0

    def prefill_tokens(self, decoding: int, now: float) -> int:
        """For a batch of `decoding` decode steps; 0 leaves the prompt out, to see what they take alone."""
        if decoding and (self._since_bare >= BARE_EVERY or not self._decode):
            return 0
        if not decoding and now - self._decoded_at > QUIET_SECONDS:
            return _tokens(ALONE_SECONDS, self._alone, first=MOST_TOKENS // 8)
        seconds = SHARE * self._bare_seconds(decoding or self._decoding)
        return _tokens(seconds, self._beside if decoding else self._alone, FIRST_TOKENS)

    def measured(self, decoding: int, tokens: int, seconds: float, now: float) -> None:
        """A batch of `decoding` decode steps and `tokens` of a prompt has taken `seconds`."""
        if decoding:
            self._decoded_at, self._decoding = now, decoding
        if decoding and not tokens:
            self._since_bare = 0
            self._decode[decoding] = _average(self._decode.get(decoding), seconds)
        elif decoding:
            self._since_bare += 1
            more = max(0.0, seconds - self._bare_seconds(decoding))
            self._beside = _average(self._beside, more / tokens)
        elif tokens:
            self._alone = _average(self._alone, seconds / tokens)

    def _bare_seconds(self, decoding: int) -> float:
        """Of a batch of about `decoding` decode steps."""
        if not self._decode:
            return 0.0
        return self._decode[min(self._decode, key=lambda count: abs(count - decoding))]


def _tokens(seconds: float, each: float | None, first: int) -> int:
    if each is None:
        return first
    return min(MOST_TOKENS, max(1, int(seconds / max(each, 1e-9))))


def _average(before: float | None, newest: float) -> float:
    return newest if before is None else before + WEIGHT * (newest - before)
