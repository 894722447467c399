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

from volunteer.part_costs import WEIGHT, PartCosts

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
"""How many times as large a part is tried where all were of one size; and at most, beside replies: what was
measured of smaller ones says too little."""
TRIED_AFTER = 8
"""So many parts about as large, and a larger one is tried where a part costs much however small it is."""
QUIET_SECONDS = 1.0
"""After how long without decode steps nobody is decoding."""
BARE_EVERY = 16
"""So many batches with a prompt, and one goes without: how long that takes changes with the contexts."""


class Most(NamedTuple):
    """How large a part may be while nobody decodes."""

    tokens: int
    seconds: float


_PROMPTS = Most(MOST_TOKENS, MOST_SECONDS)
_PASSES = Most(MOST_PASS_TOKENS, MOST_PASS_SECONDS)


@dataclass(slots=True)
class Pace:
    """What batches take, and what that leaves for prompts."""

    _decode: dict[int, float] = field(default_factory=dict[int, float])
    """Seconds of a batch of so many decode steps and nothing else."""
    _beside: PartCosts = field(default_factory=PartCosts)
    """What a part adds to a batch of decode steps."""
    _alone: PartCosts = field(default_factory=PartCosts)
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
        costs = self._beside if decoding else self._alone
        if not costs.is_known:
            return FIRST_TOKENS
        fixed, each = costs.fit()
        if share - fixed >= fixed:
            fitting = int((share - fixed) / each)
            tokens = fitting if fitting >= LEAST_TOKENS else _least(costs)
        else:
            tokens = min(self._largest(costs, FIRST_TOKENS), _worth_its_cost(fixed, each))
            if costs.alike >= TRIED_AFTER:
                tokens = max(tokens, int(LARGER * costs.last_tokens))
        return min(MOST_TOKENS, tokens, _most_grown(costs))

    def joined_tokens(self, decoding: int) -> int:
        """Up to how many tokens slices of one session go together; `decoding` as many decode steps beside.

        While more tokens cost little beside what a part costs anyway. Beyond that the next hop had better
        begin with the first of them. Where all parts were of one size, that is tried.
        """
        costs = self._beside if decoding else self._alone
        if not costs.is_known:
            return 0
        if costs.is_of_one_size:
            return int(LARGER * costs.mean_tokens)
        return _worth_its_cost(*costs.fit())

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

    def _largest(self, costs: PartCosts, first: int, most: Most = _PROMPTS) -> int:
        """Tokens of a part as long as it may be, or of a longer one where a smaller would be a waste."""
        if not costs.is_known:
            return first
        fixed, each = costs.fit()
        if most.seconds - fixed < fixed:
            return _worth_its_cost(fixed, each, most.tokens)
        return max(LEAST_TOKENS, min(most.tokens, int((most.seconds - fixed) / each)))

    def _largest_alone(self, most: Most) -> int:
        """The same while nobody decodes. Where all parts were of one size, a larger one is tried: it may
        cost next to nothing."""
        costs = self._alone
        larger = int(LARGER * costs.mean_tokens) if costs.is_known and costs.is_of_one_size else 1
        return max(min(most.tokens, larger), self._largest(costs, FIRST_ALONE_TOKENS, most))


def _least(costs: PartCosts) -> int:
    """Tokens of a part that does not fit. After as small ones, a larger one shows whether tokens cost all."""
    were_least = costs.is_of_one_size and costs.mean_tokens < 1.5 * LEAST_TOKENS
    return 2 * LEAST_TOKENS if were_least else LEAST_TOKENS


def _most_grown(costs: PartCosts) -> int:
    """How large a part may be after those that were measured, where somebody waits for its end."""
    return max(FIRST_TOKENS, int(LARGER * max(costs.mean_tokens, costs.last_tokens)))


def _worth_its_cost(fixed: float, each: float, most_tokens: int = MOST_TOKENS) -> int:
    """Tokens of a part that spends two thirds of its time on them."""
    return max(LEAST_TOKENS, min(most_tokens, int(2 * fixed / each)))


def _crowd(decoding: int, prompts: int) -> float:
    """Who waits for a first token counts as much as who waits for the next."""
    return max(1.0, prompts / decoding) if decoding else 1.0
