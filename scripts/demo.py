"""`make demo`: a relay and three volunteers on this machine, from the Procfile, until Ctrl-C.

Migrates, makes tokens, starts everything, shows how the swarm comes together, and says how to use
it. Its database, files and logs are in `.demo/`, or in the folder that DEMO_FOLDER names; nothing else on
the machine is touched.
"""

import contextlib
import fcntl
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

import msgspec

from schema.swarm import SwarmStatus, VolunteerStatus

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / (os.environ.get("DEMO_FOLDER") or ".demo")
LOG = FOLDER / "demo.log"
MODEL = "corolla-demo"
VOLUNTEERS = 3
BLOCKS_EACH = 4
START_SECONDS = 300.0
POLL_SECONDS = 0.2
BEGIN_SECONDS = 10.0
"""How long honcho may take to start its processes."""
STOP_SECONDS = 40.0
EVERY_ADDRESS = ("0.0.0.0", "::")
THIS_MACHINE = ("127.0.0.1", "localhost", "::1")

_direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
"""The relay is on this machine: a proxy that the environment names would not find it."""


class DemoFailed(Exception):
    """Why the demo cannot go on, with its remedy."""


def main() -> int:
    FOLDER.mkdir(parents=True, exist_ok=True)
    try:
        with alone():
            LOG.unlink(missing_ok=True)
            run()
    except DemoFailed as error:
        print(f"\n{error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        pass
    return 0


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """Nobody else's demo uses the folder, with its database and its log, meanwhile."""
    with (FOLDER / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise DemoFailed(
                f"Another demo is running in {in_project(FOLDER)}. Stop it first, or choose another folder: "
                "make demo DEMO_FOLDER=.demo2"
            ) from None
        yield


def run() -> None:
    """Start, wait, explain, and stay until Ctrl-C."""
    port = choose_port(os.environ.get("PORT"))
    environment = demo_environment(port)
    operator(environment, "migrate")
    environment["COROLLA_TOKEN"] = operator(
        environment, "token", "create", "--kind", "volunteer", "--name", "demo"
    )
    client_token = operator(environment, "token", "create", "--kind", "client", "--name", "demo")
    url = environment["COROLLA_RELAY"]
    print(f"Starting a relay and {VOLUNTEERS} volunteers (log: {in_project(LOG)})", flush=True)
    with procfile(environment, port) as processes:
        wait_until_complete(url, processes)
        explain(environment, client_token)
        processes.wait()
        raise DemoFailed(f"{who_ended()}, and the others with it. {log_tail()}")


def choose_port(wanted: str | None) -> int:
    """PORT, or 8000, or any free port when 8000 is taken."""
    if wanted is None:
        port = 8000 if is_free(8000) else free_port()
        if port != 8000:
            print(f"Port 8000 is taken; using {port}")
        return port
    if not wanted.isdecimal() or not 0 < int(wanted) < 2**16 or not is_free(int(wanted)):
        raise DemoFailed(f"Port {wanted} is taken or not a port. Choose another: make demo PORT=8123")
    return int(wanted)


def is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def demo_environment(port: int) -> dict[str, str]:
    host = os.environ.get("HOST", "127.0.0.1")
    url = f"http://{'127.0.0.1' if host in EVERY_ADDRESS else host}:{port}"
    return {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}",
        "HOST": host,
        "PORT": str(port),
        "PUBLIC_URL": os.environ.get("PUBLIC_URL", url),
        "COROLLA_RELAY": url,
        "DATABASE_URL": f"sqlite:///{FOLDER / 'relay.sqlite3'}",
        "FILES": str(FOLDER / "files"),
        "OPEN_CHAT": "true",
        "MODELS": MODEL,
        "COROLLA_MAX_BLOCKS": str(BLOCKS_EACH),
        "COROLLA_THREADS": "1",
        "COROLLA_CACHE": str(FOLDER / "cache"),
        "PYTHONUNBUFFERED": "1",
    }


def operator(environment: dict[str, str], *arguments: str) -> str:
    """What `python -m relay ARGUMENTS` prints."""
    done = subprocess.run(
        [sys.executable, "-m", "relay", *arguments], env=environment, cwd=ROOT, capture_output=True, text=True
    )
    if done.returncode:
        raise DemoFailed(f"`python -m relay {' '.join(arguments)}` failed: {done.stderr.strip()}")
    return done.stdout.strip()


@contextlib.contextmanager
def procfile(environment: dict[str, str], port: int) -> Iterator[subprocess.Popen[bytes]]:
    """The Procfile's processes, ended together."""
    formation = f"web=1,volunteer={VOLUNTEERS}"
    command = [sys.executable, "-m", "honcho", "start", "--no-colour", "-p", str(port), "-c", formation]
    with LOG.open("wb") as log:
        # A group of its own, so that Ctrl-C reaches it once, through here.
        child = subprocess.Popen(
            [*command, "web", "volunteer"],
            env=environment,
            cwd=ROOT,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        yield child
    finally:
        if child.poll() is None:
            stop(child)
        for process in running():  # whom honcho has left behind: each has a group of its own
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process, signal.SIGKILL)


def stop(child: subprocess.Popen[bytes]) -> None:
    """End the Procfile's processes: they finish what they do, and honcho kills those that take too long."""
    with contextlib.suppress(OSError):  # the terminal may be gone
        print("\nStopping", flush=True)
    # Asked to end while it starts, honcho fails, and leaves behind what it has started.
    deadline = time.monotonic() + BEGIN_SECONDS
    while len(told("started")) <= VOLUNTEERS and child.poll() is None and time.monotonic() < deadline:
        time.sleep(POLL_SECONDS)
    child.send_signal(signal.SIGTERM)
    try:
        child.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        os.killpg(child.pid, signal.SIGKILL)


def running() -> list[int]:
    """The Procfile's processes that have started and not ended, as honcho has told of them."""
    ended = told("stopped")
    return [int(pid) for name, pid in told("started").items() if name not in ended]


def wait_until_complete(url: str, processes: subprocess.Popen[bytes]) -> None:
    """Show the volunteers on their way until the model can answer."""
    deadline = time.monotonic() + START_SECONDS
    shown: dict[str, str] = {}
    while True:
        status = swarm(url)
        if status is not None:
            for one in status.volunteers:
                line = describe(one)
                if shown.get(one.name) != line:
                    shown[one.name] = line
                    print(f"  {line}", flush=True)
            if any(model.id == MODEL and model.complete for model in status.models):
                return
        if processes.poll() is not None or time.monotonic() > deadline:
            raise DemoFailed(f"The swarm did not come together. {log_tail()}")
        time.sleep(POLL_SECONDS)


def swarm(url: str) -> SwarmStatus | None:
    try:
        with _direct.open(f"{url}/api/swarm", timeout=5) as answer:
            return msgspec.json.decode(answer.read(), type=SwarmStatus)
    except OSError:
        return None


def describe(one: VolunteerStatus) -> str:
    line = f"{one.name:<14} {one.state:<10}"
    if one.start is not None and one.end is not None:
        line += f" blocks {one.start}\N{EN DASH}{one.end - 1}"
    return f"{line} and head" if one.head else line.rstrip()


def explain(environment: dict[str, str], client_token: str) -> None:
    """What to do now, as lines to copy."""
    url = environment["PUBLIC_URL"]
    question = '[{"role": "user", "content": "What is Corolla?"}]'
    body = f'{{"model": "{MODEL}", "stream": true, "messages": {question}}}'
    print(
        f"""
The swarm is complete. Chat in the browser:

  {url}

From a script:

  curl -N {url}/v1/chat/completions \\
    -H "Authorization: Bearer {client_token}" \\
    -H "Content-Type: application/json" \\
    -d '{body}'

From a terminal, by the line (docs/cli.md):

  COROLLA_API_KEY={client_token} .venv/bin/python -m corolla chat

{how_to_join(environment)}

Ctrl-C stops everything.""",
        flush=True,
    )


def how_to_join(environment: dict[str, str]) -> str:
    """How another machine becomes a volunteer of this demo."""
    if environment["HOST"] in THIS_MACHINE or urlsplit(environment["PUBLIC_URL"]).hostname in THIS_MACHINE:
        return f"""To let other machines join, start it again where they can reach it:

  HOST=0.0.0.0 PUBLIC_URL=http://ADDRESS-OF-THIS-MACHINE:{environment["PORT"]} make demo"""
    return f"""From another machine, with Corolla installed (see the README), join with:

  python -m volunteer --token {environment["COROLLA_TOKEN"]}"""


def in_project(path: Path) -> Path:
    """A file or folder as somebody in the project's folder would open it."""
    return path.relative_to(ROOT) if path.is_relative_to(ROOT) else path


def told(what: Literal["started", "stopped"]) -> dict[str, str]:
    """Of which processes honcho says this, in its order: with their process ids, or exit codes."""
    found = re.findall(rf"system +\| (\S+) {what} \((?:pid|rc)=(-?\d+)\)", LOG.read_text(errors="replace"))
    return dict(found)


def who_ended() -> str:
    """The first process that ended; the others' ends follow it in the log."""
    for name, code in told("stopped").items():
        return f"{name} has ended (exit code {code})"
    return "A process has ended"


def log_tail(lines: int = 40) -> str:
    """The log's end: the processes that stop after the first one write some twenty lines themselves."""
    end = "\n".join(LOG.read_text(errors="replace").splitlines()[-lines:])
    return f"The log ({in_project(LOG)}) ends:\n{end}"


if __name__ == "__main__":
    # Whoever starts it in the background of a script has it ignore Ctrl-C, and it would never end.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # who starts it with `nohup` wants it to stay
        signal.signal(signal.SIGHUP, signal.default_int_handler)
    sys.exit(main())
