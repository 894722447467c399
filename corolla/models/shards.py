"""Tensors in safetensors shards, read only when they are indexed, and counted as they are read.

A shard is mapped into memory, and what is read of it is copied out, so that nothing keeps the mapping: a
tensor of a few bytes would otherwise keep the pages of its whole shard. A mapping that much has been read of
is replaced by a fresh one, so that a large shard's pages are not held either.
"""

import threading
from collections.abc import Callable
from math import prod
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from corolla.models.errors import CheckpointBroken

Progress = Callable[[int, int], None]
"""Called with bytes read so far and bytes in all, from whichever thread reads, one call at a time."""

WIDE_DTYPES = {
    "F64": 8,
    "I64": 8,
    "U64": 8,
    "F32": 4,
    "I32": 4,
    "U32": 4,
    "F16": 2,
    "BF16": 2,
    "I16": 2,
    "U16": 2,
}
"""Bytes per element by safetensors' names; every other dtype has one byte or less."""
PAGES_AT_MOST = 64 << 20
"""Bytes read through one mapping before it is let go; opening a shard takes about a millisecond."""


class Shard:
    """A safetensors file, and how much of it is mapped. Several threads may read."""

    def __init__(self, path: Path) -> None:
        """Raises CheckpointBroken where it is no such file, or a damaged one."""
        self._path = path
        self._lock = threading.Lock()
        self._mapped: Any = self._map()
        self._read_of_mapping = 0

    def close(self) -> None:
        """Lets the mapping go: nothing more can be read."""
        with self._lock:
            self._mapped = None

    def slice(self, name: str) -> Any:
        """The library's own view of a tensor: shape, dtype, and values when it is indexed.

        Raises CheckpointBroken where the shard does not hold it.
        """
        with self._lock:
            try:
                return self._mapped.get_slice(name)
            except SafetensorError as error:
                raise CheckpointBroken(f"{self._path.name} does not hold {name!r}. Get it again.") from error

    def read(self, name: str, index: Any) -> Tensor:
        """A copy of a tensor's values, in memory of its own."""
        values: Tensor = self.slice(name)[index]
        copied = values.clone()
        with self._lock:
            self._read_of_mapping += copied.nbytes
            if self._read_of_mapping > PAGES_AT_MOST:
                # Other threads may still read the old one: it goes when the last of them is done.
                self._mapped = self._map()
                self._read_of_mapping = 0
        return copied

    def _map(self) -> Any:
        try:
            return safe_open(self._path, framework="pt")
        except (OSError, SafetensorError) as error:
            raise CheckpointBroken(f"{self._path} is damaged: {error}. Get it again.") from error


class StoredTensor:
    """One tensor of a shard, in the form in which safetensors gives a slice."""

    def __init__(self, shard: Shard, name: str) -> None:
        """Raises CheckpointBroken where the shard does not hold it."""
        self._shard = shard
        self._name = name
        in_shard = shard.slice(name)
        self._shape: list[int] = in_shard.get_shape()
        self._dtype: str = in_shard.get_dtype()

    def __getitem__(self, index: Any) -> Tensor:
        return self._shard.read(self._name, index)

    def get_shape(self) -> list[int]:
        return self._shape

    def get_dtype(self) -> str:
        return self._dtype


class Meter:
    """Adds up what several threads read."""

    def __init__(self, progress: Progress | None) -> None:
        self.total = 0
        self._done = 0
        self._progress = progress
        self._lock = threading.Lock()

    def count(self, nbytes: int) -> None:
        if self._progress is None:
            return
        with self._lock:
            self._done += nbytes
            self._progress(self._done, self.total)


class LazyTensor:
    """A tensor in a shard. `transformers` takes it in place of a tensor, and indexes it when it places it."""

    def __init__(self, in_shard: Any, meter: Meter) -> None:
        self._in_shard = in_shard
        self._meter = meter
        width = WIDE_DTYPES.get(in_shard.get_dtype(), 1)
        meter.total += prod(in_shard.get_shape()) * width

    def __getitem__(self, index: Any) -> Tensor:
        tensor: Tensor = self._in_shard[index]
        self._meter.count(tensor.nbytes)
        return tensor

    def get_shape(self) -> list[int]:
        return self._in_shard.get_shape()

    def get_dtype(self) -> str:
        return self._in_shard.get_dtype()
