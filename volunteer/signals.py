"""What a volunteer's owner says by signals: leave, pause, resume.

SIGINT and SIGTERM leave; SIGUSR1 pauses and SIGUSR2 resumes, where the system has them. Does not know what
that means (volunteer/service.py).
"""

import asyncio
import signal
from collections.abc import Callable

LEAVE_SIGNALS = (signal.SIGINT, signal.SIGTERM)


def hold_pauses() -> None:
    """Let pauses and resumes wait for `listen`: until then they would end the process."""
    _mask("SIG_BLOCK")


def listen(
    loop: asyncio.AbstractEventLoop,
    leave: Callable[[], None],
    pause: Callable[[], None],
    resume: Callable[[], None],
) -> None:
    """Call these for the signals of this process from now on. After `leave`, the next one ends it at once."""

    def leave_once() -> None:
        for number in LEAVE_SIGNALS:
            loop.remove_signal_handler(number)
            signal.signal(number, signal.SIG_DFL)
        leave()

    for number in LEAVE_SIGNALS:
        loop.add_signal_handler(number, leave_once)
    for name, call in (("SIGUSR1", pause), ("SIGUSR2", resume)):
        if hasattr(signal, name):
            loop.add_signal_handler(getattr(signal, name), call)
    _mask("SIG_UNBLOCK")


def _mask(how: str) -> None:
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(getattr(signal, how), {signal.SIGUSR1, signal.SIGUSR2})
