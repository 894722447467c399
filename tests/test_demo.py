"""`make demo` keeps what its lines on the terminal promise, and leaves nothing running."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import msgspec
import pytest
from sqlalchemy import make_url

from benchmarks.processes import free_port
from relay.settings import Settings
from scripts import demo as demo_script
from scripts.demo import ROOT, DemoFailed, choose_port, demo_environment, how_to_join
from tests.garden import PATIENCE_SECONDS, wait_until

WITHOUT_CTRL_C = ("sh", "-c", 'trap "" INT; exec "$@"', "sh")
"""Starts a command as a script's background does: Ctrl-C is ignored, unless the command itself listens."""
ELSEWHERE = ("HOST", "PUBLIC_URL")
"""What would make a demo listen, or say that it does, anywhere else than on this machine."""


@dataclass(frozen=True)
class Demo:
    """A running demo, as the person at its terminal knows it."""

    url: str
    process: subprocess.Popen[bytes]
    screen: Path
    started: set[int] = field(default_factory=lambda: set[int]())
    """Its processes, once it has explained itself."""

    @property
    def said(self) -> str:
        return self.screen.read_text(encoding="utf-8")

    def wait_until_explained(self) -> None:
        wait_until(
            lambda: "Ctrl-C stops everything." in self.said or self.process.poll() is not None,
            "the demo says how to use it",
        )
        assert self.process.poll() is None, self.said
        self.started.update(descendants(self.process.pid))

    def curl_line(self) -> str:
        """The command to copy: from `curl` to the next empty line."""
        return self.said[self.said.index("curl ") :].partition("\n\n")[0]

    def interrupt(self, by: int = signal.SIGINT) -> int:
        """What Ctrl-C does: a signal for everything in the terminal's foreground. The exit code."""
        os.killpg(self.process.pid, by)
        return self.process.wait(PATIENCE_SECONDS)


def hear_hangups() -> None:
    """In a process that has just begun: also where the tests are not told that their terminal is closed."""
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.fixture
def demo(tmp_path: Path) -> Iterator[Demo]:
    """A demo with a folder and a port of its own, in a terminal of its own."""
    port, screen = free_port(), tmp_path / "screen"
    environment = {name: value for name, value in os.environ.items() if name not in ELSEWHERE}
    environment |= {"DEMO_FOLDER": str(tmp_path / "demo"), "PORT": str(port), "NO_PROXY": "127.0.0.1"}
    with screen.open("wb") as output:
        process = subprocess.Popen(
            [*WITHOUT_CTRL_C, sys.executable, "-m", "scripts.demo"],
            cwd=ROOT,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
            preexec_fn=hear_hangups,
        )
    running = Demo(f"http://127.0.0.1:{port}", process, screen)
    try:
        yield running
    finally:
        process.terminate()
        process.wait(PATIENCE_SECONDS)
        for pid in running.started & living().keys():
            os.kill(pid, signal.SIGKILL)


def living() -> dict[int, int]:
    """Every process of this machine that has not ended, with its parent."""
    lines = subprocess.run(
        ["ps", "-A", "-o", "pid=,ppid=,stat="], check=True, capture_output=True, text=True
    ).stdout.splitlines()
    return {int(pid): int(parent) for pid, parent, state in map(str.split, lines) if state[0] != "Z"}


def descendants(ancestor: int) -> set[int]:
    """The processes that one has started, and those that they have: each of a demo's has its own group."""
    parents, found = living(), {ancestor}
    while more := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= more
    return found - {ancestor}


def events_of(answer: str) -> list[str]:
    """The data of a stream that has nothing else in it."""
    lines = [line for line in answer.splitlines() if line]
    assert all(line.startswith("data: ") for line in lines), answer
    return [line.removeprefix("data: ") for line in lines]


def text_of(events: list[str]) -> str:
    choices = [choice for event in events for choice in msgspec.json.decode(event)["choices"]]
    return "".join(choice["delta"].get("content", "") for choice in choices)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_what_the_demo_prints_works_and_ctrl_c_ends_all_of_it(demo: Demo) -> None:
    demo.wait_until_explained()
    assert f"\n  {demo.url}\n" in demo.said
    page = httpx.get(demo.url, timeout=PATIENCE_SECONDS, trust_env=False)
    assert (page.status_code, page.headers["Content-Type"].split(";")[0]) == (200, "text/html")

    done = subprocess.run(
        ["sh", "-c", demo.curl_line()], capture_output=True, text=True, timeout=PATIENCE_SECONDS
    )
    assert done.returncode == 0, done.stderr
    *events, end = events_of(done.stdout)
    assert end == "[DONE]"
    assert text_of(events)

    assert len(demo.started) > 4  # a relay and three volunteers, at least
    assert demo.interrupt() == 0
    wait_until(lambda: not demo.started & living().keys(), "nothing of the demo is left")
    assert demo.said.endswith("Ctrl-C stops everything.\n\nStopping\n")


@pytest.mark.slow
@pytest.mark.parametrize("by", [signal.SIGINT, signal.SIGHUP], ids=["Ctrl-C", "closed terminal"])
def test_a_demo_that_has_just_begun_ends_with_all_that_it_has_started(demo: Demo, by: int) -> None:
    wait_until(lambda: "Starting a relay" in demo.said, "the demo starts")
    wait_until(lambda: len(descendants(demo.process.pid)) > 1, "its processes start")
    demo.started.update(descendants(demo.process.pid))
    assert demo.interrupt(by) == 0
    log = (demo.screen.parent / "demo" / "demo.log").read_text(encoding="utf-8")
    demo.started.update(map(int, re.findall(r"started \(pid=(\d+)\)", log)))
    wait_until(lambda: not demo.started & living().keys(), "nothing of the demo is left")


@pytest.mark.parametrize("wanted", ["", "http", "-1", "0", "65536", "99999", "8000.0", "²"])
def test_what_is_no_port_is_refused_with_the_remedy(wanted: str) -> None:
    with pytest.raises(DemoFailed, match="make demo PORT="):
        choose_port(wanted)


def test_a_port_that_is_taken_is_refused_with_the_remedy() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        with pytest.raises(DemoFailed, match=f"Port {port} is taken.*make demo PORT="):
            choose_port(port)


@pytest.mark.parametrize(
    ("host", "public_url", "joins"),
    [
        (None, None, False),
        ("0.0.0.0", None, False),
        (None, "http://192.0.2.7:8000", False),
        ("0.0.0.0", "http://192.0.2.7:8000", True),
        ("192.0.2.7", None, True),
    ],
)
def test_others_are_told_to_join_only_where_they_can(
    monkeypatch: pytest.MonkeyPatch, host: str | None, public_url: str | None, joins: bool
) -> None:
    for name, value in zip(ELSEWHERE, (host, public_url), strict=True):
        monkeypatch.delenv(name, raising=False)
        if value is not None:
            monkeypatch.setenv(name, value)
    told = how_to_join(demo_environment(8000) | {"COROLLA_TOKEN": "corolla-volunteer.x"})
    assert ("python -m volunteer --token corolla-volunteer.x" in told) is joins
    assert ("start it again" in told) is not joins


def test_all_that_the_demo_keeps_is_in_its_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FILES", "/somewhere/else")
    settings = Settings.from_environment(demo_environment(8000))
    assert Path(settings.files).parent == demo_script.FOLDER
    assert Path(make_url(settings.database_url).database or "").parent == demo_script.FOLDER


@pytest.fixture
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty log of a demo."""
    path = tmp_path / "demo.log"
    path.touch()
    monkeypatch.setattr(demo_script, "FOLDER", tmp_path)
    monkeypatch.setattr(demo_script, "LOG", path)
    return path


@pytest.fixture
def process() -> Iterator[subprocess.Popen[bytes]]:
    """A process that ends when it is asked to, in a group of its own."""
    with subprocess.Popen(["sleep", "1000"], start_new_session=True) as started:
        yield started
        started.kill()


def test_honcho_is_asked_to_end_when_it_has_started_all(
    log: Path, process: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int | None] = []

    def while_it_is_waited_for(_: float) -> None:
        seen.append(process.poll())
        name = "web.1" if len(seen) == 1 else f"volunteer.{len(seen) - 1}"
        with log.open("a") as file:
            file.write(f"12:00:01 system      | {name} started (pid=7)\n")

    monkeypatch.setattr(demo_script.time, "sleep", while_it_is_waited_for)
    demo_script.stop(process)
    assert seen[:4] == [None] * 4
    assert process.poll() == -signal.SIGTERM


def test_what_honcho_leaves_behind_is_ended(
    log: Path, process: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one that is killed itself does: it starts something, says so, and is gone."""
    honcho = log.parent / "honcho"
    honcho.mkdir()
    (honcho / "__init__.py").touch()
    (honcho / "__main__.py").write_text(
        f'print("12:00:01 system      | web.1 started (pid={process.pid})")\n'
        'print("12:00:01 system      | volunteer.1 started (pid=1)")\n'
        'print("12:00:01 system      | volunteer.1 stopped (rc=0)")\n'
    )
    monkeypatch.setattr(demo_script, "ROOT", log.parent)
    with demo_script.procfile(dict(os.environ), 8000) as started:
        started.wait(PATIENCE_SECONDS)
    assert process.wait(PATIENCE_SECONDS) == -signal.SIGKILL


def test_a_second_demo_in_one_folder_is_refused_with_the_remedy(
    log: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with demo_script.alone():
        assert demo_script.main() == 1
    assert log.exists()
    assert f"Another demo is running in {log.parent}" in (said := capsys.readouterr().err)
    assert "make demo DEMO_FOLDER=" in said
    with demo_script.alone():
        pass


def test_the_first_process_that_ended_is_named(log: Path) -> None:
    log.write_text(
        "12:00:01 web.1       | serving\n"
        "12:00:02 system      | volunteer.2 stopped (rc=137)\n"
        "12:00:02 system      | sending SIGTERM to web.1 (pid 7)\n"
        "12:00:03 system      | web.1 stopped (rc=-15)\n"
    )
    assert demo_script.who_ended() == "volunteer.2 has ended (exit code 137)"
    log.write_text("nothing of the kind\n")
    assert demo_script.who_ended() == "A process has ended"
