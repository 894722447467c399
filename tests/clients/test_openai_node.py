"""The `openai` package for Node, as npm has it."""

import json
import shutil
from pathlib import Path

import pytest

from tests.clients.programs import ROOT, run
from tests.conftest import DEMO_MODEL, Swarm

pytestmark = pytest.mark.slow


def test_does_all_of_it_with_the_base_url_changed(swarm: Swarm, tmp_path: Path) -> None:
    node = shutil.which("node")
    if node is None:
        pytest.fail("node is missing: install Node.js 20 or newer")
    if not (ROOT / "node_modules" / "openai").is_dir():
        pytest.fail("the openai package for Node is missing: run npm ci")
    environment = {
        "OPENAI_BASE_URL": f"{swarm.url}/v1",
        "OPENAI_API_KEY": swarm.client_token,
        "MODEL": DEMO_MODEL,
    }
    said = json.loads(run([node, str(ROOT / "tests/clients/openai_node.mjs")], environment, tmp_path))
    assert said["whole"] == said["streamed"] != ""
    assert said["tokens"] == said["usage"]["completion_tokens"] == 24
    assert 1 <= said["json"]["legs"] <= 9
    assert said["vectors"] == [256, 256]
    assert said["listed"] == [DEMO_MODEL]
    assert said["refusal"] == {"isNotFound": True, "code": "not_found"}
