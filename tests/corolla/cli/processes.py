"""Commands as processes of their own, at a terminal of their own where they need one."""

import asyncio
import os
import pty
import signal
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from tests.relay.core.waiting import eventually

ROOT = Path(__file__).parents[3]
CTRL_C, CTRL_D = "\x03", "\x04"
_HEAR_CTRL_C = (
    "import os, signal, sys; signal.signal(signal.SIGINT, signal.SIG_DFL); "
    "os.execv(sys.executable, [sys.executable, '-m', 'corolla', *sys.argv[1:]])"
)
"""Also where the tests run in the background, whose processes ignore it."""
_TAKE_THE_TERMINAL = f"import fcntl, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); {_HEAR_CTRL_C}"
"""So that Ctrl-C is a signal there, as at everybody's terminal."""


class Terminal:
    """A terminal with one command at it: what it shows, and what is typed."""

    def __init__(self, process: asyncio.subprocess.Process, descriptor: int) -> None:
        self.process = process
        self.shown = ""
        """Everything so far."""
        self._descriptor = descriptor
        self._read_up_to = 0

    def receive(self) -> None:
        """Take what the command has written."""
        with suppress(OSError):  # it has ended
            self.shown += os.read(self._descriptor, 65536).decode()

    def type(self, text: str) -> None:
        os.write(self._descriptor, text.encode())

    async def shows(self, text: str) -> str:
        """Return when this is shown, after all that was waited for before; what came before it."""
        try:
            await eventually(lambda: text in self.shown[self._read_up_to :])
        except AssertionError:
            raise AssertionError(f"{text!r} is not shown; what is: {self.shown!r}") from None
        before, _, _ = self.shown[self._read_up_to :].partition(text)
        self._read_up_to += len(before) + len(text)
        return before

    async def ends(self) -> int:
        """The exit code, once the command has ended."""
        code = await asyncio.wait_for(self.process.wait(), 30)
        self.receive()
        return code


@asynccontextmanager
async def at_a_terminal(environment: Mapping[str, str], *arguments: str) -> AsyncIterator[Terminal]:
    """A command at a terminal that knows no escapes, so that all that it shows is what was said."""
    descriptor, other_end = pty.openpty()
    os.set_blocking(descriptor, False)
    try:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", _TAKE_THE_TERMINAL, *arguments),
            **dict.fromkeys(("stdin", "stdout", "stderr"), other_end),
            env={**os.environ, "TERM": "dumb", "PYTHONPATH": str(ROOT), **environment},
            start_new_session=True,
        )
    finally:
        os.close(other_end)
    terminal = Terminal(process, descriptor)
    loop = asyncio.get_running_loop()
    loop.add_reader(descriptor, terminal.receive)
    try:
        yield terminal
    finally:
        loop.remove_reader(descriptor)
        os.close(descriptor)
        with suppress(ProcessLookupError):
            process.send_signal(signal.SIGKILL)
        await process.wait()


async def piped(environment: Mapping[str, str], *arguments: str) -> asyncio.subprocess.Process:
    """A command whose output somebody reads."""
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", _HEAR_CTRL_C, *arguments),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
    )
