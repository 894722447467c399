"""What has been told of a reply: what another head tells again is left out, what is new goes on.

A head that goes on with a reply tells it from the beginning, since it alone knows how much text its
tokens make. Text is counted in characters, tokens, scores and calls one by one. Pure: no clock, no sockets.
"""

from dataclasses import dataclass
from typing import TypeVar

from msgspec import UNSET, UnsetType
from msgspec.structs import replace

from schema.errors import GenerationFailed
from schema.generation import GenerationRequest, ScoredToken
from schema.limits import MAX_SCORES
from schema.messages import CallMade, Delta, PromptPart

MAX_REPLY_CHARS = 32 * 1024 * 1024
DELTA_CHARS, ID_CHARS = 100, 8
"""How long one reply may get, and what each of its deltas and tokens counts besides its text: a head is a
stranger, and what it writes waits here for a reader who may be slow. Log-probabilities are bounded by number,
which heads have to know: `MAX_SCORES`."""

_Items = TypeVar("_Items", str, list[int], list[ScoredToken])


@dataclass(slots=True)
class _Counts:
    """How far a reply has been told."""

    text: int = 0
    scored: int = 0
    prompt: int = 0
    prompt_scored: int = 0
    scores: int = 0
    """Log-probabilities."""
    calls: int = 0


class Told:
    """What has been told of one reply. What its request does not ask for is told to nobody."""

    def __init__(self, body: GenerationRequest) -> None:
        self.ids: list[int] = []
        """The tokens that heads have told of."""
        self._body = body
        self._told = _Counts()
        self._by_head = _Counts()
        self._ids_by_head = 0
        self._chars = 0
        """That the present head has told, again or not; only what is new waits."""

    def begin(self) -> None:
        """A head tells it from the beginning from now on."""
        self._by_head = _Counts()
        self._ids_by_head = 0
        self._chars = 0

    def take(self, delta: Delta) -> Delta | None:
        """What of a delta has not been told before; None: nothing.

        Raises:
            GenerationFailed: the reply is longer than any may be.
        """
        self._chars += size_of(delta)
        if self._chars > MAX_REPLY_CHARS:
            raise GenerationFailed("the volunteer writes more than any reply may hold")
        self._by_head.scores += scores_of(delta)
        if self._by_head.scores > MAX_SCORES:
            raise GenerationFailed("the volunteer tells more log-probabilities than any reply may have")
        ids = [] if delta.ids is UNSET else delta.ids
        self._ids_by_head += len(ids)
        self.ids += _last(ids, self._ids_by_head - len(self.ids))
        text, scored = self._new_text(delta.text), self._new_scores(delta.scored)
        prompt, call = self._new_prompt(delta.prompt), self._new_call(delta.call)
        if not text and scored is UNSET and prompt is UNSET and call is UNSET:
            return None
        if text == delta.text and scored is delta.scored and prompt is delta.prompt and call is delta.call:
            return delta  # as nearly all are
        return replace(delta, text=text, scored=scored, prompt=prompt, call=call)

    def _new_text(self, text: str) -> str:
        self._by_head.text += len(text)
        new = _last(text, self._by_head.text - self._told.text)
        self._told.text += len(new)
        return new

    def _new_scores(self, scored: list[ScoredToken] | UnsetType) -> list[ScoredToken] | UnsetType:
        if self._body.logprobs is None or scored is UNSET:
            return UNSET
        self._by_head.scored += len(scored)
        new = _last(scored, self._by_head.scored - self._told.scored)
        self._told.scored += len(new)
        return new or UNSET

    def _new_prompt(self, part: PromptPart | UnsetType) -> PromptPart | UnsetType:
        if not self._body.echo or part is UNSET:
            return UNSET
        by_head, told = self._by_head, self._told
        by_head.prompt += len(part.text)
        by_head.prompt_scored += len(part.scored)
        text = _last(part.text, by_head.prompt - told.prompt)
        scored = _last(part.scored, by_head.prompt_scored - told.prompt_scored)
        told.prompt += len(text)
        told.prompt_scored += len(scored)
        return PromptPart(text=text, scored=scored) if text or scored else UNSET

    def _new_call(self, call: CallMade | UnsetType) -> CallMade | UnsetType:
        if self._body.tools is None or call is UNSET:
            return UNSET
        self._by_head.calls += 1
        if self._by_head.calls <= self._told.calls:
            return UNSET
        self._told.calls += 1
        return replace(call, index=self._told.calls - 1)


def size_of(delta: Delta) -> int:
    """What a delta counts, in characters."""
    size = DELTA_CHARS + len(delta.text)
    if delta.ids is not UNSET:
        size += len(delta.ids) * ID_CHARS
    if delta.prompt is not UNSET:
        size += len(delta.prompt.text)
    size += sum(len(one.text) + len(one.raw) for token in _scored(delta) for one in (token, *token.top))
    if delta.call is not UNSET:
        size += len(delta.call.name) + len(delta.call.arguments)
    return size


def scores_of(delta: Delta) -> int:
    """How many log-probabilities a delta tells."""
    return sum(1 + len(token.top) for token in _scored(delta))


def _scored(delta: Delta) -> list[ScoredToken]:
    reply = [] if delta.scored is UNSET else delta.scored
    return reply if delta.prompt is UNSET else [*reply, *delta.prompt.scored]


def _last(items: _Items, count: int) -> _Items:
    """The last `count` of them; none for a count below 1."""
    return items[-count:] if count > 0 else items[:0]
