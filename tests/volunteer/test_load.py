"""What others use of this machine: CPU time without volunteers', and a GPU that this one leaves alone."""

import asyncio
import subprocess
import sys
import time
from collections.abc import Iterator
from types import SimpleNamespace

import psutil
import pytest
import torch

from volunteer import load as load_module
from volunteer.load import LoadUnknown, MachineLoad, OthersOnCpu, OthersOnGpu, is_volunteer, watching
from volunteer.pausing import Limits, Load, Pauser

PATIENCE_SECONDS = 30


class Machine:
    """A machine of four cores whose processes use what a test says."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.busy, self.idle = 0.0, 0.0
        self.ours = {1: 0.0}
        """CPU seconds of the volunteers, by process id: 1 is this one."""
        self.others = {9}
        monkeypatch.setattr(psutil, "cpu_times", self._cpu_times)
        monkeypatch.setattr(psutil, "pids", lambda: [*self.ours, *self.others])
        monkeypatch.setattr(psutil, "Process", self._process)

    def pass_seconds(self, seconds: float, others: float, ours: dict[int, float] | None = None) -> None:
        """Time passes: others compute for so many seconds, volunteers for as many as `ours` says."""
        for pid, own in (ours or {}).items():
            self.ours[pid] = self.ours.get(pid, 0.0) + own
        busy = others + sum((ours or {}).values())
        self.busy += busy
        self.idle += 4 * seconds - busy

    def _cpu_times(self) -> "_Times":
        return _Times(user=self.busy, idle=self.idle, guest=self.busy, iowait=0.0)

    def _process(self, pid: int = 1) -> SimpleNamespace:
        if pid not in self.ours and pid not in self.others:
            raise psutil.NoSuchProcess(pid)
        command = ["python", "-u", "-m", "volunteer"] if pid in self.ours else ["game", "-m", "hard"]
        times = SimpleNamespace(user=self.ours.get(pid, 5.0), system=0.0)
        return SimpleNamespace(pid=pid, cmdline=lambda: command, cpu_times=lambda: times)


class _Times(SimpleNamespace):
    def _asdict(self) -> dict[str, float]:
        return vars(self)


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    return Machine(monkeypatch)


class TestOthersOnTheCpu:
    def test_are_all_but_this_volunteer(self, machine: Machine) -> None:
        cpu = OthersOnCpu()
        machine.pass_seconds(10, others=10, ours={1: 20})
        assert cpu.read() == pytest.approx(25)
        machine.pass_seconds(10, others=0, ours={1: 40})
        assert cpu.read() == pytest.approx(0)

    def test_are_not_the_volunteers_beside_it(self, machine: Machine) -> None:
        cpu = OthersOnCpu()
        machine.pass_seconds(10, others=4, ours={1: 4, 2: 16})
        assert cpu.read() == pytest.approx(10)
        machine.pass_seconds(10, others=4, ours={2: 16})
        assert cpu.read() == pytest.approx(10)

    def test_may_end_between_two_samples(self, machine: Machine) -> None:
        machine.ours[2] = 100.0
        cpu = OthersOnCpu()
        del machine.ours[2]
        machine.others.clear()
        machine.pass_seconds(10, others=8)
        assert cpu.read() == pytest.approx(20)

    def test_are_nobody_while_no_time_has_passed(self, machine: Machine) -> None:
        assert OthersOnCpu().read() == 0.0

    def test_are_read_on_this_very_machine(self) -> None:
        cpu = OthersOnCpu()
        assert 0 <= cpu.read() <= 100


@pytest.fixture
def busy_process() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as child:
        yield child
        child.kill()


def test_a_program_that_computes_is_seen(busy_process: subprocess.Popen[bytes]) -> None:
    cpu, deadline = OthersOnCpu(), time.monotonic() + PATIENCE_SECONDS
    child = psutil.Process(busy_process.pid)
    while child.cpu_times().user < 0.5 and time.monotonic() < deadline:
        child.is_running()
    assert cpu.read() > 0


def test_a_process_that_is_not_there_is_no_volunteer(busy_process: subprocess.Popen[bytes]) -> None:
    assert not is_volunteer(busy_process.pid)
    busy_process.kill()
    busy_process.wait()
    assert not is_volunteer(busy_process.pid)


def test_a_system_that_does_not_tell_its_load_is_named_with_the_remedy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def hidden() -> None:
        raise PermissionError("/proc/stat")

    monkeypatch.setattr(psutil, "cpu_times", hidden)
    with pytest.raises(LoadUnknown, match=r"leave --pause-when-busy out.*SIGUSR1"):
        MachineLoad("cpu", lambda: 0.0)


class TestOthersOnTheGpu:
    def test_are_looked_at_while_this_volunteer_leaves_it_alone(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        shown, worked = [10], [0.0]
        monkeypatch.setattr(torch.cuda, "utilization", lambda device: shown[0])
        gpu = OthersOnGpu("cuda:1", lambda: worked[0])
        assert gpu.read() == 10
        shown[0], worked[0] = 99, 1.0  # its own work
        assert gpu.read() == 10
        shown[0] = 70
        assert gpu.read() == 70

    def test_cannot_always_be_told(
        self, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        def missing(device: str) -> int:
            raise ModuleNotFoundError("no pynvml")

        monkeypatch.setattr(torch.cuda, "utilization", missing)
        gpu = OthersOnGpu("cuda:0", lambda: 0.0)
        assert (gpu.read(), gpu.read()) == (0.0, 0.0)
        assert caplog.text.count("install nvidia-ml-py") == 1

    def test_are_not_asked_for_where_there_is_none(self, machine: Machine) -> None:
        assert MachineLoad("cpu", lambda: 0.0).read() == Load(0.0, 0.0)


class TestWatching:
    async def test_gives_samples_until_it_is_left(self, machine: Machine) -> None:
        load, reasons = MachineLoad("cpu", lambda: 0.0), asyncio.Queue[str | None]()
        machine.pass_seconds(10, others=40)
        pauser = Pauser(reasons.put_nowait, Limits(30, busy_seconds=0, quiet_seconds=0))
        async with asyncio.timeout(PATIENCE_SECONDS), watching(load, pauser, seconds=0):
            assert await reasons.get() == "other programs use 100 % of the CPU"
            assert await reasons.get() is None
        assert len(asyncio.all_tasks()) == 1

    async def test_goes_on_after_a_sample_that_could_not_be_read(
        self, machine: Machine, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        load, failures = MachineLoad("cpu", lambda: 0.0), [OSError("away")]
        read = load_module.OthersOnCpu.read

        def failing_once(cpu: OthersOnCpu) -> float:
            if failures:
                raise failures.pop()
            return read(cpu)

        monkeypatch.setattr(OthersOnCpu, "read", failing_once)
        machine.pass_seconds(10, others=40)
        reasons = asyncio.Queue[str | None]()
        pauser = Pauser(reasons.put_nowait, Limits(30, busy_seconds=0, quiet_seconds=0))
        async with asyncio.timeout(PATIENCE_SECONDS), watching(load, pauser, seconds=0):
            assert await reasons.get() == "other programs use 100 % of the CPU"
        assert "could not be read: away" in caplog.text
