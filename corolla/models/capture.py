"""Work on a GPU recorded as CUDA graphs: what it launches, from then on launched at once.

A graph computes with the shapes, and on the memory, that it was recorded with: who records keeps its tensors,
writes what is to be computed into them, and reads there what came out.

Owner: the thread that runs the model. Knows nothing of models.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

Run = Callable[[], None]
IsDone = Callable[[], bool]
WARM_UPS = 2
"""What libraries set up at their first call must not be recorded."""


class Recorded:
    """Work as a graph. Called, it runs, and is done when that returns."""

    def __init__(self, graph: torch.cuda.CUDAGraph, device: torch.device) -> None:
        self._graph = graph
        self._device = device
        self._end = torch.cuda.Event()

    def __call__(self) -> None:
        self._graph.replay()
        finish(self._device)

    def start(self) -> IsDone:
        """Runs it while the caller does something else, but nothing on this device."""
        self._graph.replay()
        self._end.record(torch.cuda.current_stream(self._device))
        return self._end.query


class Recorder:
    """Records graphs that never run at once, and so share the memory for what is between their kernels."""

    def __init__(self, device: torch.device) -> None:
        """`device`: where the work is done, which need not be the thread's current one."""
        self._device = device
        self._stream: torch.cuda.Stream | None = None
        """Of all recordings: memory is shared by what is recorded on one stream only."""
        self._shared: Any = None

    def record(self, work: Run) -> Recorded:
        """What runs `work`'s kernels.

        Runs `work` a few times, on whatever its memory holds at the moment. Raises what the GPU's libraries
        say of work that cannot be recorded.
        """
        with torch.cuda.device(self._device):
            return Recorded(self._record(work), self._device)

    def _record(self, work: Run) -> torch.cuda.CUDAGraph:
        stream = self._stream = self._stream or torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(WARM_UPS):
                work()
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        self._shared = self._shared or torch.cuda.graph_pool_handle()
        with torch.cuda.graph(graph, pool=self._shared, stream=stream):  # torch's own is on the first GPU
            work()
        return graph


def finish(device: torch.device) -> None:
    """Return when `device` has done what this thread gave it to do."""
    if device.type == "cuda":
        torch.cuda.current_stream(device).synchronize()


def nothing() -> None:
    """What stands for a graph until it is recorded: its memory has to be there before."""


def host_tensor(*shape: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Zeros on the host; pinned, so that a graph can copy them by itself, where `device` is a GPU."""
    return torch.zeros(shape, dtype=dtype, pin_memory=device.type == "cuda")


def bytes_of(tensor: Tensor) -> memoryview:
    """The memory of a contiguous tensor on the host."""
    array: Any = tensor.reshape(-1).view(torch.uint8).numpy()
    return memoryview(array)


def row_norms(hidden: Tensor) -> Tensor:
    """Of each sequence's token, [sequences, 1, hidden_size]: fp32 [sequences], finite where that is."""
    return torch.linalg.vector_norm(hidden[:, 0], dim=1, dtype=torch.float32)


def bucket(count: int, least: int) -> int:
    """`count` rounded up to `least` times a power of two: graphs are recorded for few sizes."""
    size = least
    while size < count:
        size *= 2
    return size
