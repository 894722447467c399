"""Devices by name, and bytes by unit."""

from pathlib import Path

import pytest

from schema.errors import InvalidRequest
from volunteer import hardware
from volunteer.hardware import (
    DeviceUnavailable,
    choose_device,
    device_name,
    free_memory,
    parse_memory,
    pick_device,
)

GIB = 2**30


@pytest.mark.parametrize(
    ("wanted", "gpus", "has_mps", "device"),
    [
        ("auto", 0, False, "cpu"),
        ("auto", 2, False, "cuda:0"),
        ("auto", 0, True, "mps"),
        ("auto", 1, True, "cuda:0"),
        ("cuda", 1, False, "cuda:0"),
        ("cuda:1", 2, False, "cuda:1"),
        ("cpu", 4, True, "cpu"),
        ("mps", 0, True, "mps"),
    ],
)
def test_a_device_is_picked_by_name(wanted: str, gpus: int, has_mps: bool, device: str) -> None:
    assert pick_device(wanted, gpus, has_mps) == device


@pytest.mark.parametrize("wanted", ["cuda", "cuda:1", "cuda:-1", "mps", "tpu", "", "CPU"])
def test_a_device_that_is_not_there_is_refused_with_those_that_are(wanted: str) -> None:
    gpus = 1 if wanted == "cuda:1" else 0
    with pytest.raises(DeviceUnavailable, match=r"there are: .*cpu"):
        pick_device(wanted, gpus, has_mps=False)


@pytest.mark.parametrize(
    ("wanted", "gpus", "has_gpu_build", "remedy"),
    [
        ("cuda", 0, False, "built without CUDA: install"),
        ("cuda:0", 0, True, "nvidia-smi"),
        ("cuda:2", 2, True, "counted from 0"),
        ("mps", 0, False, "Apple silicon"),
        ("gpu", 1, True, "Write auto, cpu, cuda, cuda:N or mps"),
        ("cuda:one", 1, True, "Write auto, cpu, cuda, cuda:N or mps"),
    ],
)
def test_a_device_that_is_not_there_is_refused_with_the_remedy(
    wanted: str, gpus: int, has_gpu_build: bool, remedy: str
) -> None:
    with pytest.raises(DeviceUnavailable, match=remedy):
        pick_device(wanted, gpus, has_mps=False, has_gpu_build=has_gpu_build)


def test_this_machine_has_a_device_with_a_name_and_free_memory() -> None:
    device = choose_device()
    assert device_name(device)
    assert free_memory(device) > 0


def test_free_memory_of_the_cpu_is_not_more_than_is_built_in() -> None:
    meminfo = Path("/proc/meminfo")
    if not meminfo.is_file():
        pytest.skip("this system does not tell its memory in /proc")
    total = int(meminfo.read_text().split()[1]) * 1024
    assert 0 < free_memory("cpu") <= total


def test_a_container_s_limit_counts_and_its_page_cache_does_not(tmp_path: Path) -> None:
    (tmp_path / "memory.max").write_text("1000\n")
    (tmp_path / "memory.current").write_text("700\n")
    (tmp_path / "memory.stat").write_text("anon 500\ninactive_file 200\n")
    assert hardware.free_in_cgroup(tmp_path) == 500


def test_a_container_without_a_limit_limits_nothing(tmp_path: Path) -> None:
    (tmp_path / "memory.max").write_text("max\n")
    assert hardware.free_in_cgroup(tmp_path) > 2**60


def test_no_container_limits_nothing(tmp_path: Path) -> None:
    assert hardware.free_in_cgroup(tmp_path / "absent") > 2**60


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("8GB", 8_000_000_000),
        ("8gb", 8_000_000_000),
        ("8 GiB", 8 * GIB),
        ("7.5GiB", 7.5 * GIB),
        ("500M", 500_000_000),
        ("512MiB", 512 * 2**20),
        ("1T", 10**12),
        ("64kb", 64_000),
        ("123456", 123_456),
        ("100B", 100),
    ],
)
def test_amounts_of_memory_are_understood(text: str, size: float) -> None:
    assert parse_memory(text) == size


@pytest.mark.parametrize(
    "text", ["", "GB", "-8GB", "8XB", "8 G B", "eight", "0", "0GB", "1e9", "8GBs", "٨GB"]
)
def test_other_amounts_are_refused_with_an_example(text: str) -> None:
    with pytest.raises(InvalidRequest, match="8GB"):
        parse_memory(text)
