"""How many tokens of a prompt go with the next batch, so that the replies beside it keep their pace.

A part of a prompt costs something however small it is, and something for each token. Where the first is
little, as it is when the part shares one pass over the weights with the decode steps, every batch takes a
small part along. Where it is much, as on a GPU that replays decode steps as a graph and nothing else, small
parts would only waste it: larger parts go, and the replies have the device for themselves for a while
between them. Prompts get `SHARE` of the time that replies take, more where more prompts wait than replies
are written.

Learns from measured times only. Pure: no clock (`now` and `seconds` are given), no threads, no tensors.
Owner: the scheduler.
"""

from dataclasses import dataclass, field
from typing import NamedTuple

SHARE = 0.25
"""How much longer than without a prompt a batch of decode steps may take, on average."""
MOST_TOKENS = 2048
"""Of one part, however fast: weights that have to be dequantized for each are worth so many."""
MOST_PASS_TOKENS = 4096
"""Of a part where nothing but forward passes waits."""
FIRST_ALONE_TOKENS = 64
"""Of a part that nobody decodes beside, before anything was measured."""
FIRST_TOKENS = 8
"""Of a part beside decode steps, before anything was measured."""
MOST_SECONDS = 0.25
"""How long a part may take: who decodes, or comes meanwhile, waits for its end."""
MOST_PASS_SECONDS = 2.0
"""The same where nothing but forward passes waits: who sends those wants many tokens a second."""
LEAST_TOKENS = 2
"""Of a part. A single token may take another way, as a replayed graph, and tells nothing of more."""
LARGER = 3.0
"""How many times as large a part is tried where all were of one size."""
QUIET_SECONDS = 1.0
"""After how long without decode steps nobody is decoding."""
BARE_EVERY = 16
"""So many batches with a prompt, and one goes without: how long that takes changes with the contexts."""
WEIGHT = 0.2
"""Of the newest measurement in a moving average."""
SURPRISE = 2.0
"""How many times as long as expected a part may have taken; what is beyond that was something else."""


class Most(NamedTuple):
    """How large a part may be while nobody decodes."""

    tokens: int
    seconds: float


_PROMPTS = Most(MOST_TOKENS, MOST_SECONDS)
_PASSES = Most(MOST_PASS_TOKENS, MOST_PASS_SECONDS)


@dataclass(slots=True)
class Line:
    """Seconds of a part by its tokens: a straight line through what was measured, the newest count most.

    Now and then a part takes many times as long as the next one like it: the first of all, or of its size,
    for which kernels are chosen and memory is taken. The first counts only until there is another, and no
    other counts as more than `SURPRISE` times what was expected. What really takes longer says so again.
    """

    _is_first: bool = False
    _count: float = 0.0
    _tokens: float = 0.0
    _seconds: float = 0.0
    _tokens_squared: float = 0.0
    _products: float = 0.0

    @property
    def is_known(self) -> bool:
        return self._count > 0

    def add(self, tokens: int, seconds: float) -> None:
        keep = 0.0 if self._is_first else 1 - WEIGHT
        if self.is_known and not self._is_first:
            seconds = min(seconds, SURPRISE * self._most(tokens))
        self._is_first = not self.is_known
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

    def _most(self, tokens: int) -> float:
        """Seconds that so many tokens are expected to take, all being the tokens' where that is not known."""
        if self.is_of_one_size:
            return self._seconds / self._count * max(1.0, tokens / self.mean_tokens)
        fixed, each = self.fit()
        return fixed + each * tokens

    @property
    def _spread(self) -> float:
        return self._tokens_squared / self._count - self.mean_tokens**2

    def fit(self) -> tuple[float, float]:
        """Seconds of a part without tokens, and of each; what cannot be told apart is the tokens'."""
        mean_tokens, mean_seconds = self.mean_tokens, self._seconds / self._count
        if self.is_of_one_size:
            return 0.0, max(mean_seconds / mean_tokens, 1e-9)
        slope = (self._products / self._count - mean_tokens * mean_seconds) / self._spread
        each = min(max(slope, 1e-9), mean_seconds / mean_tokens) if mean_seconds > 0 else 1e-9
        return max(0.0, mean_seconds - each * mean_tokens), each


@dataclass(slots=True)
class Pace:
    """What batches take, and what that leaves for prompts."""

    _decode: dict[int, float] = field(default_factory=dict[int, float])
    """Seconds of a batch of so many decode steps and nothing else."""
    _beside: Line = field(default_factory=Line)
    """What a part adds to a batch of decode steps."""
    _alone: Line = field(default_factory=Line)
    _decoded_at: float = float("-inf")
    _decoding: int = 0
    """Decode steps in the last batch that had any."""
    _not_before: float = float("-inf")
    """When the next part may go: the last one has taken more than its share."""
    _since_bare: int = 0

    def prefill_tokens(self, decoding: int, prompts: int, now: float, are_passes: bool = False) -> int:
        """For a batch of `decoding` decode steps while `prompts` prompts wait; 0 leaves them out.

        `are_passes`: all prompts that wait are forward passes.
        """
        if not decoding and self._is_quiet(now):
            return self._largest_alone(_PASSES if are_passes else _PROMPTS)
        if decoding and (self._since_bare >= BARE_EVERY or not self._decode):
            return 0
        if self.wait(now):
            return 0
        share = self._share(decoding or self._decoding, prompts)
        line = self._beside if decoding else self._alone
        if not line.is_known:
            return FIRST_TOKENS
        fixed, each = line.fit()
        if share - fixed >= fixed:
            fitting = int((share - fixed) / each)
            return min(MOST_TOKENS, fitting if fitting >= LEAST_TOKENS else _least(line))
        return min(self._largest(line, FIRST_TOKENS), _worth_its_cost(fixed, each))

    def joined_tokens(self, decoding: int) -> int:
        """Up to how many tokens slices of one session go together; `decoding` as many decode steps beside.

        While more tokens cost little beside what a part costs anyway. Beyond that the next hop had better
        begin with the first of them. Where all parts were of one size, that is tried.
        """
        line = self._beside if decoding else self._alone
        if not line.is_known:
            return 0
        if line.is_of_one_size:
            return int(LARGER * line.mean_tokens)
        return _worth_its_cost(*line.fit())

    def wait(self, now: float) -> float:
        """Seconds until a prompt's part may go; 0 for now."""
        return 0.0 if self._is_quiet(now) else max(0.0, self._not_before - now)

    def measured(self, decoding: int, prompts: int, tokens: int, seconds: float, now: float) -> None:
        """A batch of `decoding` decode steps and `tokens` of a prompt has taken `seconds`; or a fork."""
        if decoding:
            self._decoded_at, self._decoding = now, decoding
        if decoding and not tokens:
            self._since_bare = 0
            before = self._decode.get(decoding, seconds)
            self._decode[decoding] = before + WEIGHT * (seconds - before)
        elif decoding:
            self._since_bare += 1
            more = max(0.0, seconds - self._bare_seconds(decoding))
            if tokens >= LEAST_TOKENS:
                self._beside.add(tokens, more)
            self._pay(decoding, prompts, more, now)
        else:
            if tokens >= LEAST_TOKENS:
                self._alone.add(tokens, seconds)
            self._pay(self._decoding, prompts, seconds, now)

    def nobody_decodes(self) -> None:
        """The replies have ended: there is nobody to keep a pace for."""
        self._decoded_at = self._not_before = float("-inf")

    def _pay(self, decoding: int, prompts: int, seconds: float, now: float) -> None:
        """A part has taken `seconds`: what is beyond its share is given back to the replies."""
        beyond = seconds - self._share(decoding, prompts)
        self._not_before = now + max(0.0, beyond) / (SHARE * _crowd(decoding, prompts))

    def _share(self, decoding: int, prompts: int) -> float:
        """Seconds that a part may add to a batch."""
        return SHARE * _crowd(decoding, prompts) * self._bare_seconds(decoding)

    def _is_quiet(self, now: float) -> bool:
        return now - self._decoded_at > QUIET_SECONDS

    def _bare_seconds(self, decoding: int) -> float:
        """Of a batch of about `decoding` decode steps."""
        if not self._decode:
            return 0.0
        return self._decode[min(self._decode, key=lambda count: abs(count - decoding))]

    def _largest(self, line: Line, first: int, most: Most = _PROMPTS) -> int:
        """Tokens of a part as long as it may be, or of a longer one where a smaller would be a waste."""
        if not line.is_known:
            return first
        fixed, each = line.fit()
        if most.seconds - fixed < fixed:
            return _worth_its_cost(fixed, each, most.tokens)
        return max(1, min(most.tokens, int((most.seconds - fixed) / each)))

    def _largest_alone(self, most: Most) -> int:
        """The same while nobody decodes. Where all parts were of one size, a larger one is tried: it may
        cost next to nothing."""
        line = self._alone
        larger = int(LARGER * line.mean_tokens) if line.is_known and line.is_of_one_size else 1
        return max(min(most.tokens, larger), self._largest(line, FIRST_ALONE_TOKENS, most))


def _least(line: Line) -> int:
    """Tokens of a part that does not fit. After as small ones, a larger one shows whether tokens cost all."""
    were_least = line.is_of_one_size and line.mean_tokens < 1.5 * LEAST_TOKENS
    return 2 * LEAST_TOKENS if were_least else LEAST_TOKENS


def _worth_its_cost(fixed: float, each: float, most_tokens: int = MOST_TOKENS) -> int:
    """Tokens of a part that spends two thirds of its time on them."""
    return max(1, min(most_tokens, int(2 * fixed / each)))


def _crowd(decoding: int, prompts: int) -> float:
    """Who waits for a first token counts as much as who waits for the next."""
    return max(1.0, prompts / decoding) if decoding else 1.0
