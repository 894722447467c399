"""Simon Willison's `llm`, a command line for models."""

import json
from pathlib import Path

import pytest

from tests.clients.programs import python
from tests.conftest import DEMO_MODEL, Swarm

pytestmark = pytest.mark.slow

QUESTION = "Tell me a short story about a fox."
OPTIONS = ("-o", "temperature", "0", "-o", "max_tokens", "24")


@pytest.fixture
def home(swarm: Swarm, tmp_path: Path) -> dict[str, str]:
    """The settings of somebody who has followed llm's own instructions for such servers."""
    models = (
        f"- model_id: swarm\n  model_name: {DEMO_MODEL}\n  api_base: {swarm.url}/v1\n  api_key_name: swarm\n"
    )
    (tmp_path / "extra-openai-models.yaml").write_text(models)
    (tmp_path / "keys.json").write_text(json.dumps({"swarm": swarm.client_token}))
    return {"LLM_USER_PATH": str(tmp_path)}


def test_prints_the_same_reply_streamed_and_whole(home: dict[str, str], tmp_path: Path) -> None:
    streamed = python(["-m", "llm", "-m", "swarm", *OPTIONS, QUESTION], home, tmp_path)
    whole = python(["-m", "llm", "-m", "swarm", "--no-stream", *OPTIONS, QUESTION], home, tmp_path)
    assert streamed == whole
    assert len(streamed.split()) > 5


def test_goes_on_with_a_conversation(home: dict[str, str], tmp_path: Path) -> None:
    python(["-m", "llm", "-m", "swarm", *OPTIONS, QUESTION], home, tmp_path)
    again = python(["-m", "llm", "-c", *OPTIONS, "Tell me more."], home, tmp_path)
    assert again.strip()


def test_has_a_reply_follow_a_schema(home: dict[str, str], tmp_path: Path) -> None:
    schema = {"type": "object", "properties": {"legs": {"type": "integer", "minimum": 1, "maximum": 9}}}
    schema |= {"required": ["legs"], "additionalProperties": False}
    (tmp_path / "extra-openai-models.yaml").write_text(
        (tmp_path / "extra-openai-models.yaml").read_text() + "  supports_schema: true\n"
    )
    said = python(["-m", "llm", "-m", "swarm", "--schema", json.dumps(schema), QUESTION], home, tmp_path)
    assert 1 <= json.loads(said)["legs"] <= 9
