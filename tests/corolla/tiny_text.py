"""Heads and hops for the generation loop: a real tiny Llama in parts, and a head that says what it must."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from time import monotonic
from typing import TypeVar, cast

import torch
from tokenizers import Tokenizer
from tokenizers.decoders import ByteLevel as ByteLevelDecoder
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel
from transformers import PreTrainedTokenizerFast

from benchmarks.models import Shape, make_llama
from corolla.exchange import Exchange, Launch, WorkOrder
from corolla.generation import Head
from corolla.head_steps import HeadSteps
from corolla.models.facts import describe
from corolla.models.head import HeadModel
from corolla.models.loading import LoadOptions
from corolla.models.source import ModelSource
from corolla.models.span import SpanModel
from corolla.text import TextCodec
from schema.frames import Flags, Frame, FrameType, forked_session
from schema.ids import PeerId, SessionId, session_at_hop
from schema.outbox import Urgency
from schema.routes import Hop
from tests.corolla.fakes import HIDDEN, ME, Hops, failure, returned
from volunteer.kvcache import KVAccount
from volunteer.stage import Stage
from volunteer.work import Result, Work

SHAPE = Shape(hidden=32, blocks=4, intermediate=64, heads=4, vocabulary=128)
"""Its text is its token ids, see `benchmarks.models`."""
END = 256
"""The end token of `byte_codec`, after one token for each byte."""
_T = TypeVar("_T")


def inline(work: Callable[[], _T]) -> Awaitable[_T]:
    """Runs head work at once, where it is awaited."""

    async def run() -> _T:
        return work()

    return run()


# ---- a real tiny model ------------------------------------------------------------------------


class TinyLlama:
    """A random Llama on disk, and its parts."""

    def __init__(self, folder: Path, source: ModelSource | None = None) -> None:
        """`source`: another model of the same width and vocabulary, with the Llama's tokenizer."""
        self.folder = make_llama(folder, SHAPE)
        self.source = source or ModelSource.open(str(folder))
        self._facts = describe(self.source, torch.float32)

    def head(self, context: int = 2048) -> Head:
        codec = TextCodec.load(self.folder)
        model = HeadModel.load(self.source)
        steps = HeadSteps(model, SHAPE.hidden, inline)
        return Head(model, codec, SHAPE.hidden, context, True, inline, steps)

    def stage(self, start: int, end: int) -> Stage:
        return Stage(SpanModel.load(self.source, start, end), self._facts, KVAccount(2**30))


class LocalStage:
    """Serves a stage's blocks in the driver's own process."""

    def __init__(self, exchange: Exchange, stage: Stage) -> None:
        self._exchange = exchange
        self._stage = stage
        exchange.serve(self)

    def prepare(self, frame: Frame, order: WorkOrder) -> Launch:
        return lambda payload: self.on_work(frame._replace(payload=payload), order)

    def on_work(self, frame: Frame, order: WorkOrder) -> None:
        flags = Flags(frame.flags) if order.is_last else Flags.NONE
        result = run_step(self._stage, frame, order.session, frame.payload, flags)
        if result.error is None:
            self._exchange.answer(frame, result.payload)
        else:
            self._exchange.fail(frame, result.error)

    def on_close(self, session: SessionId, keep: bool = False) -> None:
        end_session(self._stage, session, keep=keep)


class StageHops(Hops):
    """Hops that compute: each frame goes through the stages that are left of its route."""

    def __init__(self, exchange: Exchange, stages: Mapping[PeerId, Stage]) -> None:
        super().__init__(exchange, tuple(Hop(peer, stage.span) for peer, stage in stages.items()))
        self._stages = list(stages.values())
        if ME in stages:
            LocalStage(exchange, stages[ME])

    @property
    def sessions(self) -> int:
        """KV caches on all hops."""
        return sum(stage.sessions for stage in self._stages)

    def send_frame(self, frame: bytes, urgency: Urgency) -> None:
        super().send_frame(frame, urgency)
        if self.closed:
            closed = self.frames[-1]
            for stage in self._stages:
                keep = bool(closed.flags & Flags.KEEP)
                end_session(stage, session_at_hop(ME, closed.session), keep=keep)

    def _answer(self, frame: Frame) -> Frame:
        payload = frame.payload
        for index in range(frame.hop, len(self._stages)):
            is_last = index + 1 == len(self._stages)
            session = session_at_hop(ME, frame.session)
            flags = Flags(frame.flags) if is_last else Flags.NONE
            result = run_step(self._stages[index], frame, session, payload, flags)
            if result.error is not None:
                return failure(frame, result.error)
            payload = result.payload
        return returned(frame, bytes(payload))


def end_session(stage: Stage, session: SessionId, *, keep: bool) -> None:
    if keep:
        stage.keep(session, monotonic())
    else:
        stage.close(session)


def run_step(
    stage: Stage, frame: Frame, session: SessionId, payload: bytes | memoryview, flags: Flags
) -> Result:
    work = Work(
        kind=FrameType(frame.type),
        session=session,
        step=frame.step,
        position=frame.position,
        epoch=frame.epoch,
        span=stage.span,
        payload=payload,
        flags=flags,
        forks=session_at_hop(ME, forked_session(payload)) if frame.type == FrameType.FORK else None,
    )
    return stage.run([work], 512, monotonic())[0]


# ---- a head that says what it is told ---------------------------------------------------------


class ScriptedModel:
    """A head model whose logits name the script's tokens one after the other, whatever comes back."""

    options = LoadOptions()

    def __init__(self, script: Sequence[int], vocabulary: int) -> None:
        self._script = list(script)
        self._vocabulary = vocabulary

    def embed(self, ids: torch.Tensor, position: int = 0) -> torch.Tensor:
        return torch.zeros(*ids.shape, HIDDEN)

    def embed_tokens(self, tokens: Sequence[int], positions: Sequence[int]) -> torch.Tensor:
        return torch.zeros(len(tokens), 1, HIDDEN)

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        scores = torch.zeros(1, 1, self._vocabulary)
        scores[0, 0, self._script.pop(0)] = 1.0
        return scores


def byte_codec() -> TextCodec:
    """One token for each byte, an end token, and a chat template."""
    letters = sorted(ByteLevel.alphabet())
    tokenizer = Tokenizer(BPE(vocab={letter: index for index, letter in enumerate(letters)}, merges=[]))
    tokenizer.pre_tokenizer = ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = ByteLevelDecoder()
    wrapped = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<end>")
    wrapped.chat_template = "{% for message in messages %}{{ message.content }}\n{% endfor %}"
    return TextCodec(wrapped, END + 1, frozenset({END}))


def scripted_head(says: str, *, ends: bool = True, context: int = 2048) -> Head:
    """A head that says a text byte by byte, then its end token, or the text again."""
    codec = byte_codec()
    tokens = codec.encode_prompt(says)
    script = [*tokens, END] if ends else tokens * 100
    model = cast(HeadModel, ScriptedModel(script, END + 1))
    return Head(model, codec, HIDDEN, context, True, inline, HeadSteps(model, HIDDEN, inline))
