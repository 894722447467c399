"""Following a batch to its end: a bar on a terminal, a line for each change elsewhere.

Does not know how a batch is asked for.
"""

import time
from collections.abc import Callable
from typing import get_args

from corolla.cli.terminal import Console
from schema.batches import Batch, EndStatus

BAR_CELLS = 30


def watch(
    ask: Callable[[], Batch], console: Console, seconds: float, sleep: Callable[[float], None] = time.sleep
) -> Batch:
    """The batch when it has ended, looked at every `seconds`; tells its progress. Raises CommandError."""
    shown = ""
    while True:
        batch = ask()
        line = bar(batch) if console.err_is_terminal else plain(batch)
        if line != shown and console.err_is_terminal:
            console.progress(line)
        elif line != shown:
            console.note(line)
        shown = line
        if has_ended(batch):
            console.progress_ends()
            return batch
        sleep(seconds)


def bar(batch: Batch) -> str:
    """How far it is, as a bar."""
    counts = batch.request_counts
    filled = BAR_CELLS * min(_ended(batch), counts.total) // counts.total if counts.total > 0 else 0
    return f"[{'#' * filled}{'.' * (BAR_CELLS - filled)}] {_numbers(batch)}"


def plain(batch: Batch) -> str:
    """How far it is, in words."""
    return f"{batch.id}: {_numbers(batch)}"


def _numbers(batch: Batch) -> str:
    counts = batch.request_counts
    failed = f", {counts.failed} failed" if counts.failed else ""
    return f"{batch.status.replace('_', ' ')}, {_ended(batch)} of {counts.total}{failed}"


def has_ended(batch: Batch) -> bool:
    """Whether nothing more happens to it."""
    return batch.status in get_args(EndStatus)


def _ended(batch: Batch) -> int:
    return batch.request_counts.completed + batch.request_counts.failed
