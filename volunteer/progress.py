"""How far the loading is, told to the relay, and not too often."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from time import monotonic

from schema import messages
from schema.errors import CorollaError

ReportProgress = Callable[[int, int], None]
"""Called from other threads with bytes read and bytes in all. What it raises ends the loading."""


def at_most_every(seconds: float, report: ReportProgress) -> ReportProgress:
    """`report`, but not more often, since checkpoints have thousands of tensors; the end is always told."""
    told = float("-inf")

    def limited(done: int, total: int) -> None:
        nonlocal told
        now = monotonic()
        if done >= total or now - told >= seconds:
            told = now
            report(done, total)

    return limited


def to_relay(send: Callable[[messages.FromPeer], None]) -> ReportProgress:
    """Tells the relay how far the loading is; for the threads that load."""
    loop = asyncio.get_running_loop()

    def tell(done: int, total: int) -> None:
        with suppress(CorollaError):  # it is only shown to people
            send(messages.Progress(phase="loading", done=done, total=total))

    def report(done: int, total: int) -> None:
        loop.call_soon_threadsafe(tell, done, total)

    return report
