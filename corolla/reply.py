"""One reply at its head: which tokens it has, what they say, and when it ends.

Puts together the sampler, the detokenizer, end tokens and stop strings, and what is told of tokens beside
their text. Does not know where hidden states come from, or who reads the text.
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from corolla.constraints import GrammarConstraint
from corolla.head_steps import HeadStep
from corolla.reply_calls import ReplyCalls
from corolla.sampling import Sampler, resolved_seed
from corolla.scoring import TokenScore
from corolla.session import PreparedStep
from corolla.stopping import StopStrings
from corolla.text import TextCodec
from schema.generation import FinishReason, GenerationRequest, ScoredToken
from schema.messages import CallMade, PromptPart
from schema.tensors import WireTensor

MOST_UNTOLD = 64
"""Scored tokens without text that are told with the next ones: a message has room for some thousands."""


@dataclass(frozen=True, slots=True)
class TextDelta:
    """More text; `tokens` counts those generated so far."""

    text: str
    tokens: int
    ids: tuple[int, ...] = ()
    """The tokens since the last delta."""
    scored: tuple[ScoredToken, ...] = ()
    """One for each of `ids`, where they are asked for."""
    prompt: PromptPart | None = None
    """More of the prompt, before the reply."""
    calls: tuple[CallMade, ...] = ()
    """Functions that the model calls, behind the text."""


class Reply:
    """One sequence at its head.

    The sampler runs on the head's thread, the rest on the driver's; never at once.
    """

    def __init__(
        self,
        codec: TextCodec,
        request: GenerationRequest,
        prompt: list[int],
        limit: int,
        constraint: GrammarConstraint | None = None,
        generated: Sequence[int] = (),
    ) -> None:
        """`limit`: tokens that it may have. `constraint`: what it is held to. `generated`: what another head
        has drawn; each token has to be resumed before a step.
        """
        self.ids: list[int] = []
        """Tokens generated so far, the end token included."""
        self.reason: FinishReason | None = None if limit else "length"
        """Why it has ended."""
        self.first_at = 0.0
        """When the first token was there, on the clock of `time.monotonic`."""
        self.head_seconds = 0.0
        """In which the head has made tokens of what came back."""
        self.head_steps = 0
        self._limit = limit
        self._told = 0
        """Tokens that deltas have told of."""
        self._prompt = prompt
        self._constraint = constraint
        self._sampler = Sampler(
            request.sampling,
            prompt,
            resolved_seed(request.sampling),
            generated,
            constraint=constraint,
            alternatives=request.logprobs,
        )
        # A chat's reply stands alone; a completion continues its prompt, spaces included.
        goes_on = request.messages is None or request.continues
        after = prompt if goes_on else ()
        self._detokenizer = codec.detokenizer(after)
        self._teller = None if request.logprobs is None else codec.score_teller(after)
        self._end_tokens = codec.end_tokens(request.stopping.stop_token_ids)
        self._stops = StopStrings(request.stopping.stop)
        # What is held to a format is that and no call, whatever it looks like.
        tools = request.tools if request.format is None else None
        self._calls = None if tools is None else ReplyCalls(codec, tools)

    @property
    def tokens(self) -> int:
        return len(self.ids)

    @property
    def is_last(self) -> bool:
        """Whether the next token is the last one that there may be."""
        return self.tokens + 1 == self._limit

    def fed(self) -> list[int]:
        """The prompt and the reply so far."""
        return self._prompt + self.ids

    def step(self, hidden: WireTensor, position: int, prepared: PreparedStep | None) -> HeadStep:
        """What the head has to do with `hidden`, what came back of the position before `position`.

        `position`: of the token that is to be found.
        """
        launch = None if prepared is None else prepared.launch
        return HeadStep(hidden, position, self._sampler, self._end_tokens, launch)

    def resume(self, token: int) -> TextDelta | None:
        """As `take`, for a token that another head has drawn. What follows the reply's end is left out.

        Its score is not known yet: see `score`.
        """
        if self.reason is not None:
            return None
        if self._constraint is not None:
            self._constraint.accept(token)
        return self.take(token)

    def score(self, resumed: list[TokenScore], deltas: list[TextDelta]) -> Iterator[TextDelta]:
        """The scores of the tokens that another head has drawn: its deltas with them, to be taken at once."""
        self._sampler.scores[:0] = resumed
        return map(self._scored, deltas)

    def take(self, token: int) -> TextDelta | None:
        """The next token is there: the text that there is of the reply now."""
        self.ids.append(token)
        self.first_at = self.first_at or time.monotonic()
        if token in self._end_tokens:
            self.reason = "stop"
            return None
        text = self._detokenizer.push(token)
        if self._calls is not None:
            text = self._calls.push(text, token)
        text, stopped = self._stops.push(text)
        if stopped or self._is_complete():
            self.reason = "stop"
        elif self.tokens == self._limit:
            self.reason = "length"
        return self._delta(text)

    def _is_complete(self) -> bool:
        """Whether there is all that was asked for."""
        if self._constraint is not None and self._constraint.is_complete:
            return True
        return self._calls is not None and self._calls.is_over

    def rest(self) -> TextDelta | None:
        """Text that was held back and turned out to belong to the reply, and scores of tokens without
        text."""
        text = ""
        if not self._stops.stopped:
            text = self._detokenizer.flush()
            if self._calls is not None:
                text = self._calls.flush(text)
            text, stopped = self._stops.push(text)
            if stopped:
                self.reason = "stop"
            else:
                text += self._stops.flush()
        if self._calls is not None and self._calls.count and self.reason == "stop":
            self.reason = "tool_calls"
        return self._delta(text, is_rest=True)

    def _delta(self, text: str, is_rest: bool = False) -> TextDelta | None:
        calls = () if self._calls is None else self._calls.taken()
        if not (text or calls):
            untold = 0 if self._teller is None else self.tokens - self._told
            if not (untold and (is_rest or untold >= MOST_UNTOLD)):
                return None
        ids, self._told = tuple(self.ids[self._told :]), len(self.ids)
        delta = TextDelta(text, self.tokens, ids, calls=calls)
        return self._scored(delta) if len(self._sampler.scores) == self.tokens else delta

    def _scored(self, delta: TextDelta) -> TextDelta:
        """With the scores of its tokens. For every delta once, in their order."""
        if self._teller is None:
            return delta
        scores: Sequence[TokenScore] = self._sampler.scores[delta.tokens - len(delta.ids) : delta.tokens]
        return replace(delta, scored=tuple(map(self._teller.tell, scores)))
