"""Relays and volunteers as processes, for benchmarks and tests: started, waited for, and ended.

Every relay gets a database of its own in a temporary folder. Does not know what is measured or tested.
"""

import contextlib
import os
import secrets
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Collection, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import msgspec

from benchmarks.forking import FORK_SERVER, ForkedProcess, fork_volunteer
from schema.swarm import SwarmStatus

START_SECONDS = 120.0
EXIT_SECONDS = 30.0
NOTHING_KEPT = ("--prefix-cache", "0")
"""For volunteers that shall compute every prompt as a whole, though it is the same every time."""
ONE_THREAD = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}

_direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
"""Everything here is on this machine: no proxy of the environment's would find it."""

_Process = TypeVar("_Process", subprocess.Popen[bytes], ForkedProcess)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextlib.contextmanager
def process(
    arguments: Sequence[str],
    environment: Mapping[str, str],
    log: Path,
    core: int | None = None,
    within: Sequence[str] = (),
) -> Iterator[subprocess.Popen[bytes]]:
    """`python ARGUMENTS` with its output in `log`; terminated at the end. `core`: the only CPU it may use.

    `within`: a command that replaces itself by the one it is given, and puts it elsewhere.
    """
    with log.open("ab") as output:
        child = subprocess.Popen(
            [*within, sys.executable, *arguments],
            env={**os.environ, **environment},
            stdout=output,
            stderr=output,
        )
    with ended(child, core):
        yield child


@contextlib.contextmanager
def ended(child: _Process, core: int | None = None) -> Iterator[_Process]:
    """A process that is terminated at the end. `core`: the only CPU it may use."""
    try:
        if core is not None:
            pin(core, child.pid)
        yield child
    finally:
        child.terminate()
        try:
            child.wait(EXIT_SECONDS)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


def pin(core: int, pid: int = 0) -> None:
    """Keep a process on one CPU, where the system can."""
    if hasattr(os, "sched_setaffinity") and core < (os.cpu_count() or 1):
        os.sched_setaffinity(pid, {core})


@contextlib.contextmanager
def going_first(*pids: int) -> Generator[bool]:
    """Have these processes go before all ordinary ones while the block runs, as if on cores of their own.

    Yields whether the system allows it: Linux does for root. For moments in which they wait more than they
    work: a process that never waits would have its core for itself.
    """
    if not hasattr(os, "sched_setscheduler"):
        yield False
        return
    before = {pid: (os.sched_getscheduler(pid), os.sched_getparam(pid)) for pid in pids}
    try:
        try:
            for pid in pids:
                os.sched_setscheduler(pid, os.SCHED_FIFO, os.sched_param(1))
            is_allowed = True
        except PermissionError:
            is_allowed = False
        yield is_allowed
    finally:
        for pid, (policy, parameter) in before.items():
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.sched_setscheduler(pid, policy, parameter)


@dataclass(frozen=True, slots=True)
class Volunteer:
    """A running volunteer."""

    name: str
    process: subprocess.Popen[bytes] | ForkedProcess
    log: Path


@dataclass(frozen=True, slots=True)
class RelayProcess:
    """A running relay."""

    url: str
    secret: bytes
    environment: dict[str, str]
    folder: Path
    process: subprocess.Popen[bytes]
    _shared: list[str] = field(default_factory=lambda: list[str]())

    @property
    def log(self) -> Path:
        return self.folder / "relay.log"

    def token(self, kind: str, name: str) -> str:
        return self.operate("token", "create", "--kind", kind, "--name", name).strip()

    def volunteer_token(self) -> str:
        """One for all volunteers, whose ids differ all the same: making a token is a process of its own."""
        if not self._shared:
            self._shared.append(self.token("volunteer", "volunteers"))
        return self._shared[0]

    def operate(self, *arguments: str) -> str:
        """What an operator's command prints: `python -m relay ARGUMENTS`."""
        command = [sys.executable, "-m", "relay", *arguments]
        environment = {**os.environ, **self.environment}
        return subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout

    def swarm(self) -> SwarmStatus:
        """What the page would show; needs a relay that is open."""
        with _direct.open(f"{self.url}/api/swarm", timeout=10) as answer:
            return msgspec.json.decode(answer.read(), type=SwarmStatus)

    def wait_until_serving(
        self, names: Collection[str], children: Collection[Volunteer] = (), seconds: float = START_SECONDS
    ) -> None:
        """Return when the volunteers of these names serve; raise with its log when one cannot."""
        deadline = time.monotonic() + seconds
        while True:
            serving = {one.name for one in self.swarm().volunteers if one.state == "serving"}
            if serving.issuperset(names):
                return
            for child in children:
                if child.process.poll() is not None:
                    raise RuntimeError(f"{child.name} has ended; its log ends:\n{tail(child.log)}")
            if time.monotonic() > deadline:
                logs = "\n".join(f"--- {child.name}\n{tail(child.log)}" for child in children)
                raise RuntimeError(f"only {sorted(serving)} of {sorted(names)} serve\n{logs}")
            time.sleep(0.05)


@contextlib.contextmanager
def volunteer(
    server: RelayProcess,
    name: str,
    *arguments: str,
    core: int | None = None,
    within: Sequence[str] = (),
    token: str | None = None,
    afresh: bool = False,
) -> Iterator[Volunteer]:
    """A volunteer of `server`, on one thread, with more arguments for its command line.

    `token`: of its own, where that of all volunteers will not do.

    What it measures is kept beside the relay's database, and so for as long as that.

    `within`: see `process`. Where the environment names a server for that, it is a fork
    (benchmarks/forking.py), unless it is to begin `afresh`.
    """
    log = server.folder / f"{name}.log"
    command = ["--name", name, "--threads", "1", *arguments]
    environment = {
        "COROLLA_TOKEN": token or server.volunteer_token(),
        "COROLLA_CACHE": str(server.folder / "cache"),
        **ONE_THREAD,
    }
    forks = os.environ.get(FORK_SERVER)
    if forks is None or within or afresh:
        with process(["-m", "volunteer", *command], environment, log, core, within) as child:
            yield Volunteer(name, child, log)
        return
    with ended(fork_volunteer(Path(forks), command, {**os.environ, **environment}, log), core) as child:
        yield Volunteer(name, child, log)


@contextlib.contextmanager
def volunteers(
    server: RelayProcess,
    spans: Mapping[str, str],
    *arguments: str,
    each: Mapping[str, Sequence[str]] | None = None,
    seconds: float = START_SECONDS,
) -> Iterator[list[Volunteer]]:
    """A volunteer for each name and span (`start:end`), started side by side, all serving within `seconds`.

    `each`: by name, further arguments of one alone.
    """
    own = each or {}
    with contextlib.ExitStack() as stack:
        running = [
            stack.enter_context(volunteer(server, name, "--blocks", span, *arguments, *own.get(name, ())))
            for name, span in spans.items()
        ]
        server.wait_until_serving(spans.keys(), running, seconds)
        yield running


@contextlib.contextmanager
def relay(
    models: str, core: int | None = None, within: Sequence[str] = (), **settings: str
) -> Iterator[RelayProcess]:
    """A relay on a free port, ready to serve `models`. `within`: see `process`."""
    with tempfile.TemporaryDirectory(prefix="corolla-") as name:
        folder = Path(name)
        port = free_port()
        environment = {
            "HOST": "127.0.0.1",
            "PORT": str(port),
            "PUBLIC_URL": f"http://127.0.0.1:{port}",
            "DATABASE_URL": f"sqlite:///{folder}/relay.sqlite3",
            "RELAY_SECRET": secrets.token_hex(32),
            "MODELS": models,
            "OPEN_CHAT": "true",
            **settings,
        }
        with serving_relay(environment, folder, core, within) as server:
            yield server


@contextlib.contextmanager
def serving_relay(
    environment: dict[str, str], folder: Path, core: int | None = None, within: Sequence[str] = ()
) -> Iterator[RelayProcess]:
    """A relay with these settings, ready; in `folder` its log, which goes on where another's of it ended."""
    url, log = environment["PUBLIC_URL"], folder / "relay.log"
    with process(["-m", "relay", "serve"], environment, log, core, within) as child:
        wait_until_ready(f"{url}/readyz", child, log)
        yield RelayProcess(url, bytes.fromhex(environment["RELAY_SECRET"]), environment, folder, child)


def wait_until_ready(url: str, child: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while True:
        with contextlib.suppress(OSError), _direct.open(url, timeout=2):
            return
        if child.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"no answer from {url}; its log ends:\n{tail(log)}")
        time.sleep(0.05)


def tail(log: Path, lines: int = 30) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-lines:])
