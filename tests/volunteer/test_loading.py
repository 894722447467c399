"""What a volunteer offers of which model, what it loads, and why it cannot."""

import asyncio
import logging
import math
import shutil
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from corolla.models.errors import FamilyRefused, ModelNotFound, SpanRefused
from corolla.models.span import SpanModel
from corolla.tensors import to_wire
from schema.errors import InvalidRequest, JoinRefused, KVCacheFull
from schema.frames import FrameType
from schema.ids import SessionId, Span, new_session_id
from schema.messages import Assignment
from schema.tensors import encode_tensors
from tests.corolla.tiny_text import SHAPE, TinyLlama, inline
from volunteer import fitting, hardware, loading, progress
from volunteer.config import Config, ModelChoice
from volunteer.device import DeviceThread
from volunteer.hardware import DeviceUnavailable
from volunteer.loading import Candidate, DeviceTooSmall, LoadedPart, Loader
from volunteer.progress import at_most_every
from volunteer.work import Result, Work

GB = 10**9


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> TinyLlama:
    return TinyLlama(tmp_path_factory.mktemp("llama"))


@pytest.fixture
def config(llama: TinyLlama) -> Config:
    models = (ModelChoice("tiny", str(llama.folder)),)
    return Config(token="t", relay_url="http://127.0.0.1:1", name="anemone", models=models, device="cpu")


@pytest.fixture
async def device() -> AsyncIterator[DeviceThread]:
    async with DeviceThread() as thread:
        yield thread


def assignment(start: int, end: int, head: bool = False) -> Assignment:
    return Assignment(model="tiny", start=start, end=end, head=head)


def considered(config: Config) -> Candidate:
    (candidate,) = Loader(config).consider([])
    return candidate


def memory_for(config: Config, blocks: int) -> str:
    """As much as so many unquantized blocks and the head need."""
    facts = considered(config).facts
    each = facts.block_bytes[0] + fitting.KV_TOKENS * facts.kv_bytes_per_token[0]
    beside = facts.span_bytes + facts.head_bytes
    return str(math.ceil((beside + blocks * each) / (1 - fitting.RESERVED_SHARE)) + 1)


async def load(
    config: Config, device: DeviceThread, assigned: Assignment, progress: list[tuple[int, int]] | None = None
) -> LoadedPart:
    loader = Loader(config)
    (candidate,) = loader.consider([])
    seen: list[tuple[int, int]] = [] if progress is None else progress
    return await loader.load(device, candidate, assigned, lambda done, total: seen.append((done, total)))


def bytes_per_block(candidate: Candidate) -> int:
    """Of one block's weights, and the room that its KV caches are given."""
    facts = candidate.facts
    return max(facts.block_bytes) + fitting.KV_TOKENS * max(facts.kv_bytes_per_token)


def step_of(session: SessionId, step: int, span: Span, tokens: int) -> Work:
    """The n-th chunk of a prompt."""
    payload = encode_tensors([to_wire(torch.zeros(1, tokens, SHAPE.hidden))])
    return Work(FrameType.PREFILL, session, step, step * tokens, 0, span, payload)


async def run(device: DeviceThread, work: Work) -> Result:
    """What becomes of one piece of work."""
    done: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
    device.submit(work, done.set_result)
    return await done


class TestConsidering:
    def test_takes_the_models_that_the_owner_chose(self, config: Config) -> None:
        assert [one.name for one in Loader(config).consider(["something else"])] == ["tiny"]

    def test_takes_what_the_swarm_wants_where_the_owner_chose_nothing(
        self, config: Config, llama: TinyLlama
    ) -> None:
        found = Loader(replace(config, models=())).consider([str(llama.folder)])
        assert [one.name for one in found] == [str(llama.folder)]

    def test_goes_on_without_the_models_that_cannot_be_served(
        self, config: Config, caplog: pytest.LogCaptureFixture
    ) -> None:
        gone = ModelChoice("gone", "/no/such/folder")
        with caplog.at_level(logging.WARNING):
            found = Loader(replace(config, models=(gone, *config.models))).consider([])
        assert [one.name for one in found] == ["tiny"]
        assert "gone cannot be served here" in caplog.text

    def test_of_missing_files_says_so(self, config: Config, tmp_path: Path) -> None:
        empty = ModelChoice("tiny", str(tmp_path))
        with pytest.raises(ModelNotFound, match=r"no config\.json"):
            Loader(replace(config, models=(empty,))).consider([])

    def test_of_an_unknown_family_says_so(self, config: Config, llama: TinyLlama, tmp_path: Path) -> None:
        folder = tmp_path / "strange"
        shutil.copytree(llama.folder, folder)
        text = (folder / "config.json").read_text().replace('"llama"', '"marsupial"')
        (folder / "config.json").write_text(text)
        with pytest.raises(FamilyRefused, match="marsupial"):
            Loader(replace(config, models=(ModelChoice("tiny", str(folder)),))).consider([])

    def test_of_nothing_names_whom_to_ask(self, config: Config) -> None:
        with pytest.raises(JoinRefused, match="operator"):
            Loader(replace(config, models=())).consider([])

    @pytest.mark.parametrize(("dtype", "expected"), [("auto", torch.float32), ("bfloat16", torch.bfloat16)])
    def test_computes_in_the_dtype_that_was_asked_for(
        self, config: Config, dtype: str, expected: torch.dtype
    ) -> None:
        assert considered(replace(config, dtype=dtype)).options.dtype is expected


class TestQuantizationOfItself:
    """`--quantization auto`, with memory for so many blocks and no more."""

    @pytest.fixture(autouse=True)
    def little_kv(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Otherwise the caches of a tiny model are most of what it needs."""
        monkeypatch.setattr(fitting, "KV_TOKENS", 16)

    @pytest.mark.parametrize(
        ("blocks", "chosen"), [(SHAPE.blocks, "none"), (SHAPE.blocks - 1, "int8"), (0, "int8")]
    )
    def test_is_the_first_in_which_the_model_fits(
        self, config: Config, chosen: str, blocks: int, caplog: pytest.LogCaptureFixture
    ) -> None:
        automatic = replace(config, quantization="auto", memory=memory_for(config, blocks))
        with caplog.at_level(logging.INFO):
            candidate = considered(automatic)
        assert candidate.options.quantization == chosen
        assert f"tiny: quantization {chosen}" in caplog.text

    def test_is_none_where_the_owner_asks_for_fewer_blocks(self, config: Config) -> None:
        memory = memory_for(config, 2)
        for asked in ({"max_blocks": 2}, {"blocks": Span(1, 3)}):
            automatic = replace(config, quantization="auto", memory=memory, **asked)
            assert considered(automatic).options.quantization == "none"

    def test_is_none_without_the_libraries(self, config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(loading, "missing_libraries", lambda: ("bitsandbytes",))
        automatic = replace(config, quantization="auto", memory=memory_for(config, 2))
        assert considered(automatic).options.quantization == "none"

    def test_only_free_memory_counts(self, config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
        free = hardware.parse_memory(memory_for(config, SHAPE.blocks - 1))
        monkeypatch.setattr(hardware, "free_memory", lambda device: free)
        assert considered(replace(config, quantization="auto")).options.quantization == "int8"

    async def test_is_what_is_loaded_and_reported(self, config: Config, device: DeviceThread) -> None:
        memory = memory_for(config, SHAPE.blocks - 1)
        part = await load(replace(config, quantization="auto", memory=memory), device, assignment(0, 4))
        assert part.report(assignment(0, 4)).quantization == "int8"
        assert part.model.weights.parameters["int8"] > 0


class TestALoader:
    def test_without_its_device_says_which_there_are(self, config: Config) -> None:
        with pytest.raises(DeviceUnavailable, match="cpu"):
            Loader(replace(config, device="cuda:99"))

    @pytest.mark.parametrize("memory", ["much", "0GB", "8 potatoes"])
    def test_with_an_amount_of_memory_that_is_none_says_so(self, config: Config, memory: str) -> None:
        with pytest.raises(InvalidRequest, match="8GB"):
            Loader(replace(config, memory=memory))

    def test_uses_no_more_memory_than_it_may(self, config: Config) -> None:
        assert Loader(replace(config, memory="1MB")).free_bytes == 10**6


class TestAnOffer:
    def test_says_what_the_model_is_and_how_much_fits(self, config: Config, llama: TinyLlama) -> None:
        loader = Loader(config)
        (offer,) = loader.offer(loader.consider([]), None).models
        assert (offer.facts.name, offer.facts.family, offer.facts.blocks) == ("tiny", "llama", SHAPE.blocks)
        assert (offer.facts.hidden_size, offer.facts.context) == (SHAPE.hidden, 2048)
        assert offer.facts.digest == llama.source.digest
        assert (offer.max_blocks, offer.can_hold_head, offer.dtype) == (SHAPE.blocks, True, "float32")
        assert (offer.wanted_start, offer.wanted_end) == (None, None)

    def test_is_at_most_what_the_owner_allows(self, config: Config) -> None:
        loader = Loader(replace(config, max_blocks=2))
        assert loader.offer(loader.consider([]), None).models[0].max_blocks == 2

    def test_insists_on_the_blocks_that_the_owner_insists_on(self, config: Config) -> None:
        loader = Loader(replace(config, blocks=Span(1, 3)))
        (offer,) = loader.offer(loader.consider([]), None).models
        assert (offer.wanted_start, offer.wanted_end) == (1, 3)

    def test_of_too_little_memory_has_no_blocks(self, config: Config) -> None:
        loader = Loader(replace(config, memory="1kB"))
        (offer,) = loader.offer(loader.consider([]), None).models
        assert (offer.max_blocks, offer.can_hold_head) == (0, False)

    async def test_insists_on_what_is_in_memory(self, config: Config, device: DeviceThread) -> None:
        held = await load(config, device, assignment(1, 3))
        loader = Loader(config)
        offer = loader.offer([held.candidate], held)
        (model,) = offer.models
        assert (model.wanted_start, model.wanted_end, model.max_blocks) == (1, 3, 2)
        assert not model.can_hold_head
        assert offer.blocks_per_second == held.throughput.blocks_per_second > 0


class TestLoading:
    async def test_puts_the_span_alone_into_memory(self, config: Config, device: DeviceThread) -> None:
        part = await load(config, device, assignment(1, 3))
        assert (part.model.start, part.model.end) == (1, 3)
        assert part.head is None
        assert part.driver(inline, reuses=True) is None

    async def test_puts_the_head_there_too_where_it_was_assigned(
        self, config: Config, device: DeviceThread
    ) -> None:
        part = await load(config, device, assignment(0, 2, head=True))
        head = part.driver(inline, reuses=True)
        assert head is not None
        assert (head.hidden_size, head.context, head.can_chunk_prefill) == (SHAPE.hidden, 2048, True)
        assert head.codec.encode_prompt([1, 2]) == [1, 2]
        assert head.prefixes is not None
        without = part.driver(inline, reuses=False)
        assert without is not None
        assert without.prefixes is None

    async def test_needs_a_config_alone_for_random_weights(
        self, config: Config, device: DeviceThread, llama: TinyLlama, tmp_path: Path
    ) -> None:
        """And shows tokens as numbers, since noise has nothing to say."""
        shutil.copy(llama.folder / "config.json", tmp_path)
        noise = replace(config, models=(ModelChoice("tiny", str(tmp_path)),), weights="random")
        part = await load(noise, device, assignment(0, SHAPE.blocks, head=True))
        assert part.codec is not None
        detokenizer = part.codec.detokenizer()
        assert "".join(detokenizer.push(token) for token in (7, 42)) == "7 42 "

    async def test_tells_how_far_it_is(self, config: Config, device: DeviceThread) -> None:
        seen: list[tuple[int, int]] = []
        await load(config, device, assignment(1, 3), seen)
        done, total = seen[-1]
        assert done == total > 0

    async def test_keeps_weights_and_kv_caches_within_the_memory_it_may_use(
        self, config: Config, device: DeviceThread
    ) -> None:
        part = await load(replace(config, memory="1GB"), device, assignment(0, 4))
        assert 0 < part.kv_bytes <= GB - part.model.weights.nbytes

    async def test_takes_no_more_blocks_than_fit_with_room_for_their_kv_caches(
        self, config: Config, device: DeviceThread
    ) -> None:
        room = 2.5 * bytes_per_block(considered(config))
        cap = int(room / (1 - fitting.RESERVED_SHARE))
        capped = replace(config, memory=str(cap))
        loader = Loader(capped)
        (offer,) = loader.offer(loader.consider([]), None).models
        assert (offer.max_blocks, loader.offer(loader.consider([]), None).memory) == (2, cap)
        part = await load(capped, device, assignment(0, offer.max_blocks, head=offer.can_hold_head))
        head = part.head.weights.nbytes if part.head is not None else 0
        assert part.model.weights.nbytes + head + part.kv_bytes <= cap
        assert part.kv_bytes >= 2 * fitting.KV_TOKENS * max(part.candidate.facts.kv_bytes_per_token)

    async def test_serves_within_its_memory_and_refuses_by_name_what_exceeds_it(
        self, config: Config, device: DeviceThread
    ) -> None:
        weights = (await load(config, device, assignment(0, 2))).model.weights.nbytes
        cap = weights + 200_000
        part = await load(replace(config, memory=str(cap)), device, assignment(0, 2))
        session, used = new_session_id(), list[int]()
        for step in range(200):
            result = await run(device, step_of(session, step, Span(0, 2), tokens=32))
            used.append(device.stats().kv_used)
            if result.error is not None:
                break
        else:
            pytest.fail("it has taken more than it may")
        assert isinstance(result.error, KVCacheFull)
        assert 0 < max(used) <= part.kv_bytes <= cap - weights

    async def test_reports_what_was_loaded(self, config: Config, device: DeviceThread) -> None:
        part = await load(config, device, assignment(1, 3))
        report = part.report(assignment(1, 3))
        assert (report.model, report.start, report.end, report.head) == ("tiny", 1, 3, False)
        assert (report.dtype, report.quantization, report.kv_bytes) == ("float32", "none", part.kv_bytes)
        assert "float32" in str(part)

    @pytest.mark.parametrize(
        ("assigned", "same"),
        [
            (assignment(0, 2, head=True), True),
            (assignment(0, 2), True),
            (assignment(0, 3), False),
            (Assignment(model="other", start=0, end=2, head=False), False),
        ],
    )
    async def test_knows_whether_an_assignment_is_in_memory_already(
        self, config: Config, device: DeviceThread, assigned: Assignment, same: bool
    ) -> None:
        part = await load(config, device, assignment(0, 2, head=True))
        assert part.is_for(assigned) is same

    async def test_without_a_head_is_not_for_one_with_it(self, config: Config, device: DeviceThread) -> None:
        part = await load(config, device, assignment(0, 2))
        assert not part.is_for(assignment(0, 2, head=True))

    async def test_of_blocks_outside_the_model_is_refused(self, config: Config, device: DeviceThread) -> None:
        with pytest.raises(SpanRefused):
            await load(config, device, assignment(2, 9))

    async def test_of_more_than_the_device_holds_names_the_remedy(
        self, config: Config, device: DeviceThread, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def run_out(*_: object) -> None:
            raise torch.OutOfMemoryError("CUDA out of memory")

        monkeypatch.setattr(SpanModel, "load", run_out)
        with pytest.raises(DeviceTooSmall, match="--max-blocks"):
            await load(config, device, assignment(0, 2))


class TestProgress:
    def test_is_told_now_and_then_and_at_the_end(self, monkeypatch: pytest.MonkeyPatch) -> None:
        now = [0.0]
        monkeypatch.setattr(progress, "monotonic", lambda: now[0])
        told: list[int] = []
        report = at_most_every(1.0, lambda done, total: told.append(done))
        for done, time in ((1, 0.0), (2, 0.5), (3, 1.1), (4, 1.2), (5, 2.5), (6, 2.6), (7, 2.7)):
            now[0] = time
            report(done, 7)
        assert told == [1, 3, 5, 7]
