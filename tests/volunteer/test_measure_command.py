"""`python -m volunteer --measure`: what a person reads before connecting a machine."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.corolla.tiny_text import TinyLlama

FIGURE = r"\d+ blocks/s \(\d+ to \d+"


def measure(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [
        sys.executable,
        "-m",
        "volunteer",
        "--measure",
        "--threads",
        "1",
        "--device",
        "cpu",
        *arguments,
    ]
    environment = {**os.environ, "COROLLA_CACHE": str(folder)}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def test_prints_the_table_and_keeps_it(llama: TinyLlama, tmp_path: Path) -> None:
    model = ("--model", f"tiny={llama.folder}", "--blocks", "1:3")
    first = measure(tmp_path, *model)
    assert first.returncode == 0, first.stderr
    assert first.stdout.startswith("tiny, blocks 1:3, on ")
    assert re.search(rf"^  now: {FIGURE}\)$", first.stdout, re.MULTILINE)
    assert re.search(
        rf"^  decode, 1 at once after 0 tokens: {FIGURE}, \d+ runs\)$", first.stdout, re.MULTILINE
    )
    assert "earlier" not in first.stdout
    assert len(list(tmp_path.rglob("*.json"))) == 1
    second = measure(tmp_path, *model)
    earlier = re.search(rf"^  earlier: ({FIGURE}\))$", second.stdout, re.MULTILINE)
    assert earlier is not None
    assert f"  now: {earlier.group(1)}" in first.stdout
    assert re.search(rf"^  now: {FIGURE}\)$", second.stdout, re.MULTILINE)


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [(["--model", "tiny=/no/such/folder"], "volunteer: "), (["--memory", "1kB"], "no block of corolla-demo")],
)
def test_what_cannot_be_measured_is_told(tmp_path: Path, arguments: list[str], reason: str) -> None:
    ended = measure(tmp_path, *arguments)
    assert ended.returncode == 1
    assert reason in ended.stderr
    assert "Traceback" not in ended.stderr
