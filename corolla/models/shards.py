"""Tensors in safetensors shards, read only when they are indexed, and counted as they are read."""

import threading
from collections.abc import Callable
from math import prod
from typing import Any

from torch import Tensor

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
