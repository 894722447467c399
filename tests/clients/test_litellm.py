"""litellm, which many programs reach models through."""

import json
from pathlib import Path

import pytest

from tests.clients.programs import ROOT, python
from tests.conftest import DEMO_MODEL, Swarm

pytestmark = pytest.mark.slow


def test_does_all_of_it_with_the_base_url_changed(swarm: Swarm, tmp_path: Path) -> None:
    environment = {
        "URL": swarm.url,
        "TOKEN": swarm.client_token,
        "MODEL": DEMO_MODEL,
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    }
    printed = python([str(ROOT / "tests/clients/litellm_program.py")], environment, tmp_path)
    said = json.loads(printed.splitlines()[-1])
    assert said["whole"] == said["streamed"] != ""
    assert said["at once"] == [said["whole"]] * 4
    assert said["usage"] == 24
    assert said["vector"] == 256
    assert said["refusal"] == "not found"
