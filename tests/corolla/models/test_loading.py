"""What is read of a checkpoint, in which form it is held, and what a checkpoint must have."""

import importlib.util
from collections.abc import Collection
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from transformers import AutoConfig, AutoModelForCausalLM, BitsAndBytesConfig, MixtralConfig

from corolla.models import (
    CheckpointBroken,
    HeadModel,
    LoadOptions,
    ModelSource,
    Progress,
    QuantizationUnavailable,
    SpanModel,
    default_dtype,
)
from corolla.models.quantization import Quantization
from corolla.models.shards import LazyTensor
from tests.corolla.models.checkpoints import llama, save

HAS_ACCELERATE = importlib.util.find_spec("accelerate") is not None


class RecordingSource(ModelSource):
    """Remembers which tensors were asked for."""

    asked: list[str]

    def lazy(
        self, names: Collection[str], stack: ExitStack, progress: Progress | None = None
    ) -> dict[str, LazyTensor]:
        self.asked = sorted(names)
        return super().lazy(names, stack, progress)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(save(llama(), tmp_path_factory.mktemp("llama")))


def block_of(tensor: str) -> int | None:
    """The block in whose name a Llama tensor is."""
    parts = tensor.split(".")
    return int(parts[2]) if parts[1] == "layers" else None


def test_a_span_reads_the_tensors_of_its_blocks(folder: Path) -> None:
    source = RecordingSource.open(str(folder))
    SpanModel.load(source, 2, 4)
    assert source.asked == [name for name in source.tensor_names() if block_of(name) in {2, 3}]


def test_a_head_reads_the_tensors_outside_the_blocks(folder: Path) -> None:
    source = RecordingSource.open(str(folder))
    HeadModel.load(source)
    assert source.asked == ["lm_head.weight", "model.embed_tokens.weight", "model.norm.weight"]


def test_a_span_holds_its_blocks_and_nothing_else(folder: Path) -> None:
    source = ModelSource.open(str(folder))
    own = source.read([name for name in source.tensor_names() if block_of(name) in {2, 3}])
    span = SpanModel.load(source, 2, 4)
    assert span.weights.parameters == {"float32": sum(tensor.numel() for tensor in own.values())}


def test_progress_counts_the_bytes_that_are_read(folder: Path) -> None:
    source = ModelSource.open(str(folder))
    own = source.read([name for name in source.tensor_names() if block_of(name) in {2, 3}])
    nbytes = sum(tensor.nbytes for tensor in own.values())
    seen: list[tuple[int, int]] = []
    SpanModel.load(source, 2, 4, progress=lambda done, total: seen.append((done, total)))
    assert seen == sorted(seen)
    assert seen[-1] == (nbytes, nbytes)
    assert len(seen) == len(own)


def test_a_span_is_loaded_from_shards_without_the_others(folder: Path, tmp_path: Path) -> None:
    source = ModelSource.open(str(folder))
    own = source.read([name for name in source.tensor_names() if block_of(name) in {2, 3}])
    (tmp_path / "config.json").write_text((folder / "config.json").read_text())
    save_file(own, tmp_path / "model.safetensors")
    assert SpanModel.load(ModelSource.open(str(tmp_path)), 2, 4).weights.nbytes > 0


@pytest.mark.parametrize(("start", "end"), [(0, 2), (5, 6)])
def test_a_tensor_that_is_missing_is_named(folder: Path, tmp_path: Path, start: int, end: int) -> None:
    """Never replaced by random weights, as the library's loader would."""
    source = ModelSource.open(str(folder))
    lost = f"model.layers.{start}.mlp.down_proj.weight"
    (tmp_path / "config.json").write_text((folder / "config.json").read_text())
    save_file(
        source.read([name for name in source.tensor_names() if name != lost]), tmp_path / "model.safetensors"
    )
    with pytest.raises(CheckpointBroken, match=lost):
        SpanModel.load(ModelSource.open(str(tmp_path)), start, end)


def test_a_tensor_of_another_shape_is_named(folder: Path, tmp_path: Path) -> None:
    source = ModelSource.open(str(folder))
    name = "model.layers.0.mlp.down_proj.weight"
    (tmp_path / "config.json").write_text((folder / "config.json").read_text())
    save_file(
        source.read(source.tensor_names()) | {name: torch.zeros(32, 47)}, tmp_path / "model.safetensors"
    )
    with pytest.raises(CheckpointBroken, match=name):
        SpanModel.load(ModelSource.open(str(tmp_path)), 0, 2)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_weights_are_held_in_the_dtype_asked_for(folder: Path, dtype: torch.dtype) -> None:
    source = ModelSource.open(str(folder))
    options = LoadOptions(dtype=dtype)
    span, head = SpanModel.load(source, 0, 2, options), HeadModel.load(source, options)
    assert set(span.weights.parameters) == set(head.weights.parameters) == {str(dtype).removeprefix("torch.")}
    hidden = span.forward(head.embed(torch.tensor([[5, 6, 7]])), span.new_cache())
    assert hidden.dtype == head.logits(hidden).dtype == dtype


def test_a_checkpoint_in_bfloat16_is_read_into_float32(tmp_path: Path) -> None:
    name = save(llama(), tmp_path, dtype=torch.bfloat16)
    assert set(SpanModel.load(ModelSource.open(name), 0, 2).weights.parameters) == {"float32"}


@pytest.mark.parametrize("stored", [torch.float32, torch.float16, torch.bfloat16])
def test_a_cpu_computes_in_what_it_is_fast_in(stored: torch.dtype) -> None:
    config = llama(dtype=stored)
    native = stored is torch.bfloat16 and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    assert default_dtype("cpu", config) is (torch.bfloat16 if native else torch.float32)


@pytest.mark.parametrize("stored", [torch.float32, torch.float16])
def test_a_gpu_computes_in_the_checkpoints_own_dtype(stored: torch.dtype) -> None:
    assert default_dtype("cuda", llama(dtype=stored)) is stored


def test_a_config_without_a_dtype_means_float32() -> None:
    assert default_dtype("cuda", AutoConfig.for_model("llama")) is torch.float32


@pytest.mark.skipif(HAS_ACCELERATE, reason="accelerate is installed")
def test_quantization_without_its_libraries_is_refused(folder: Path) -> None:
    with pytest.raises(QuantizationUnavailable, match="pip install accelerate"):
        SpanModel.load(ModelSource.open(str(folder)), 0, 2, LoadOptions(quantization="nf4"))


@pytest.fixture(scope="module")
def wide_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose weights have sides that can be held in 4 bits on every processor."""
    config = llama(hidden_size=WIDTH, intermediate_size=2 * WIDTH)
    return Path(save(config, tmp_path_factory.mktemp("wide")))


WIDTH = 64
needs_accelerate = pytest.mark.skipif(not HAS_ACCELERATE, reason="accelerate is not installed")
ERROR: dict[Quantization, float] = {"int8": 0.05, "nf4": 0.5}
"""How far a quantized span of random weights may be from the same in fp32, relative to the largest value."""


@needs_accelerate
@pytest.mark.parametrize("quantization", ERROR)
def test_a_quantized_span_says_what_is_quantized(wide_folder: Path, quantization: Quantization) -> None:
    """Every linear layer is, and the norms are not."""
    source = ModelSource.open(str(wide_folder))
    plain = SpanModel.load(source, 0, 3)
    span = SpanModel.load(source, 0, 3, LoadOptions(quantization=quantization))
    norms = 3 * 2 * WIDTH
    total = plain.weights.parameters["float32"]
    assert span.weights.parameters == {"float32": norms, quantization: total - norms}
    assert span.weights.quantized_share == pytest.approx(1 - norms / total)
    assert span.weights.nbytes < plain.weights.nbytes / 2
    hidden = torch.randn(1, 5, WIDTH, generator=torch.Generator().manual_seed(0))
    theirs, ours = plain.forward(hidden, plain.new_cache()), span.forward(hidden, span.new_cache())
    assert 0 < ((ours - theirs).abs().max() / theirs.abs().max()).item() < ERROR[quantization]


@needs_accelerate
def test_a_shape_that_cannot_be_held_in_4_bits_stays_as_it_is(tmp_path: Path) -> None:
    """And computes: on a processor with AVX-512 the library fails in the first step otherwise."""
    source = ModelSource.open(save(llama(hidden_size=WIDTH, intermediate_size=48), tmp_path))
    span = SpanModel.load(source, 0, 1, LoadOptions(quantization="nf4"))
    unfit = 3 * 48 * WIDTH
    assert span.weights.parameters["float32"] == 2 * WIDTH + unfit
    assert span.forward(torch.ones(1, 1, WIDTH)).isfinite().all()


@needs_accelerate
def test_fused_experts_are_reported_as_not_quantized(tmp_path: Path) -> None:
    options: dict[str, Any] = {"num_local_experts": 4, "num_experts_per_tok": 2, "hidden_size": WIDTH}
    source = ModelSource.open(save(MixtralConfig(**{**llama().to_diff_dict(), **options}), tmp_path))
    span = SpanModel.load(source, 0, 2, LoadOptions(quantization="nf4"))
    assert 0 < span.weights.quantized_share < 0.5


@needs_accelerate
@pytest.mark.parametrize(
    ("quantization", "config"),
    [
        ("int8", BitsAndBytesConfig(load_in_8bit=True)),
        (
            "nf4",
            BitsAndBytesConfig(
                load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype="float32"
            ),
        ),
    ],
)
def test_quantized_spans_in_a_chain_are_the_quantized_whole_model(
    wide_folder: Path, quantization: Quantization, config: BitsAndBytesConfig
) -> None:
    whole = AutoModelForCausalLM.from_pretrained(
        wide_folder, quantization_config=config, device_map="cpu"
    ).eval()
    source = ModelSource.open(str(wide_folder))
    options = LoadOptions(quantization=quantization)
    head = HeadModel.load(source)
    ids = torch.tensor([[5, 6, 7, 8]])
    hidden = head.embed(ids)
    for start, end in ((0, 2), (2, 6)):
        span = SpanModel.load(source, start, end, options)
        hidden = span.forward(hidden, span.new_cache())
    with torch.inference_mode():
        assert torch.equal(head.logits(hidden), whole(ids).logits)


@needs_accelerate
def test_int8_does_not_log_in_every_call(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    span = SpanModel.load(ModelSource.open(str(folder)), 0, 2, LoadOptions(quantization="int8"))
    span.forward(torch.ones(1, 1, 32))
    assert not caplog.records
