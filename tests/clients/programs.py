"""Runs clients that nobody here has written, as the programs that people start."""

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PATIENCE_SECONDS = 300.0


def python(arguments: Sequence[str], environment: Mapping[str, str], folder: Path) -> str:
    """What a Python program has printed; fails with all that it said when it fails. Without the internet."""
    return run([sys.executable, *arguments], environment, folder)


def run(command: Sequence[str], environment: Mapping[str, str], folder: Path) -> str:
    """As `python`, of any program, in a folder of its own."""
    offline = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "NO_PROXY": "*"}
    done = subprocess.run(
        command,
        cwd=folder,
        env=os.environ | offline | dict(environment),
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
        check=False,
    )
    if done.returncode:
        raise AssertionError(f"{command[0]} failed with {done.returncode}:\n{done.stdout}\n{done.stderr}")
    return done.stdout
