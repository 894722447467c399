"""Loads a part of a checkpoint into a partial model.

The library's own loader does the work: it renames and fuses tensors as the architecture needs, quantizes
while loading, and takes each tensor from its shard only when it places it. What is decided here is which
tensors of the checkpoint the part needs, and that none of them is missing. Every tensor goes to the device
one by one, and into its final form there, so that the part is never in memory twice.
"""

import copy
import logging
import re
from collections.abc import Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Literal, cast

import torch
from torch import nn
from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, BitsAndBytesConfig, PreTrainedConfig, PreTrainedModel
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.core_model_loading import WeightConverter, WeightRenaming, rename_source_key
from transformers.initialization import no_init_weights
from transformers.modeling_utils import local_torch_dtype
from transformers.utils import logging as transformers_logging
from transformers.utils.import_utils import is_accelerate_available

from corolla.models.activations import fuse_activations
from corolla.models.allocation import returning_freed_memory
from corolla.models.errors import CheckpointBroken, QuantizationUnavailable
from corolla.models.families import TEXT_MODEL_PREFIXES
from corolla.models.linear import choose_kernels
from corolla.models.partial import Part, partial_class
from corolla.models.quantization import Quantization, kept_layers, missing_libraries
from corolla.models.shards import Progress
from corolla.models.source import ModelSource

Kernels = Literal["library", "fastest"]


@dataclass(frozen=True)
class LoadOptions:
    """How to hold the weights: where, in which dtype to compute, and quantized or not."""

    device: str = "cpu"
    dtype: torch.dtype = torch.float32
    quantization: Quantization = "none"
    kernels: Kernels = "library"
    """`library`: the bits of the whole model. `fastest`: see linear, activations, nf4 and int8 here."""


def default_dtype(device: str, config: PreTrainedConfig) -> torch.dtype:
    """The dtype to compute in: the checkpoint's own, where the device is fast in it.

    A CPU without native bf16 runs bf16 several times slower than fp32, and no CPU here is fast in fp16.
    """
    wanted = config.dtype if isinstance(config.dtype, torch.dtype) else torch.float32
    kind = torch.device(device).type
    if kind == "cpu":
        native = wanted is torch.bfloat16 and torch.ops.mkldnn._is_mkldnn_bf16_supported()
        return torch.bfloat16 if native else torch.float32
    if kind == "cuda" and wanted is torch.bfloat16:
        with torch.cuda.device(device):
            return wanted if torch.cuda.is_bf16_supported() else torch.float16
    return wanted


@returning_freed_memory()
def load_part(
    source: ModelSource, part: Part, options: LoadOptions, progress: Progress | None = None
) -> PreTrainedModel:
    """A model that holds `part` of `source`: on the device, frozen, in evaluation mode.

    Raises `CheckpointBroken` when the checkpoint lacks a tensor or has one of the wrong shape, and
    `QuantizationUnavailable` when a library for it is not there.
    """
    model_class = partial_class(causal_lm_class(source.config), source.block_count, part)
    skeleton = build_on_meta(model_class, source, options.dtype)
    arguments = _placement(options)
    if options.quantization != "none" and not part.head:
        arguments |= _quantization_arguments(options, skeleton)
    names = wanted_tensors(skeleton, source)
    with ExitStack() as stack, _quiet_loader():
        tensors = source.lazy(names.values(), stack, progress)
        try:
            loaded = model_class.from_pretrained(
                None,
                config=source.config,
                state_dict={name: tensors[stored] for name, stored in names.items()},
                dtype=options.dtype,
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # it would raise; `_check_complete` says which
                **arguments,
            )
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            raise CheckpointBroken(f"The tensors of {source.name} do not fit its config: {error}") from error
    model, report = cast(tuple[PreTrainedModel, dict[str, Any]], loaded)
    _check_complete(source, report)
    model.requires_grad_(False)
    if not arguments:  # otherwise it is there already, and a quantized one cannot be moved
        cast(nn.Module, model).to(options.device)
    if options.kernels == "fastest":
        choose_kernels(model)
        fuse_activations(model)
        _use_fast_kernels(model, options)
    return model


def causal_lm_class(config: PreTrainedConfig) -> type[PreTrainedModel]:
    """The library's causal-LM class for `config`."""
    return cast(type[PreTrainedModel], MODEL_FOR_CAUSAL_LM_MAPPING[type(config)])


def build_on_meta(
    model_class: type[PreTrainedModel], source: ModelSource, dtype: torch.dtype
) -> PreTrainedModel:
    """An instance without memory: names, shapes and dtypes only. Raises `CheckpointBroken`."""
    config = copy.deepcopy(source.config)
    config.dtype = dtype  # some modules take it from here
    quick = (torch.device("meta"), no_init_weights(), local_torch_dtype(dtype, model_class.__name__))
    with ExitStack() as stack, refusing_nonsense(source.name):
        for context in quick:
            stack.enter_context(context)
        return model_class(config)


@contextmanager
def refusing_nonsense(name: str) -> Iterator[None]:
    """Turns what the library raises on a config whose numbers do not go together into `CheckpointBroken`."""
    try:
        yield
    except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        raise CheckpointBroken(f"The config of {name} makes no model: {error}") from error


def wanted_tensors(skeleton: PreTrainedModel, source: ModelSource) -> Mapping[str, str]:
    """The tensors of `source` that `skeleton` takes: for each the text model's name and the stored name.

    Asks the library's own renaming rules, so whatever the loader would place is found, and nothing else.
    """
    transforms = get_model_conversion_mapping(skeleton)
    renamings = [entry for entry in transforms if isinstance(entry, WeightRenaming)]
    converters = [entry for entry in transforms if isinstance(entry, WeightConverter)]
    own = skeleton.state_dict()
    wanted: dict[str, str] = {}
    for name, stored in _text_model_names(source.tensor_names(), source.is_wrapped).items():
        renamed, _ = rename_source_key(name, renamings, converters, skeleton.base_model_prefix, own)
        if renamed in own or name in own:
            wanted[name] = stored
    return wanted


def _text_model_names(stored: Collection[str], is_wrapped: bool) -> dict[str, str]:
    if not is_wrapped:
        return {name: name for name in stored}
    names: dict[str, str] = {}
    for name in stored:
        plain = name
        for pattern, replacement in TEXT_MODEL_PREFIXES:
            plain = re.sub(pattern, replacement, plain)
        names[plain] = name
    return names


def _check_complete(source: ModelSource, report: Mapping[str, Any]) -> None:
    for kind, verb in (("missing_keys", "lacks"), ("mismatched_keys", "has another shape for")):
        keys = sorted(str(key) for key in report[kind])
        if keys:
            raise CheckpointBroken(
                f"{source.name} {verb} {keys[0]} ({len(keys)} in all). Its weights do not fit its config."
            )


def _placement(options: LoadOptions) -> dict[str, Any]:
    """Has tensors placed on the device as they are read, where the library can do that."""
    on_cpu = torch.device(options.device).type == "cpu"
    return {} if on_cpu or not is_accelerate_available() else {"device_map": {"": options.device}}


def _quantization_arguments(options: LoadOptions, skeleton: PreTrainedModel) -> dict[str, Any]:
    missing = " ".join(missing_libraries())
    if missing:
        raise QuantizationUnavailable(f"{options.quantization} needs more libraries: pip install {missing}")
    # Always a list: for None the library would keep the last layer of every span as it is.
    kept = kept_layers(skeleton, options.quantization)
    if options.quantization == "int8":
        # It warns of its own cast to fp16 in every call of every layer.
        logging.getLogger("bitsandbytes.autograd._functions").setLevel(logging.ERROR)
        config = BitsAndBytesConfig(load_in_8bit=True, llm_int8_skip_modules=kept)
    else:
        config = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_compute_dtype=options.dtype,
            llm_int8_skip_modules=kept,
        )
    return {"quantization_config": config, "device_map": {"": options.device}}


def _use_fast_kernels(model: PreTrainedModel, options: LoadOptions) -> None:
    """For quantized layers on a GPU. What is imported needs the libraries of a quantized model."""
    if options.quantization == "nf4":
        from corolla.models import nf4

        nf4.use_fast_kernels(model)
    elif options.quantization == "int8":
        from corolla.models import int8

        int8.use_fast_kernels(model, options.dtype)


@contextmanager
def _quiet_loader() -> Iterator[None]:
    """The library writes a bar and a report to the terminal; what they say, `load_part` checks and tells."""
    level = transformers_logging.get_verbosity()
    shows_bars = transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(level)
        if shows_bars:
            transformers_logging.enable_progress_bar()
