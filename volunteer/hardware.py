"""The machine: which device to use, what it is called, how much of its memory is free.

Asks the machine and is thin. Knows nothing of the relay or of sessions, loads no model, does not decide
what fits (`fitting`), and does not measure (`measuring`). The dtype for a device and a checkpoint is
`corolla.models`' to say.
"""

import os
import platform
import re
from pathlib import Path

import torch

from schema.errors import CorollaError, InvalidRequest

_MEMORY = re.compile(r"(\d+(?:\.\d+)?)\s*(?:([kmgt])(i?))?b?", re.IGNORECASE | re.ASCII)
_POWERS = {"k": 1, "m": 2, "g": 3, "t": 4}


class DeviceUnavailable(CorollaError):
    """A device that this machine, or this build of torch, does not have."""

    code = "device_unavailable"


# ---- which device ---------------------------------------------------------------------------


def choose_device(wanted: str = "auto") -> str:
    """The device that `--device` names, as torch writes it: `cpu`, `cuda:N` or `mps`.

    `auto` takes the first GPU, then Apple's, then the CPU. Raises DeviceUnavailable.
    """
    has_gpu_build = torch.version.cuda is not None or torch.version.hip is not None
    return pick_device(wanted, torch.cuda.device_count(), torch.backends.mps.is_available(), has_gpu_build)


def pick_device(wanted: str, gpus: int, has_mps: bool, has_gpu_build: bool = True) -> str:
    """As `choose_device`, for a machine with `gpus` CUDA devices, with or without MPS, and for a torch that
    was built for CUDA (or ROCm, which goes by the same name) or not."""
    available = [*(f"cuda:{index}" for index in range(gpus)), *(["mps"] if has_mps else []), "cpu"]
    if wanted == "auto":
        return available[0]
    device = "cuda:0" if wanted == "cuda" else wanted
    if device not in available:
        raise DeviceUnavailable(
            f"there is no device {wanted!r} here; there are: {', '.join(available)}. "
            + _remedy(device, gpus, has_gpu_build)
        )
    return device


def _remedy(device: str, gpus: int, has_gpu_build: bool) -> str:
    """What to do about a device that is not there."""
    if device == "mps":
        return "mps needs a Mac with Apple silicon, and a torch that is built for it"
    if not re.fullmatch(r"cuda:\d+", device):
        return "Write auto, cpu, cuda, cuda:N or mps"
    if not has_gpu_build:
        return "This torch is built without CUDA: install a build with it, as pytorch.org says"
    if not gpus:
        return "torch sees no GPU: nvidia-smi should list one, and CUDA_VISIBLE_DEVICES should not hide it"
    return "GPUs are counted from 0, and CUDA_VISIBLE_DEVICES may hide some"


def device_name(device: str) -> str:
    """What people call it, for the swarm's map."""
    kind = torch.device(device).type
    if kind == "cuda":
        return torch.cuda.get_device_name(device)
    cores = f"{os.cpu_count() or 1} cores"
    name = _cpu_name()
    return f"{name} GPU" if kind == "mps" else f"{name}, {cores}"


def _cpu_name() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text(errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine() or "CPU"


# ---- how much memory ------------------------------------------------------------------------


def free_memory(device: str) -> int:
    """Bytes that can be allocated on the device now, by this process."""
    kind = torch.device(device).type
    if kind == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return free
    if kind == "mps":
        return max(0, torch.mps.recommended_max_memory() - torch.mps.current_allocated_memory())
    return min(_free_ram(), free_in_cgroup())


def _free_ram() -> int:
    meminfo = Path("/proc/meminfo")
    if meminfo.is_file():
        for line in meminfo.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    # Without a figure for what is available: half of what is built in.
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2


def free_in_cgroup(folder: Path = Path("/sys/fs/cgroup")) -> int:
    """What a container's limit leaves (cgroup v2); its page cache can be reclaimed and counts as free."""
    try:
        limit = int((folder / "memory.max").read_text())
        used = int((folder / "memory.current").read_text())
        stat = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
        return max(0, limit - used + int(stat.get("inactive_file", 0)))
    except (OSError, ValueError):  # no cgroup, another version, or "max": no limit
        return 2**63 - 1


def release_unused(device: str) -> None:
    """Gives the device's memory that torch has kept for itself back to others, as after loading."""
    if device.startswith("cuda"):
        torch.cuda.empty_cache()


def parse_memory(text: str) -> int:
    """Bytes in `8GB`, `7.5 GiB`, `500M` or `1000000`: decimal units, binary ones with an i.

    Raises InvalidRequest.
    """
    match = _MEMORY.fullmatch(text.strip())
    if match is None:
        raise InvalidRequest(f"{text!r} is not an amount of memory: write 8GB or 7.5GiB", param="memory")
    number, unit, binary = match.groups()
    base = 1024 if binary else 1000
    size = int(float(number) * base ** _POWERS.get((unit or "").lower(), 0))
    if size == 0:
        raise InvalidRequest("an amount of memory is more than 0: write 8GB or 7.5GiB", param="memory")
    return size
