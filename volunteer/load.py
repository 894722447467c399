"""How much of this machine other programs use: read from the system, now and then.

A volunteer's own work is no reason to pause, nor is that of other volunteers on this machine (one for each
GPU, say): their share of the CPU is taken off. A GPU tells only how busy it is in all, so it is asked only
when this volunteer has left it alone. Does not decide anything (volunteer/pausing.py).
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from itertools import pairwise
from time import monotonic

import psutil
import torch

from schema.errors import CorollaError
from volunteer.pausing import Load, Pauser

SAMPLE_SECONDS = 2.0
WAITING = frozenset({"idle", "iowait", "steal", "guest", "guest_nice"})
"""Fields of the CPU's time in which nobody here computes, or that others include."""

log = logging.getLogger(__name__)
OwnWork = Callable[[], float]
"""Seconds of work that this volunteer has done on its device; any thread may ask."""


class LoadUnknown(CorollaError):
    """A system that does not tell how busy it is."""

    code = "load_unknown"


class MachineLoad:
    """Samples of the load; each is about the time since the one before. Used by one thread at a time."""

    def __init__(self, device: str, own_work: OwnWork) -> None:
        """Raises LoadUnknown where there is nothing to read."""
        try:
            self._cpu = OthersOnCpu()
        except (psutil.Error, OSError, NotImplementedError) as error:
            raise LoadUnknown(
                f"how busy this machine is cannot be read here ({error}): leave --pause-when-busy out, "
                "and pause by hand with the signals SIGUSR1 and SIGUSR2"
            ) from error
        self._gpu = OthersOnGpu(device, own_work) if torch.device(device).type == "cuda" else None

    def read(self) -> Load:
        """Takes some milliseconds."""
        return Load(self._cpu.read(), 0.0 if self._gpu is None else self._gpu.read())


class OthersOnCpu:
    """The CPU time of all programs but volunteers, in percent of all cores."""

    def __init__(self) -> None:
        self._volunteers: dict[int, bool] = {}
        """For each process id that was seen, whether it is a volunteer."""
        self._total, self._busy = _cpu_seconds()
        self._own = self._own_seconds()

    def read(self) -> float:
        total, busy = _cpu_seconds()
        own = self._own_seconds()
        passed, used = total - self._total, busy - self._busy
        ours = sum(seconds - self._own.get(pid, 0.0) for pid, seconds in own.items())
        self._total, self._busy, self._own = total, busy, own
        return 0.0 if passed <= 0 else 100 * min(1.0, max(0.0, used - ours) / passed)

    def _own_seconds(self) -> dict[int, float]:
        """CPU seconds of this process and of the other volunteers here, by process id."""
        seen = self._volunteers
        self._volunteers = {pid: seen[pid] if pid in seen else is_volunteer(pid) for pid in psutil.pids()}
        self._volunteers[psutil.Process().pid] = True
        seconds = {pid: _seconds_of(pid) for pid, ours in self._volunteers.items() if ours}
        return {pid: value for pid, value in seconds.items() if value is not None}


class OthersOnGpu:
    """How busy a GPU is while this volunteer does nothing on it; until then, how busy it was."""

    def __init__(self, device: str, own_work: OwnWork) -> None:
        self._device = device
        self._own_work = own_work
        self._worked = own_work()
        self._latest = 0.0
        self._is_readable = True

    def read(self) -> float:
        worked = self._own_work()
        if worked == self._worked and self._is_readable:
            self._latest = self._ask()
        self._worked = worked
        return self._latest

    def _ask(self) -> float:
        try:
            return float(torch.cuda.utilization(self._device))
        except Exception as error:  # noqa: BLE001 - its library's errors are known only where it is installed
            self._is_readable = False
            log.warning(
                "the GPU's load cannot be read here (%s): only the CPU's counts. "
                "For NVIDIA GPUs, install nvidia-ml-py",
                error,
            )
            return 0.0


def is_volunteer(pid: int) -> bool:
    """Whether a process was started as `python -m volunteer`."""
    try:
        return ("-m", "volunteer") in pairwise(psutil.Process(pid).cmdline())
    except (psutil.Error, OSError):  # it has ended, or is not for us to see
        return False


def _seconds_of(pid: int) -> float | None:
    """CPU seconds of a process so far; None when it has ended."""
    try:
        times = psutil.Process(pid).cpu_times()
    except (psutil.Error, OSError):
        return None
    return times.user + times.system


def _cpu_seconds() -> tuple[float, float]:
    """Seconds of all cores since the system started: in all, and those in which somebody computed."""
    times = psutil.cpu_times()._asdict()
    busy = sum(seconds for name, seconds in times.items() if name not in WAITING)
    # `user` holds the guests' time already.
    return busy + sum(times.get(name, 0.0) for name in ("idle", "iowait", "steal")), busy


@asynccontextmanager
async def watching(
    load: MachineLoad, pauser: Pauser, seconds: float = SAMPLE_SECONDS
) -> AsyncGenerator[None]:
    """Give the pauser a sample every so many seconds, until the block is left."""
    task = asyncio.create_task(_watch(load, pauser, seconds))
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def _watch(load: MachineLoad, pauser: Pauser, seconds: float) -> None:
    while True:
        await asyncio.sleep(seconds)
        try:
            sample = await asyncio.to_thread(load.read)
        except (psutil.Error, OSError) as error:
            log.warning("how busy this machine is could not be read: %s", error)
        else:
            pauser.observe(sample, monotonic())
