"""benchmarks/forking.py: a fork is a volunteer as any other, and whoever started it learns how it ends."""

import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import pytest

from benchmarks.forking import Born, ForkedProcess, Order, end_server, fork_volunteer
from volunteer.load import is_volunteer

PATIENCE_SECONDS = 60.0
NOWHERE = {"PATH": "", "OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    path = tmp_path_factory.mktemp("forks") / "socket"
    yield path
    end_server(path)


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "volunteer.log"


def waiting(server: Path, log: Path) -> ForkedProcess:
    """A volunteer that tries again and again to reach a relay that is not there."""
    token = "corolla-volunteer.a1b2c3d4e5f6.secret.aHR0cDovLzEyNy4wLjAuMTo5"
    return fork_volunteer(server, ["--token", token, "--model", "none=/nowhere"], NOWHERE, log)


def test_says_what_it_has_to_say_in_its_log_and_how_it_ends(server: Path, log: Path) -> None:
    one = fork_volunteer(server, ["--no-such-option"], NOWHERE, log)
    assert one.wait(PATIENCE_SECONDS) == 2
    assert one.poll() == 2
    assert "--no-such-option" in log.read_text()


def test_has_the_environment_that_it_is_given(server: Path, log: Path) -> None:
    assert fork_volunteer(server, [], NOWHERE, log).wait(PATIENCE_SECONDS) != 0
    without = log.read_text()
    log.unlink()
    token = {"COROLLA_TOKEN": "not a token"}
    assert fork_volunteer(server, [], NOWHERE | token, log).wait(PATIENCE_SECONDS) != 0
    assert log.read_text() != without


def test_one_that_ended_a_moment_ago_can_be_killed_before_its_server_says_so(tmp_path: Path) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "socket"))
        server.listen()
        with ThreadPoolExecutor(1) as pool:
            one = pool.submit(ForkedProcess, tmp_path / "socket", Order([], {}, "", ""))
            asker, _ = server.accept()
            asker.sendall(msgspec.json.encode(Born(ended.pid)))
            with asker:
                one.result().kill()
                asker.sendall(b"0")
                assert one.result().wait(PATIENCE_SECONDS) == 0


def test_is_seen_as_a_volunteer_and_can_be_waited_for_and_killed(server: Path, log: Path) -> None:
    one, other = waiting(server, log), waiting(server, log)
    assert one.pid != other.pid
    assert is_volunteer(one.pid)
    assert one.poll() is None
    with pytest.raises(subprocess.TimeoutExpired):
        one.wait(0.01)
    one.kill()
    assert one.wait(PATIENCE_SECONDS) == -signal.SIGKILL
    one.kill()  # there is nobody to be hurt any more
    assert other.poll() is None
    other.kill()
    assert other.wait(PATIENCE_SECONDS) == -signal.SIGKILL
