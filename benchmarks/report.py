"""What every benchmark's last line says: machine, versions, figures with their spread, bars.

Does not know what is measured.
"""

import os
import platform
import statistics
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

import orjson

PACKAGES = ("uvicorn", "uvloop", "websockets", "starlette", "torch", "transformers")


@dataclass(frozen=True, slots=True)
class Bar:
    """A figure that shall be reached, and what was measured."""

    name: str
    value: float
    op: Literal[">=", "<="]
    bar: float


@dataclass(frozen=True, slots=True)
class Spread:
    """Several measurements of one thing."""

    median: float
    low: float
    high: float
    runs: int

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        return cls(statistics.median(values), min(values), max(values), len(values))


@dataclass(slots=True)
class Report:
    """Collects a benchmark's figures; `print_last_line` ends it."""

    benchmark: str
    full: bool
    figures: dict[str, Any] = field(default_factory=lambda: dict[str, Any]())
    bars: list[Bar] = field(default_factory=lambda: list[Bar]())

    def print_last_line(self) -> None:
        """Print everything as one JSON object, the run's last line."""
        body = {
            "benchmark": self.benchmark,
            "full": self.full,
            "at": datetime.now(UTC).isoformat(timespec="seconds"),
            "machine": machine(),
            "versions": versions(),
            "figures": self.figures,
            "bars": [asdict(bar) for bar in self.bars],
        }
        sys.stdout.flush()
        print(orjson.dumps(body, default=asdict).decode(), flush=True)


def machine() -> dict[str, Any]:
    return {"processor": _processor(), "cores": os.cpu_count(), "system": platform.platform()}


def versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
