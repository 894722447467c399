"""docs/examples.md: what people copy runs as it stands, against a real relay and real volunteers."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import DEMO_MODEL, Swarm

pytestmark = pytest.mark.slow

PAGE = (Path(__file__).parent.parent / "docs/examples.md").read_text(encoding="utf-8")
BLOCKS: list[tuple[str, str]] = re.findall(r"^```(\w+)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
COMMANDS = {
    "bash": ["bash", "-euo", "pipefail", "-c"],
    "python": [sys.executable, "-W", "error", "-c"],
    "js": ["node", "--input-type=module", "-e"],
}
SECONDS = 60.0


def test_every_block_is_of_a_language_that_is_run() -> None:
    assert {language for language, _ in BLOCKS} == COMMANDS.keys()
    assert PAGE.count("```") == 2 * len(BLOCKS)


@pytest.mark.parametrize(("language", "code"), BLOCKS, ids=[f"{n}-{one[0]}" for n, one in enumerate(BLOCKS)])
def test_an_example_runs(language: str, code: str, swarm: Swarm, tmp_path: Path) -> None:
    command = COMMANDS[language]
    if shutil.which(command[0]) is None:
        pytest.skip(f"{command[0]} is not here")
    environment = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    environment |= {
        "COROLLA_URL": swarm.url,
        "COROLLA_API_KEY": swarm.client_token,
        "COROLLA_MODEL": DEMO_MODEL,
    }
    done = subprocess.run(
        [*command, code], env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=SECONDS
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.strip(), "it prints something"
    assert '"error"' not in done.stdout
    assert done.stderr == ""
