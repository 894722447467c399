"""A model's config and tensors, by name, from wherever its files are.

Reads only what is asked for: the config and the tensor index on opening, and of the weights only the
wanted tensors, never a whole shard. Opens no pickle and runs no code of the checkpoint's.
Knows nothing of blocks: which tensors a span needs is `loading`'s to say.
"""

import json
from collections.abc import Collection, Mapping
from contextlib import ExitStack
from functools import cached_property
from hashlib import sha256
from pathlib import Path, PurePosixPath
from typing import Any, Self

from huggingface_hub.errors import StrictDataclassError
from torch import Tensor
from transformers import CONFIG_MAPPING, PreTrainedConfig

from corolla.models.errors import (
    CheckpointBroken,
    FamilyRefused,
    ModelNotFound,
    PickleRefused,
    RemoteCodeRefused,
)
from corolla.models.families import Family, family_of, text_config
from corolla.models.files import HubFiles, LocalFiles, ModelFiles
from corolla.models.shards import LazyTensor, Meter, Progress, Shard, StoredTensor
from schema.limits import MAX_BLOCKS

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
PICKLES = ("pytorch_model.bin.index.json", "pytorch_model.bin")
VOLATILE_CONFIG_KEYS = frozenset({"_name_or_path", "transformers_version"})
"""What `save_pretrained` writes differently on every machine: no part of a model's identity."""


class ModelSource:
    """One revision of one model."""

    def __init__(self, name: str, files: ModelFiles) -> None:
        self.name = name
        self.revision = files.revision
        self._files = files
        config_path = files.path("config.json")
        if config_path is None:
            raise ModelNotFound(f"{name} has no config.json, so it is not a transformers model.")
        self._raw_config = _parse_json(config_path, name)
        stored = _parse_config(self._raw_config, config_path.parent, name)
        self.config = text_config(stored)
        """The config of the text model, also where that is part of a multi-modal one."""
        self.is_wrapped = self.config is not stored
        self.family: Family = family_of(self.config)
        self.block_count = _checked_block_count(self.config, name)

    @classmethod
    def open(cls, name: str, revision: str | None = None, *, endpoint: str | None = None) -> Self:
        """Opens a local folder, or a repository of the Hub (`owner/name`) at a branch, tag or commit.

        `endpoint` is another Hub than the usual one. Raises `ModelNotFound`, `RemoteCodeRefused`,
        `FamilyRefused` and `CheckpointBroken`, each with its remedy.
        """
        folder = Path(name).expanduser()
        if folder.is_dir():
            return cls(name, LocalFiles(folder))
        return cls(name, HubFiles(name, revision, endpoint))

    @cached_property
    def shard_of(self) -> Mapping[str, str]:
        """The weights file of every tensor."""
        index = self._files.path(INDEX)
        if index is not None:
            return _parse_index(index, self.name)
        if self._files.has(SINGLE):
            return dict.fromkeys(self._files.tensors_in(SINGLE), SINGLE)
        if any(self._files.has(pickle) for pickle in PICKLES):
            raise PickleRefused(
                f"{self.name} has its weights in pickle files only, which can run code; they are not opened. "
                "Use a revision with safetensors, or convert it once with save_pretrained."
            )
        raise CheckpointBroken(f"{self.name} has no {SINGLE} and no {INDEX}: there are no weights to load.")

    def tensor_names(self) -> tuple[str, ...]:
        """Names of all tensors of the checkpoint, sorted."""
        return tuple(sorted(self.shard_of))

    def names_on_disk(self) -> frozenset[str]:
        """Names of the tensors whose shard is on this disk already."""
        here = {shard for shard in set(self.shard_of.values()) if self._files.is_here(shard)}
        return frozenset(name for name, shard in self.shard_of.items() if shard in here)

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the config and the tensor names, in hex: the same wherever and however they are stored.

        It tells architectures and sizes apart, not weights: two fine-tunes of one model share it. Those
        differ in `name` and `revision`.
        """
        config = {key: value for key, value in self._raw_config.items() if key not in VOLATILE_CONFIG_KEYS}
        canonical = json.dumps([config, self.tensor_names()], sort_keys=True, separators=(",", ":"))
        return sha256(canonical.encode()).hexdigest()

    def tokenizer_folder(self) -> Path:
        """A local folder from which the tokenizer can be loaded."""
        return self._files.tokenizer_folder()

    def read(self, names: Collection[str]) -> dict[str, Tensor]:
        """The named tensors, on the CPU, in the checkpoint's dtype."""
        with ExitStack() as stack:
            return {name: tensor[...] for name, tensor in self.lazy(names, stack).items()}

    def lazy(
        self, names: Collection[str], stack: ExitStack, progress: Progress | None = None
    ) -> dict[str, LazyTensor]:
        """The named tensors, each read from its shard only when it is indexed.

        The shards stay open until `stack` closes; those of a Hub model are downloaded before this returns.
        """
        unknown = sorted(name for name in names if name not in self.shard_of)
        if unknown:
            raise CheckpointBroken(f"{self.name} has no tensor {unknown[0]!r} ({len(unknown)} missing).")
        wanted = sorted({self.shard_of[name] for name in names})
        shards = {shard: self._open_shard(shard, stack) for shard in wanted}
        meter = Meter(progress)
        return {name: LazyTensor(StoredTensor(shards[self.shard_of[name]], name), meter) for name in names}

    def _open_shard(self, shard: str, stack: ExitStack) -> Shard:
        path = self._files.path(shard)
        if path is None:
            raise CheckpointBroken(f"{self.name} lists {shard}, but has no such file. Get the model again.")
        opened = Shard(path)
        stack.callback(opened.close)
        return opened


def _parse_json(path: Path, model: str) -> dict[str, Any]:
    try:
        content = json.loads(path.read_bytes())
    except ValueError as error:
        raise CheckpointBroken(f"{path.name} of {model} is not JSON: {error}. Get the file again.") from error
    if not isinstance(content, dict):
        raise CheckpointBroken(f"{path.name} of {model} is not a JSON object. Get the file again.")
    return content


def _parse_config(raw: dict[str, Any], folder: Path, model: str) -> PreTrainedConfig:
    model_type = raw.get("model_type")
    if not isinstance(model_type, str) or model_type not in CONFIG_MAPPING:
        if "auto_map" in raw:
            raise RemoteCodeRefused(
                f"{model} of type {model_type!r} needs Python code of its own, which is never run. "
                "Use a model that transformers itself supports."
            )
        raise FamilyRefused(f"{model} has model type {model_type!r}, which transformers does not know.")
    if raw.get("quantization_config"):
        raise FamilyRefused(
            f"{model} is stored quantized, which is not supported. "
            "Use a copy in 16 or 32 bits; it can be quantized while loading."
        )
    try:
        return CONFIG_MAPPING[model_type].from_pretrained(folder)
    except (ValueError, TypeError, StrictDataclassError) as error:
        raise CheckpointBroken(f"config.json of {model} is no valid {model_type} config: {error}") from error


def _checked_block_count(config: PreTrainedConfig, model: str) -> int:
    count: int = config.num_hidden_layers
    if not 0 < count <= MAX_BLOCKS:
        raise CheckpointBroken(f"{model} has {count} blocks by its config; 1 to {MAX_BLOCKS} can be served.")
    return count


def _parse_index(path: Path, model: str) -> dict[str, str]:
    shards = _parse_json(path, model).get("weight_map")
    if not isinstance(shards, dict) or not all(isinstance(shard, str) for shard in shards.values()):
        raise CheckpointBroken(f"{path.name} of {model} has no weight_map. Get the file again.")
    for shard in sorted(set(shards.values())):
        if PurePosixPath(shard).name != shard or "\\" in shard:
            raise CheckpointBroken(f"{path.name} of {model} points outside the model: {shard!r}.")
        if not shard.endswith(".safetensors"):
            raise PickleRefused(f"{path.name} of {model} lists {shard}; only safetensors are opened.")
    return shards
