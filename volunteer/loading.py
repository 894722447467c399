"""What this machine can hold of a model, and putting it there.

Reads configs and tensor indexes to make an offer; loads a span, and a head with its tokenizer, when
one is assigned. Does not know the relay.
"""

import gc
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch
from msgspec import UNSET

from corolla.generation import Head
from corolla.head_steps import AtOnce, HeadSteps, Runner
from corolla.models.facts import ModelFacts, describe
from corolla.models.graphed_head import GraphedHead
from corolla.models.head import HeadModel
from corolla.models.loading import LoadOptions, default_dtype
from corolla.models.on_disk import blocks_on_disk
from corolla.models.quantization import Quantization, missing_libraries
from corolla.models.random_weights import RandomWeights, number_tokenizer
from corolla.models.source import ModelSource
from corolla.models.span import SpanModel
from corolla.prefixes import PrefixIndex
from corolla.text import TextCodec
from schema import messages
from schema.errors import CorollaError, JoinRefused
from schema.ids import Span
from volunteer import fitting, hardware
from volunteer.config import Config, ModelChoice, QuantizationChoice, locate
from volunteer.device import DeviceThread
from volunteer.gauge import Gauge, Shelf
from volunteer.kvcache import KVAccount
from volunteer.noise import Noise
from volunteer.progress import ReportProgress
from volunteer.sent import SentOutputs
from volunteer.stage import Stage
from volunteer.table_store import Subject, TableStore
from volunteer.throughput import Throughput
from volunteer.versions import present_versions

POOL_SHARE = 0.5
"""Of the memory for KV caches, for the pool; the rest is for sessions of several sequences."""
POOL_TOKENS = 1 << 17
"""A larger pool helps nobody but a crowd."""
POOL_SEQUENCES = 256
UNLIMITED_CONTEXT = 1 << 20
"""Positions of a model that names no limit: longer than any prompt that a message carries."""

log = logging.getLogger(__name__)


class DeviceTooSmall(CorollaError):
    """The device ran out of memory while it loaded its span."""

    code = "device_too_small"


@dataclass(frozen=True, slots=True)
class Candidate:
    """A model that this volunteer could serve, and how much of it fits."""

    name: str
    """As the swarm calls it."""
    source: ModelSource
    facts: ModelFacts
    options: LoadOptions
    fit: fitting.Fit

    @property
    def context(self) -> int:
        return self.facts.max_position or UNLIMITED_CONTEXT


@dataclass(frozen=True, slots=True)
class LoadedPart:
    """A span in memory, and the head where one was assigned."""

    candidate: Candidate
    span: Span
    model: SpanModel
    head: HeadModel | None
    codec: TextCodec | None
    kv_bytes: int
    gauge: Gauge

    @property
    def throughput(self) -> Throughput:
        return self.gauge.table.throughput

    def is_for(self, assigned: messages.Assignment) -> bool:
        """Whether an assignment is what is in memory already."""
        span = Span(assigned.start, assigned.end)
        has_head = self.head is not None or not assigned.head
        return self.candidate.name == assigned.model and self.span == span and has_head

    def report(self, assigned: messages.Assignment) -> messages.Loaded:
        return messages.Loaded(
            model=assigned.model,
            start=assigned.start,
            end=assigned.end,
            head=assigned.head,
            dtype=self.candidate.facts.dtype,
            quantization=self.candidate.options.quantization,
            kv_bytes=self.kv_bytes,
        )

    def driver(self, run: Runner, at_once: AtOnce | None = None, *, reuses: bool) -> Head | None:
        """The head as the generation loop takes it, if there is one.

        `run`: on the device's thread. `at_once`: on the event loop's, while the device is free.
        `reuses`: what hops keep of earlier replies. Not for families that take a prompt only as a whole.
        """
        if self.head is None or self.codec is None:
            return None
        facts = self.candidate.facts
        prefixes = PrefixIndex(facts.tokens_to_roll_back) if reuses and facts.can_chunk_prefill else None
        return Head(
            model=self.head,
            codec=self.codec,
            hidden_size=facts.hidden_size,
            context=self.candidate.context,
            can_chunk_prefill=facts.can_chunk_prefill,
            run=run,
            steps=HeadSteps(self.head, facts.hidden_size, run, _graphed(self.head), at_once),
            prefixes=prefixes,
        )

    def __str__(self) -> str:
        weights = self.model.weights
        kinds = ", ".join(f"{count:,} in {kind}" for kind, count in weights.parameters.items())
        return (
            f"{weights.nbytes / 1e6:.1f} MB ({kinds}), {self.kv_bytes / 1e6:.0f} MB for KV caches, "
            f"{self.throughput}{', as measured earlier' if self.gauge.is_from_disk else ''}"
        )


class Loader:
    """Knows this machine's device and limits. Its methods block, but for `load`."""

    def __init__(self, config: Config) -> None:
        """Raises DeviceUnavailable or InvalidRequest for a device or an amount of memory that cannot be."""
        self._config = config
        self._device = hardware.choose_device(config.device)
        self.device_name = hardware.device_name(self._device)
        self._cap = None if config.memory is None else hardware.parse_memory(config.memory)
        self._repair_bytes = 0 if config.repair_memory == "0" else hardware.parse_memory(config.repair_memory)

    @property
    def free_bytes(self) -> int:
        """Memory that may be used, bytes."""
        free = hardware.free_memory(self._device)
        return free if self._cap is None else min(free, self._cap)

    def _left_after(self, weights: int) -> int:
        """Bytes that may still be used when `weights` bytes are loaded."""
        free = hardware.free_memory(self._device)
        return free if self._cap is None else max(0, min(free, self._cap - weights))

    def consider(self, wanted: Sequence[str]) -> list[Candidate]:
        """How much fits of the models that the swarm wants, or of those that the owner chose.

        Raises:
            CorollaError: why none of them can be served.
        """
        choices = self._config.models or tuple(ModelChoice(name, locate(name)) for name in wanted)
        found: list[Candidate] = []
        problems: list[CorollaError] = []
        for choice in choices:
            try:
                found.append(self._candidate(choice))
            except CorollaError as error:
                log.warning("%s cannot be served here: %s", choice.name, error.message)
                problems.append(error)
        if not found:
            raise problems[0] if problems else JoinRefused("the swarm serves no model; ask its operator")
        return found

    def _candidate(self, choice: ModelChoice) -> Candidate:
        source_class = RandomWeights if self._config.weights == "random" else ModelSource
        source = source_class.open(choice.location)
        wanted = self._config.dtype
        dtype = default_dtype(self._device, source.config) if wanted == "auto" else getattr(torch, wanted)
        facts = describe(source, dtype)
        form = self._form(choice.name, facts)
        options = LoadOptions(self._device, dtype, form.quantization, self._config.kernels)
        return Candidate(choice.name, source, facts, options, form.fit)

    def _form(self, name: str, facts: ModelFacts) -> fitting.Form:
        """The form in which the model would be held here, from the memory that is free now."""
        chosen = self._config.quantization
        wish = fitting.Wish(self._config.blocks, self._config.max_blocks)
        forms = fitting.forms_that_fit(self.free_bytes, facts, wish, _possible(chosen))
        on_cpu = torch.device(self._device).type == "cpu"
        form = fitting.choose_form(forms, wish.count(facts.block_count), quantizing_is_slow=on_cpu)
        if chosen == "auto":
            fits = ", ".join(f"{one.fit.max_blocks} in {one.quantization}" for one in forms)
            log.info("%s: quantization %s, since so many blocks fit: %s", name, form.quantization, fits)
        return form

    def offer(self, candidates: Sequence[Candidate], held: LoadedPart | None) -> messages.Offer:
        """What to tell the relay. A span that is in memory already is insisted on."""
        models = [self._model_offer(candidate, held) for candidate in candidates]
        if held is not None:
            models = [offer for offer in models if offer.facts.name == held.candidate.name]
        return messages.Offer(
            device=self.device_name[:100],
            memory=self.free_bytes,
            models=models,
            blocks_per_second=held.throughput.blocks_per_second if held else 0.0,
        )

    def _model_offer(self, candidate: Candidate, held: LoadedPart | None) -> messages.ModelOffer:
        span = held.span if held is not None else self._config.blocks
        most = candidate.fit.max_blocks
        if self._config.max_blocks is not None:
            most = min(most, self._config.max_blocks)
        room = most if self._config.blocks is None else UNSET
        if held is not None:
            most = len(held.span)
        return messages.ModelOffer(
            room=room,
            cached=_on_disk(candidate.source),
            facts=_wire_facts(candidate),
            max_blocks=most,
            can_hold_head=held.head is not None if held is not None else candidate.fit.can_hold_head,
            dtype=candidate.facts.dtype,
            wanted_start=span.start if span else None,
            wanted_end=span.end if span else None,
        )

    async def load(
        self,
        device: DeviceThread,
        candidate: Candidate,
        assigned: messages.Assignment,
        progress: ReportProgress,
    ) -> LoadedPart:
        """Put the assigned part into memory and serve its blocks with it.

        Raises:
            DeviceTooSmall: it does not fit after all. Errors of `corolla.models`.
        """
        span = Span(assigned.start, assigned.end)
        load_part = partial(self._load_part, candidate, assigned, progress)
        try:
            model, head, codec = await device.call(load_part)
            await device.call(partial(hardware.release_unused, self._device))
        except torch.OutOfMemoryError as error:
            raise DeviceTooSmall(
                f"{self.device_name} ran out of memory while it loaded blocks {span} of {assigned.model}: "
                "give a smaller --max-blocks or --memory, or --quantization auto"
            ) from error
        weights = model.weights.nbytes + (head.weights.nbytes if head else 0)
        kv_bytes = int(self._left_after(weights) * (1 - fitting.RESERVED_SHARE))
        if self._device.startswith("cuda"):
            await device.call(partial(_use_pool, model, candidate, span, kv_bytes))
        account = KVAccount(kv_bytes, kept_share=self._config.prefix_cache)
        sent = SentOutputs(self._repair_bytes)
        stage = await device.install(lambda: Stage(model, candidate.facts, account, sent))
        gauge = self._gauge(device, stage, candidate)
        await gauge.begin()
        return LoadedPart(candidate, span, model, head, codec, kv_bytes, gauge)

    async def release(self, device: DeviceThread) -> None:
        """Give back to the device what was let go of."""

        def collect() -> None:
            gc.collect()  # modules refer to themselves, and nothing else would notice before the next span
            hardware.release_unused(self._device)

        await device.call(collect)

    def _gauge(self, device: DeviceThread, stage: Stage, candidate: Candidate) -> Gauge:
        facts, options = candidate.facts, candidate.options
        store = TableStore(self._config.cache, present_versions())
        subject = Subject.of(self.device_name, torch.get_num_threads(), facts, options, stage.span)
        return Gauge(device, stage, Noise(stage, facts, options.dtype), Shelf(store, subject))

    @staticmethod
    def _load_part(
        candidate: Candidate, assigned: messages.Assignment, progress: ReportProgress
    ) -> tuple[SpanModel, HeadModel | None, TextCodec | None]:
        source, options = candidate.source, candidate.options
        model = SpanModel.load(source, assigned.start, assigned.end, options, progress)
        if not assigned.head:
            return model, None, None
        head = HeadModel.load(source, options, progress)
        codec = _codec(source)
        codec.prepare()
        return model, head, codec


def _use_pool(model: SpanModel, candidate: Candidate, span: Span, kv_bytes: int) -> None:
    """Has caches share a pool, so that decode steps can be CUDA graphs."""
    per_token = sum(candidate.facts.kv_bytes_per_token[span.start : span.end])
    tokens = min(POOL_TOKENS, int(kv_bytes * POOL_SHARE) // max(1, per_token))
    model.use_pool(tokens, POOL_SEQUENCES, candidate.context)


def _graphed(head: HeadModel) -> GraphedHead | None:
    return GraphedHead(head) if torch.device(head.options.device).type == "cuda" else None


def _on_disk(source: ModelSource) -> list[messages.BlockRun]:
    """The blocks that need no download."""
    return [messages.BlockRun(start=run.start, end=run.end) for run in blocks_on_disk(source)]


def _codec(source: ModelSource) -> TextCodec:
    if isinstance(source, RandomWeights):
        vocabulary = source.config.vocab_size
        return TextCodec(number_tokenizer(vocabulary), vocabulary, frozenset())
    return TextCodec.load(source.tokenizer_folder())


def _possible(chosen: QuantizationChoice) -> tuple[Quantization, ...]:
    """The forms to choose among, best first. Without its libraries nothing is quantized of itself."""
    if chosen != "auto":
        return (chosen,)
    return ("none",) if missing_libraries() else ("none", "int8", "nf4")


def _wire_facts(candidate: Candidate) -> messages.ModelFacts:
    facts = candidate.facts
    return messages.ModelFacts(
        name=candidate.name,
        digest=facts.digest,
        family=facts.model_type,
        blocks=facts.block_count,
        hidden_size=facts.hidden_size,
        parameters=sum(facts.block_parameters) + facts.head_parameters,
        context=candidate.context,
    )
