"""The generation loop: a request becomes token ids, hidden states, and text as it appears.

It lives once, here: a volunteer that holds a head runs it for browsers and REST, the Python client
for its own process. Each step is one trip over the route; head work (embedding, logits, sampling)
runs wherever `Head.run` puts it. While a step travels, its predecessor's text is made and handed out.
Does not know who reads the text, or how frames travel.
"""

import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial

import torch
from msgspec.structs import replace

from corolla.beginning import Beginner, LastingSession, Prompt
from corolla.exchange import Exchange
from corolla.head_steps import HeadStep, HeadSteps, Runner
from corolla.models.head import HeadModel
from corolla.prefixes import PrefixIndex
from corolla.sampling import Sampler, resolved_seed
from corolla.session import PreparedStep, RemoteSession, Step, slice_lengths
from corolla.stopping import StopStrings
from corolla.tensors import to_wire
from corolla.text import TextCodec
from schema.errors import ContextTooLong, InvalidRequest, NotFinite, ShapeMismatch
from schema.generation import FinishReason, GenerationRequest, HopTiming, PromptDetails, Timing, Usage
from schema.tensors import WireTensor

PREFILL_TOKENS = 512
"""Tokens of one prefill slice at most, however narrow the model."""


@dataclass(frozen=True, slots=True)
class Head:
    """A model's head with its tokenizer, and where its work runs."""

    model: HeadModel
    codec: TextCodec
    hidden_size: int
    context: int
    """Positions: prompt and reply together."""
    can_chunk_prefill: bool
    run: Runner
    steps: HeadSteps
    prefixes: PrefixIndex | None = None
    """What the hops may still hold of earlier replies; None: every prompt is computed as a whole."""


@dataclass(frozen=True, slots=True)
class TextDelta:
    """More text; `tokens` counts those generated so far."""

    text: str
    tokens: int
    ids: tuple[int, ...] = ()
    """The tokens since the last delta."""


@dataclass(frozen=True, slots=True)
class Completed:
    """The reply is complete."""

    reason: FinishReason
    usage: Usage
    timing: Timing


async def generate(
    head: Head,
    exchange: Exchange,
    request: GenerationRequest,
    asker: str | None = "",
    generated: Sequence[int] = (),
) -> AsyncGenerator[TextDelta | Completed]:
    """The reply to a request, as it appears; ends with `Completed`.

    What hops still hold of the same `asker`'s replies is not computed again; None: everything is. A hop that
    fails is replaced in mid-reply, see corolla/repair.py.

    `generated`: the first tokens of the reply, when another head has begun it. Its text comes again, from the
    beginning; of a request without a seed only the text of these tokens is sure to be the same.

    Closing the iterator before that ends the session and frees its KV caches on every hop. After it they may
    be kept, see corolla/beginning.py.

    Raises:
        InvalidRequest, ContextTooLong: the request cannot be served by this model.
        ModelUnavailable: some blocks have no volunteer.
        CorollaError: why the reply cannot be finished.
    """
    started = time.monotonic()
    tokens = await head.run(partial(encode_request, head.codec, request))
    limit = token_limit(len(tokens), head.context, request.stopping.max_tokens)
    reply = _Reply(head, request, tokens, limit)
    for delta in filter(None, map(reply.resume, generated)):
        yield delta
    route: list[HopTiming] = []
    cached = 0
    if reply.reason is None:
        prompt = Prompt(request.model, asker or "", reply.fed(), partial(_embedded, head))
        async with Beginner(exchange, None if asker is None else head.prefixes).begin(prompt) as session:
            async with aclosing(_decode(head, session, reply)) as deltas:
                async for delta in deltas:
                    yield delta
            session.fed = reply.fed()
            route, cached = _route_of(session.remote), session.cached
    rest = reply.rest()
    if rest is not None:
        yield rest
    timing = Timing(first_token=reply.first_at - started, total=time.monotonic() - started, route=route)
    yield Completed(reply.reason or "stop", _usage(len(tokens), reply.tokens, cached), timing)


async def _decode(head: Head, session: LastingSession, reply: "_Reply") -> AsyncGenerator[TextDelta]:
    """Token after token, to the reply's end."""
    hidden = session.hidden
    while reply.reason is None:
        position = session.position  # of the token that is to be found; a prepared step is behind it
        prepared = None if reply.is_last else session.prepare()
        try:
            token, entering = await head.steps.advance(reply.step(hidden, position, prepared))
        except (ShapeMismatch, NotFinite) as error:
            hidden = await session.replace(error, reply.fed)
            continue
        in_flight: Step | None = None
        if entering is None and prepared is not None:
            session.withdraw(prepared)
        elif entering is not None and not reply.is_last:
            in_flight = session.send(entering) if prepared is None else prepared.step
        delta = reply.take(token)
        if delta is not None:
            yield delta
        if in_flight is not None and reply.reason is None:
            hidden = await session.receive(in_flight, reply.fed)


class _Reply:
    """One sequence at its head: sampler, detokenizer, end tokens and stop strings.

    The sampler runs on the head's thread, the rest on the driver's; never at once.
    """

    def __init__(self, head: Head, request: GenerationRequest, prompt: list[int], limit: int) -> None:
        """`limit`: tokens that it may have."""
        self.ids: list[int] = []
        """Tokens generated so far, the end token included."""
        self.reason: FinishReason | None = None
        """Why it has ended."""
        self.first_at = 0.0
        """When the first token was there, on the clock of `time.monotonic`."""
        self._limit = limit
        self._told = 0
        """Tokens that deltas have told of."""
        self._prompt = prompt
        self._sampler = Sampler(request.sampling, prompt, resolved_seed(request.sampling))
        # A chat's reply stands alone; a completion continues its prompt, spaces included.
        self._detokenizer = head.codec.detokenizer(prompt if request.messages is None else ())
        self._end_tokens = head.codec.end_tokens(request.stopping.stop_token_ids)
        self._stops = StopStrings(request.stopping.stop)

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
        """As `take`, for a token that another head has drawn. What follows the reply's end is left out."""
        if self.reason is not None:
            return None
        self._sampler.accept(token)
        return self.take(token)

    def take(self, token: int) -> TextDelta | None:
        """The next token is there: the text that there is of the reply now."""
        self.ids.append(token)
        self.first_at = self.first_at or time.monotonic()
        if token in self._end_tokens:
            self.reason = "stop"
            return None
        text, stopped = self._stops.push(self._detokenizer.push(token))
        if stopped:
            self.reason = "stop"
        elif self.tokens == self._limit:
            self.reason = "length"
        return self._delta(text)

    def rest(self) -> TextDelta | None:
        """Text that was held back and turned out to belong to the reply."""
        if self._stops.stopped:
            return None
        text, stopped = self._stops.push(self._detokenizer.flush())
        return self._delta(text if stopped else text + self._stops.flush())

    def _delta(self, text: str) -> TextDelta | None:
        if not text:
            return None
        ids, self._told = tuple(self.ids[self._told :]), len(self.ids)
        return TextDelta(text, self.tokens, ids)


def encode_request(codec: TextCodec, request: GenerationRequest) -> list[int]:
    """The prompt's token ids.

    Raises:
        InvalidRequest: neither or both of messages and prompt, or what the codec cannot encode.
    """
    if (request.messages is None) is (request.prompt is None):
        raise InvalidRequest("give either messages or a prompt")
    if request.messages is not None:
        return codec.encode_chat(request.messages)
    prompt = request.prompt or ""
    return codec.encode_prompt(prompt)


def token_limit(prompt_tokens: int, context: int, max_tokens: int | None) -> int:
    """Tokens that the reply may have.

    Raises:
        InvalidRequest: an empty prompt. ContextTooLong: the prompt leaves no room.
    """
    if prompt_tokens == 0:
        raise InvalidRequest("the prompt is empty", param="prompt")
    room = context - prompt_tokens
    if room < 1:
        raise ContextTooLong(
            f"the prompt has {prompt_tokens} tokens and the model {context} positions: "
            "shorten the conversation"
        )
    return room if max_tokens is None else min(room, max_tokens)


async def _embedded(head: Head, tokens: list[int], position: int, hops: int) -> list[WireTensor]:
    return await head.run(partial(_embed, head, tokens[position:], position, hops))


def _embed(head: Head, tokens: list[int], position: int, hops: int) -> list[WireTensor]:
    """Embeddings of tokens, [1, tokens, hidden], in slices for `hops` hops. For the head's thread."""
    hidden = head.model.embed(torch.tensor([tokens]), position=position)
    if not head.can_chunk_prefill:
        return [to_wire(hidden)]
    bytes_per_token = hidden.element_size() * hidden.shape[2]
    lengths = slice_lengths(len(tokens), bytes_per_token, PREFILL_TOKENS, hops)
    return [to_wire(piece) for piece in hidden.split(lengths, dim=1)]


def _usage(prompt: int, completion: int, cached: int) -> Usage:
    usage = Usage(prompt, completion, prompt + completion)
    return replace(usage, prompt_tokens_details=PromptDetails(cached)) if cached else usage


def _route_of(session: RemoteSession) -> list[HopTiming]:
    return [HopTiming(hop.name, hop.start, hop.end) for hop in session.grant.hops]
