"""Prints how much memory this process took while it loaded a span: `python -m … FOLDER DTYPE QUANTIZATION`.

A process of its own, since one that has freed memory before takes it again without anyone seeing it.
"""

import json
import re
import sys
import threading
from pathlib import Path
from typing import Any, Self, cast

import torch

from corolla.models import LoadOptions, ModelSource, SpanModel
from corolla.models.quantization import Quantization

STATUS = Path("/proc/self/status")
EVERY = 0.001
"""Seconds between two looks."""


def resident() -> tuple[int, int]:
    """Bytes in memory now: this process's own, and pages of mapped files."""
    found = dict(re.findall(r"(RssAnon|RssFile):\s+(\d+) kB", STATUS.read_text()))
    return 1024 * int(found["RssAnon"]), 1024 * int(found["RssFile"])


class Watch:
    """Looks all the time, from a thread of its own, and keeps the most that it saw."""

    def __init__(self) -> None:
        self.before = self.most = self.after = (0, 0)
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._look)

    def __enter__(self) -> Self:
        self.before = self.most = resident()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()
        self.after = resident()

    def _look(self) -> None:
        while not self._done.wait(EVERY):
            own, mapped = resident()
            self.most = max(self.most[0], own), max(self.most[1], mapped)


def main(warm_up: str, folder: str, dtype: str, quantization: str) -> dict[str, Any]:
    torch.set_num_threads(1)
    options = LoadOptions(
        dtype=getattr(torch, dtype), quantization=cast(Quantization, quantization), kernels="library"
    )
    small = ModelSource.open(warm_up)
    SpanModel.load(small, 0, small.block_count, options)  # imports what is imported on the way
    source = ModelSource.open(folder)
    with Watch() as watch:
        span = SpanModel.load(source, 0, source.block_count, options)
    return {
        "weights": span.weights.nbytes,
        "own_peak": watch.most[0] - watch.before[0],
        "own_after": watch.after[0] - watch.before[0],
        "mapped_peak": watch.most[1] - watch.before[1],
        "mapped_after": watch.after[1] - watch.before[1],
    }


if __name__ == "__main__":
    print(json.dumps(main(*sys.argv[1:])))
