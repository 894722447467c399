"""The generation loop: a request becomes token ids, hidden states, and text as it appears.

It lives once, here: a volunteer that holds a head runs it for browsers and REST, the Python client
for its own process. Each step is one trip over the route; head work (embedding, logits, sampling)
runs wherever `Head.run` puts it. While a step travels, its predecessor's text is made and handed out.
Does not know who reads the text, or how frames travel.
"""

import time
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import torch
from msgspec.structs import replace

from corolla.beginning import Beginner, Prompt
from corolla.exchange import Exchange
from corolla.head_steps import HeadStep, HeadSteps, Runner
from corolla.models.head import HeadModel
from corolla.prefixes import PrefixIndex
from corolla.sampling import Sampler, resolved_seed
from corolla.session import PreparedStep, RemoteSession, Step, slice_lengths
from corolla.stopping import StopStrings
from corolla.tensors import to_wire
from corolla.text import TextCodec
from schema.errors import ContextTooLong, InvalidRequest
from schema.frames import Flags, FrameType
from schema.generation import FinishReason, GenerationRequest, HopTiming, PromptDetails, Timing, Usage
from schema.tensors import WireTensor

PREFILL_TOKENS = 512
"""Tokens of one prefill slice at most, however narrow the model."""

_T = TypeVar("_T")


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


@dataclass(frozen=True, slots=True)
class Completed:
    """The reply is complete."""

    reason: FinishReason
    usage: Usage
    timing: Timing


async def generate(
    head: Head, exchange: Exchange, request: GenerationRequest, asker: str | None = ""
) -> AsyncGenerator[TextDelta | Completed]:
    """The reply to a request, as it appears; ends with `Completed`.

    What hops still hold of the same `asker`'s replies is not computed again; None: everything is.

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
    reply = _Reply(head, request, tokens)
    prompt = Prompt(request.model, asker or "", tokens, partial(_embedded, head, reply))
    async with Beginner(exchange, None if asker is None else head.prefixes).begin(prompt) as begun:
        session, hidden = begun.session, begun.hidden
        first_token = 0.0
        reason: FinishReason | None = None
        while reason is None:
            position = session.position
            prepared = None if reply.tokens + 1 == limit else session.prepare()
            token, next_hidden = await head.steps.advance(reply.step(hidden, position, prepared))
            reply.ids.append(token)
            first_token = first_token or time.monotonic() - started
            in_flight = None
            if next_hidden is None:
                reason = "stop"
                if prepared is not None:
                    session.withdraw(prepared)
            elif reply.tokens == limit:
                reason = "length"
            else:
                in_flight = _in_flight(session, prepared, next_hidden)
            text, stopped = reply.read(token, is_end=next_hidden is None)
            reason = "stop" if stopped else reason
            if text:
                yield TextDelta(text, reply.tokens)
            if in_flight is not None and reason is None:
                hidden = await session.receive(in_flight)
        begun.fed = tokens + reply.ids
    rest = reply.rest()
    if rest:
        yield TextDelta(rest, reply.tokens)
    total = time.monotonic() - started
    timing = Timing(first_token=first_token, total=total, route=_route_of(session))
    yield Completed(reason, _usage(len(tokens), reply.tokens, begun.cached), timing)


class _Reply:
    """One sequence at its head: sampler, detokenizer, end tokens and stop strings.

    `embed_prompt` and the sampler run on the head's thread, the rest on the driver's; never at once.
    """

    def __init__(self, head: Head, request: GenerationRequest, prompt: list[int]) -> None:
        self.ids: list[int] = []
        """Tokens generated so far, the end token included."""
        self._head = head
        self._prompt = prompt
        self._sampler = Sampler(request.sampling, prompt, resolved_seed(request.sampling))
        # A chat's reply stands alone; a completion continues its prompt, spaces included.
        self._detokenizer = head.codec.detokenizer(prompt if request.messages is None else ())
        self._end_tokens = head.codec.end_tokens(request.stopping.stop_token_ids)
        self._stops = StopStrings(request.stopping.stop)

    @property
    def tokens(self) -> int:
        return len(self.ids)

    def embed_prompt(self, position: int, hops: int) -> list[WireTensor]:
        """Embeddings of the prompt from `position` on, [1, tokens, hidden], in slices for `hops` hops."""
        prompt = self._prompt[position:]
        hidden = self._head.model.embed(torch.tensor([prompt]), position=position)
        if not self._head.can_chunk_prefill:
            return [to_wire(hidden)]
        bytes_per_token = hidden.element_size() * hidden.shape[2]
        lengths = slice_lengths(len(prompt), bytes_per_token, PREFILL_TOKENS, hops)
        return [to_wire(piece) for piece in hidden.split(lengths, dim=1)]

    def step(self, hidden: WireTensor, position: int, prepared: PreparedStep | None) -> HeadStep:
        """What the head has to do with `hidden`, what came back of the position before `position`."""
        launch = None if prepared is None else prepared.launch
        return HeadStep(hidden, position, self._sampler, self._end_tokens, launch)

    def read(self, token: int, *, is_end: bool) -> tuple[str, bool]:
        """The text that a token adds, and whether a stop string ends the reply."""
        if is_end:
            return "", False
        return self._stops.push(self._detokenizer.push(token))

    def rest(self) -> str:
        """Text that was held back and turned out to belong to the reply."""
        if self._stops.stopped:
            return ""
        text, stopped = self._stops.push(self._detokenizer.flush())
        return text if stopped else text + self._stops.flush()


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


async def _embedded(head: Head, reply: _Reply, position: int, hops: int) -> list[WireTensor]:
    return await head.run(partial(reply.embed_prompt, position, hops))


def _in_flight(session: RemoteSession, prepared: PreparedStep | None, hidden: WireTensor) -> Step:
    """The decode step that `hidden` enters, sent unless it was launched already."""
    if prepared is not None:
        return prepared.step
    return session.send([hidden], kind=FrameType.STEP, want=Flags.LAST_ONLY)


def _usage(prompt: int, completion: int, cached: int) -> Usage:
    usage = Usage(prompt, completion, prompt + completion)
    return replace(usage, prompt_tokens_details=PromptDetails(cached)) if cached else usage


def _route_of(session: RemoteSession) -> list[HopTiming]:
    return [HopTiming(hop.name, hop.start, hop.end) for hop in session.grant.hops]
