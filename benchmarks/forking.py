"""Volunteers as forks of a process that has imported already what all of them import.

Importing torch and transformers takes seconds of a core, and tests start volunteers a hundred times. So where
`FORK_SERVER` names a socket, a server that listens there is started once and asked for each volunteer:

    ask ── arguments, environment, log ──> server ── fork ──> `python -m volunteer ARGUMENTS`
        <── its pid, and when it has ended, how ──

A volunteer is a process of its own as any other, with its memory, signals and sockets; only its first seconds
are spared. POSIX only. Does not know what is tested.

    python -m benchmarks.forking SOCKET -m volunteer

is the server. The last two words do nothing but say to those who look for volunteers what its forks are.
"""

import contextlib
import importlib
import os
import runpy
import select
import selectors
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

FORK_SERVER = "COROLLA_FORK_SERVER"
"""The environment's variable that names the server's socket."""
START_SECONDS = 120.0
PRELOADED = (
    "volunteer.service",
    "volunteer.measure_command",
    "transformers.models.llama.modeling_llama",
    "transformers.modeling_utils",
    "corolla.models.loading",
    "corolla.text",
)
_MAX_BYTES = 1 << 20


class Order(msgspec.Struct):
    """What is asked of the server."""

    arguments: list[str]
    """Behind `python -m volunteer`."""
    environment: dict[str, str]
    folder: str
    """To work in."""
    log: str
    """For what it prints."""


class Born(msgspec.Struct):
    """The server's first answer."""

    pid: int


class ForkedProcess:
    """A fork, with what `subprocess.Popen` has for a child: it may be asked, waited for and signalled."""

    def __init__(self, path: Path, order: Order) -> None:
        self._connection = socket.socket(socket.AF_UNIX)
        self._connection.connect(str(path))
        _send(self._connection, msgspec.json.encode(order))
        line = self._receive_line(None)
        if not line:
            raise RuntimeError("the fork server has ended")
        self.pid = msgspec.json.decode(line, type=Born).pid
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """How it has ended: its exit code, or the signal's number below zero; None while it has not."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            return self.wait(0.0)
        return None

    def wait(self, timeout: float | None = None) -> int:
        """As `poll`, once it has ended. Raises subprocess.TimeoutExpired."""
        if self.returncode is None:
            line = self._receive_line(timeout)
            if line is None:
                raise subprocess.TimeoutExpired(["volunteer"], timeout or 0.0)
            # A server that was killed takes nobody with it, but cannot say how they end.
            self.returncode = int(line) if line else -signal.SIGKILL
            self._connection.close()
        return self.returncode

    def send_signal(self, sig: int) -> None:
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):  # it has ended, which its server is about to say
                os.kill(self.pid, sig)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def _receive_line(self, timeout: float | None) -> bytes | None:
        """What the server says next; None when it says nothing in that time."""
        if timeout is not None and not select.select([self._connection], [], [], timeout)[0]:
            return None
        return self._connection.recv(_MAX_BYTES)


def fork_volunteer(
    path: Path, arguments: Sequence[str], environment: Mapping[str, str], log: Path
) -> ForkedProcess:
    """A volunteer of the server at this socket, which is started when there is none yet.

    The server gets this environment too, since some of it is read when libraries are imported.
    """
    if not path.exists():
        _start_server(path, environment)
    log.touch()
    order = Order(list(arguments), dict(environment), str(Path.cwd()), str(log))
    return ForkedProcess(path, order)


def _start_server(path: Path, environment: Mapping[str, str]) -> None:
    command = [sys.executable, "-m", "benchmarks.forking", str(path), "-m", "volunteer"]
    server = os.posix_spawn(sys.executable, command, environment)
    deadline = time.monotonic() + START_SECONDS
    while not path.exists():
        if os.waitpid(server, os.WNOHANG)[0] or time.monotonic() > deadline:
            raise RuntimeError("the server that volunteers are forked from did not start; see above")
        time.sleep(0.02)


def end_server(path: Path) -> None:
    """End the server of a socket, if there is one. Its forks stay."""
    if not path.exists():
        return
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(path))
        _send(connection, b"")
        connection.recv(1)  # until it has closed it


class _Server:
    """Forks, and tells how each fork ends. One thread: a fork has no other."""

    def __init__(self, listener: socket.socket) -> None:
        self._listener = listener
        self._selector = selectors.DefaultSelector()
        self._askers: dict[int, socket.socket] = {}
        """By the file descriptor of their process."""

    def run(self) -> Order | None:
        """In the server None, once it is told to end. In each fork, what it is to become."""
        self._selector.register(self._listener, selectors.EVENT_READ)
        while True:
            for key, _ in self._selector.select():
                if key.fileobj is not self._listener:
                    self._tell(key.fd, key.data)
                    continue
                asker, _ = self._listener.accept()
                said = _receive(asker)
                if not said:
                    asker.close()
                    return None
                if not self._fork(asker):
                    return msgspec.json.decode(said, type=Order)

    def _fork(self, asker: socket.socket) -> bool:
        """False: this is the fork."""
        pid = os.fork()
        if not pid:
            self._close_all(asker)
            return False
        watched = os.pidfd_open(pid)
        self._askers[watched] = asker
        self._selector.register(watched, selectors.EVENT_READ, pid)
        asker.sendall(msgspec.json.encode(Born(pid)))
        return True

    def _tell(self, watched: int, pid: int) -> None:
        _, status = os.waitpid(pid, 0)
        self._selector.unregister(watched)
        os.close(watched)
        with contextlib.suppress(OSError), self._askers.pop(watched) as asker:  # who may have ended before
            asker.sendall(str(os.waitstatus_to_exitcode(status)).encode())

    def _close_all(self, asker: socket.socket) -> None:
        """In the fork: what is the server's alone."""
        self._selector.close()
        for watched, other in self._askers.items():
            os.close(watched)
            other.close()
        self._listener.close()
        asker.close()


def _become(order: Order) -> None:
    """Go on as the volunteer, in a fork."""
    output = os.open(order.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.close(output)
    os.chdir(order.folder)
    os.environ.clear()
    os.environ.update(order.environment)
    sys.argv = ["volunteer", *order.arguments]
    runpy.run_module("volunteer", run_name="__main__", alter_sys=True)


def _send(connection: socket.socket, message: bytes) -> None:
    connection.sendall(len(message).to_bytes(4) + message)


def _receive(connection: socket.socket) -> bytes:
    with connection.makefile("rb") as stream:
        return stream.read(int.from_bytes(stream.read(4)))


def main() -> int:
    path = Path(sys.argv[1])
    for name in PRELOADED:
        importlib.import_module(name)
    with socket.socket(socket.AF_UNIX) as listener:
        hidden = path.with_suffix(".new")  # in its place only once it can be asked
        listener.bind(str(hidden))
        listener.listen()
        hidden.rename(path)
        order = _Server(listener).run()
    if order is not None:
        _become(order)
        return 0
    path.unlink()
    return 0


if __name__ == "__main__":
    sys.exit(main())
