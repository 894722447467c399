"""Heads and hops for the generation loop: a real tiny Llama in parts, and a head that says what it must."""

from collections import Counter
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
from corolla.orders import order_of
from corolla.text import TextCodec
from schema.errors import MalformedFrame
from schema.frames import Flags, Frame
from schema.ids import PeerId, SessionId, session_at_hop
from schema.outbox import Urgency
from schema.routes import Hop, read_route
from tests.corolla.fakes import HIDDEN, ME, Hops, failure, returned
from volunteer.kvcache import KVAccount
from volunteer.sent import SentOutputs
from volunteer.span_service import answer_of, work_of
from volunteer.stage import Stage
from volunteer.work import Result

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

    def stage(self, start: int, end: int, sent: SentOutputs | None = None) -> Stage:
        kept = SentOutputs(2**24) if sent is None else sent
        return Stage(SpanModel.load(self.source, start, end), self._facts, KVAccount(2**30), kept)


class LocalStage:
    """Serves a stage's blocks in the driver's own process."""

    def __init__(self, exchange: Exchange, stage: Stage, computed: Counter[PeerId]) -> None:
        """`computed`: counts the tokens that go through its blocks."""
        self._exchange = exchange
        self._stage = stage
        self._computed = computed
        exchange.serve(self)

    def prepare(self, frame: Frame, order: WorkOrder) -> Launch:
        return lambda payload: self.on_work(frame._replace(payload=payload), order)

    def on_work(self, frame: Frame, order: WorkOrder) -> None:
        result = run_frame(self._stage, frame, order)
        self._computed[ME] += computed_by(result)
        if result.error is None:
            self._exchange.answer(frame, answer_of(frame, result))
        else:
            self._exchange.fail(frame, result.error)

    def on_malformed(self, frame: Frame, error: MalformedFrame) -> None:
        self._exchange.fail(frame, error)

    def on_close(self, session: SessionId, keep: bool = False) -> None:
        end_session(self._stage, session, keep=keep)


class StageHops(Hops):
    """Hops that compute: each frame goes through the stages that are left of its route.

    `computed`: of each, how many tokens went through its blocks.
    """

    def __init__(
        self,
        exchange: Exchange,
        stages: Mapping[PeerId, Stage],
        spare: Callable[[int, int], Stage] | None = None,
    ) -> None:
        """`spare`: makes the stage of whoever takes a hop's place."""
        super().__init__(exchange, tuple(Hop(peer, stage.span) for peer, stage in stages.items()))
        self.stages = dict(stages)
        self.computed: Counter[PeerId] = Counter()
        self._spare = spare
        if ME in stages:
            LocalStage(exchange, stages[ME], self.computed)

    @property
    def sessions(self) -> int:
        """KV caches on all hops."""
        return sum(stage.sessions for stage in self.stages.values())

    def send_frame(self, frame: bytes, urgency: Urgency) -> None:
        super().send_frame(frame, urgency)
        if self.closed:
            closed = self.frames[-1]
            for stage in self.stages.values():
                keep = bool(closed.flags & Flags.KEEP)
                end_session(stage, session_at_hop(ME, closed.session), keep=keep)

    def lose(self, peer: PeerId) -> None:
        if peer in self.stages:
            self.stages[peer].close_all()
        super().lose(peer)

    def _answer(self, frame: Frame) -> Frame:
        route = read_route(frame.route)
        for number in range(frame.hop, len(route.hops)):
            at_hop = frame._replace(hop=number)
            stage = self._stage_of(route.hops[number])
            result = run_frame(stage, at_hop, order_of(at_hop, route))
            if result.error is not None:
                return failure(at_hop, result.error)
            self.computed[route.hops[number].peer] += computed_by(result)
            frame = frame._replace(payload=answer_of(at_hop, result))
        return returned(frame, bytes(frame.payload))

    def _stage_of(self, hop: Hop) -> Stage:
        if hop.peer not in self.stages:
            like = next(stage for stage in self.stages.values() if stage.span == hop.span)
            span = like.span
            self.stages[hop.peer] = like if self._spare is None else self._spare(span.start, span.end)
        return self.stages[hop.peer]


def end_session(stage: Stage, session: SessionId, *, keep: bool) -> None:
    if keep:
        stage.keep(session, monotonic())
    else:
        stage.close(session)


def run_frame(stage: Stage, frame: Frame, order: WorkOrder) -> Result:
    """What a hop makes of a frame."""
    return stage.run([work_of(frame, order, frame.payload)], 512, monotonic())[0]


def computed_by(result: Result) -> int:
    """How many tokens went through the blocks for it."""
    return 0 if result.work.is_errand or result.error is not None else result.work.tokens


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
