"""The generation loop: a request becomes token ids, hidden states, and text as it appears.

It lives once, here: a volunteer that holds a head runs it for everybody, browsers and REST. Each step is
one trip over the route; head work (embedding, logits, sampling) runs wherever `Head.run` puts it. While a
step travels, its predecessor's text is made and handed out.
Does not know who reads the text, or how frames travel.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import NamedTuple, TypeVar

import torch
from msgspec.structs import replace

from corolla.beginning import Beginner, LastingSession, Prompt
from corolla.echo import prompt_parts
from corolla.exchange import Exchange
from corolla.head_steps import HeadSteps, Runner
from corolla.models.head import HeadModel
from corolla.prefixes import PrefixIndex
from corolla.reply import Reply, TextDelta
from corolla.scoring import PromptScorer, TokenScore
from corolla.session import Step
from corolla.slices import slice_lengths
from corolla.tensors import to_wire
from corolla.text import TextCodec
from corolla.tracing import HopMeans
from schema.errors import ContextTooLong, GenerationFailed, InvalidRequest, NotFinite, ShapeMismatch
from schema.generation import (
    FinishReason,
    GenerationRequest,
    HeadTiming,
    HopTiming,
    PromptDetails,
    ScoredToken,
    Timing,
    Usage,
)
from schema.limits import MAX_SCORES
from schema.messages import GrantedHop
from schema.tensors import WireTensor

PREFILL_TOKENS = 512
"""Tokens of one prefill slice at most, however narrow the model."""
AT_ONCE = 64
"""Tokens that are told, or taken from another head, in one turn of the loop: a millisecond's worth."""

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


class ReplyTimes(NamedTuple):
    """Where a reply's time went on its route."""

    route: list[HopTiming] = []
    prefill: list[HopTiming] = []
    repairs: int = 0


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
    on_break: Callable[[], None] | None = None,
) -> AsyncGenerator[TextDelta | Completed]:
    """The reply to a request, as it appears; ends with `Completed`.

    What hops still hold of the same `asker`'s replies is not computed again; None: everything is. A hop that
    fails is replaced in mid-reply, see corolla/repair.py.

    `generated`: the first tokens of the reply, when another head has begun it. Its text comes again, from the
    beginning; of a request without a seed only the text of these tokens is sure to be the same. Heads
    are strangers to each other: they are looked at first.

    `on_break` is called when a hop has failed and others are sought; it raises nothing.

    Closing the iterator before that ends the session and frees its KV caches on every hop. After it they may
    be kept, see corolla/beginning.py.

    Raises:
        InvalidRequest, ContextTooLong: the request cannot be served by this model.
        ModelUnavailable: some blocks have no volunteer.
        GenerationFailed: the reply was begun with tokens that this model does not have.
        CorollaError: why the reply cannot be finished.
    """
    started = time.monotonic()
    tokens = await head.codec.aside(partial(encode_request, head, request))
    param = "prompt" if request.messages is None else "messages"
    room = token_limit(len(tokens), head.context, request.stopping.max_tokens, param)
    limit = score_limit(request, len(tokens), room)
    constraint = await head.codec.constraint_aside(request) if _is_held(request) else None
    _check_generated(generated, head.codec.vocab_size)
    reply = Reply(head.codec, request, tokens, limit, constraint, generated)
    again = _in_turns(map(reply.resume, generated), at_once=AT_ONCE)
    resumed = [delta async for delta in again if delta is not None]
    scorer = _scorer(head, request, tokens, reply.fed())
    if scorer is None:
        async for delta in _in_turns(await _echo(head.codec, request, tokens), resumed):
            yield delta
    times, cached = ReplyTimes(), 0
    if reply.reason is None or scorer is not None:
        states = None if scorer is None else partial(_score, head, scorer)
        prompt = Prompt(request.model, asker or "", reply.fed(), partial(embedded, head), states)
        beginner = Beginner(exchange, None if asker is None else head.prefixes, on_break)
        async with beginner.begin(prompt) as session:
            if scorer is not None:
                scores = scorer.between(len(tokens), len(tokens) + reply.tokens)
                echo = await _echo(head.codec, request, tokens, scorer)
                async for delta in _in_turns(echo, reply.score(scores, resumed)):
                    yield delta
            async with aclosing(_decode(head, session, reply)) as deltas:
                async for delta in deltas:
                    yield delta
            session.fed = reply.fed()
            times, cached = _times_of(session), session.cached
    rest = reply.rest()
    if rest is not None:
        yield rest
    ended = time.monotonic()
    timing = Timing(
        first_token=(reply.first_at or ended) - started,
        total=ended - started,
        route=times.route,
        prefill=times.prefill,
        head=_head_timing(reply),
        repairs=times.repairs,
    )
    yield Completed(reply.reason or "stop", _usage(len(tokens), reply.tokens, cached), timing)


def _check_generated(tokens: Sequence[int], vocabulary: int) -> None:
    """An embedding that is asked for another row ends a GPU's process, not only the reply."""
    wrong = next((token for token in tokens if not 0 <= token < vocabulary), None)
    if wrong is not None:
        raise GenerationFailed(
            f"Another head has begun this reply with token {wrong}, which the model does not have: "
            f"its tokens go from 0 to {vocabulary - 1}. Ask again."
        )


def _is_held(request: GenerationRequest) -> bool:
    """Whether the reply has to have a form."""
    return request.format is not None or (request.tools is not None and request.tools.must_call)


def _scorer(head: Head, request: GenerationRequest, prompt: list[int], fed: list[int]) -> PromptScorer | None:
    """What finds the scores of tokens that are there before the first step; None: none are asked for."""
    since = 1 if request.echo else len(prompt)
    if request.logprobs is None or since >= len(fed):
        return None
    return PromptScorer(head.model, fed, since, request.logprobs)


async def _score(head: Head, scorer: PromptScorer, position: int, states: WireTensor) -> None:
    for piece in scorer.pieces(position, states):
        await head.run(piece)


async def _echo(
    codec: TextCodec, request: GenerationRequest, prompt: list[int], scorer: PromptScorer | None = None
) -> Iterator[TextDelta]:
    """The prompt, where it is to be told. A text comes as it was given."""
    if not request.echo:
        return iter(())
    text = request.prompt
    if not isinstance(text, str):
        text = await codec.aside(partial(codec.decode, prompt))
    scored: list[ScoredToken] = []
    if request.logprobs is not None:
        scores = scorer.between(0, len(prompt)) if scorer else [TokenScore(prompt[0], 0.0, is_first=True)]
        scored = [told async for told in _in_turns(map(codec.score_teller().tell, scores), at_once=AT_ONCE)]
    return (TextDelta("", 0, prompt=part) for part in prompt_parts(text, scored))


async def _in_turns(*sources: Iterable[_T], at_once: int = 1) -> AsyncGenerator[_T]:
    """All of them, in order, so many in each turn of the loop: others' tokens go on meanwhile."""
    for count, item in enumerate(chain(*sources), start=1):
        yield item
        if count % at_once == 0:
            await asyncio.sleep(0)


async def _decode(head: Head, session: LastingSession, reply: Reply) -> AsyncGenerator[TextDelta]:
    """Token after token, to the reply's end."""
    hidden = session.hidden
    while reply.reason is None:
        position = session.position  # of the token that is to be found; a prepared step is behind it
        prepared = None if reply.is_last else session.prepare()
        began = time.monotonic()
        try:
            token, entering = await head.steps.advance(reply.step(hidden, position, prepared))
        except (ShapeMismatch, NotFinite) as error:
            hidden = await session.replace(error, reply.fed)
            continue
        reply.head_seconds += time.monotonic() - began
        reply.head_steps += 1
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


def encode_request(head: Head, request: GenerationRequest) -> list[int]:
    """The prompt's token ids.

    Raises:
        InvalidRequest: neither or both of messages and prompt, or what the codec cannot encode.
        ContextTooLong: a text that is certainly too long.
    """
    if (request.messages is None) is (request.prompt is None):
        raise InvalidRequest("give either messages or a prompt")
    if request.tools is not None and request.messages is None:
        raise InvalidRequest("tools are for chats: give messages, not a prompt", param="tools")
    head.codec.check_bias(request.sampling.logit_bias)
    if request.messages is not None:
        messages, tools = request.messages, request.tools
        return head.codec.encode_chat(messages, tools, head.context, continues=request.continues)
    return head.codec.encode_prompt(request.prompt or "", head.context)


def token_limit(prompt_tokens: int, context: int, max_tokens: int | None, param: str) -> int:
    """Tokens that the reply may have; 0 where none are asked for. `param`: the field that holds the prompt.

    Raises:
        InvalidRequest: an empty prompt. ContextTooLong: the prompt leaves no room.
    """
    if prompt_tokens == 0:
        raise InvalidRequest("the prompt is empty", param=param)
    room = context - prompt_tokens
    if room < (0 if max_tokens == 0 else 1):
        raise ContextTooLong(
            f"the prompt has {prompt_tokens} tokens and the model {context} positions: "
            "shorten the conversation",
            param=param,
        )
    return room if max_tokens is None else min(room, max_tokens)


def score_limit(request: GenerationRequest, prompt_tokens: int, limit: int) -> int:
    """Tokens that the reply may have, of `limit`, for all their scores to be told.

    Raises InvalidRequest where as many tokens are asked for, and too many scores of each.
    """
    if request.logprobs is None:
        return limit
    echoed, each = prompt_tokens if request.echo else 0, 1 + request.logprobs
    room = MAX_SCORES // each - echoed
    wanted = min(limit, 1) if request.stopping.max_tokens is None else limit
    if room < wanted:
        raise InvalidRequest(
            f"{echoed + wanted} tokens with the {request.logprobs} likeliest beside each have "
            f"{(echoed + wanted) * each} log-probabilities, and a reply may have {MAX_SCORES}: "
            "ask for fewer of the likeliest, or for fewer tokens.",
            param="logprobs",
        )
    return min(limit, room)


async def embedded(head: Head, tokens: list[int], position: int, hops: int) -> list[WireTensor]:
    """What enters the first block for the tokens from `position` on, in slices for so many hops."""
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


def _head_timing(reply: Reply) -> HeadTiming | None:
    steps = reply.head_steps
    return HeadTiming(reply.head_seconds / steps, steps) if steps else None


def _times_of(session: LastingSession) -> ReplyTimes:
    hops, times = session.remote.grant.hops, session.remote.times
    prefill = times.prefill()
    return ReplyTimes(
        route=_hop_timings(hops, times.decode()),
        prefill=_hop_timings(hops, prefill) if prefill else [],
        repairs=session.repairs,
    )


def _hop_timings(hops: Sequence[GrantedHop], means: Sequence[HopMeans]) -> list[HopTiming]:
    """`means`: of each hop, or of none."""
    timings = [HopTiming(hop.name, hop.start, hop.end) for hop in hops]
    return (
        [
            replace(timing, compute=share.compute, queue=share.queue, wire=share.wire, steps=steps)
            for timing, (share, steps) in zip(timings, means, strict=True)
        ]
        if means
        else timings
    )
