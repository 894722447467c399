"""What the commands share: a store for the time of one piece of work, and columns of text.

A command prints what scripts may read to standard output, and what people should know to standard
error. It raises CorollaError or OperatorError when it refuses; relay/__main__.py prints those.
"""

import asyncio
import sys
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from typing import TypeVar

from relay.settings import Settings
from relay.store import Store

_T = TypeVar("_T")


def run_with_store(settings: Settings, work: Callable[[Store], Awaitable[_T]]) -> _T:
    """The result of `work` on the database of the settings."""

    async def run() -> _T:
        async with Store.open(settings) as store:
            return await work(store)

    return asyncio.run(run())


def explain(text: str) -> None:
    """Tell the person; scripts do not see it."""
    print(text, file=sys.stderr)


def columns(heading: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Rows below their heading, in aligned columns."""
    widths = [max(map(len, column)) for column in zip(heading, *rows, strict=True)]
    lines = (
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        for row in (heading, *rows)
    )
    return "\n".join(line.rstrip() for line in lines)


def when(seconds: float | None) -> str:
    """A time as people read it, UTC; a dash for never."""
    return "-" if seconds is None else datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M")
