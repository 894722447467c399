"""The harness `lm-eval`: over the swarm it finds what it finds with the model in its own process."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.clients.programs import ROOT, python
from tests.conftest import DEMO_MODEL, Swarm

pytestmark = pytest.mark.slow

FOLDER = ROOT / "corolla" / "demo_model"
TASKS = Path(__file__).with_name("lm_eval_tasks")
BEGINNING = "add_bos_token=True"
"""Before every prompt, as the model was trained: by itself the harness does it for some kinds of models."""
LOGPROB_TOLERANCE = 1e-3
"""Of a whole ending: the harness computes batches with padding, the swarm each prompt by itself."""


def harness(
    arguments: Sequence[str], environment: dict[str, str], folder: Path
) -> tuple[dict[str, Any], dict[str, list[dict[str, Any]]]]:
    """Scores and samples by task, as the harness writes them down."""
    shutil.copytree(TASKS, folder, dirs_exist_ok=True)
    options = ("--include_path", ".", "--output_path", "found", "--log_samples", "--seed", "1234")
    python(["-m", "lm_eval", *arguments, *options], environment, folder)
    (results,) = (folder / "found").rglob("results_*.json")
    samples: dict[str, list[dict[str, Any]]] = {}
    for path in (folder / "found").rglob("samples_*.jsonl"):
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        samples[path.name.split("_")[1]] = sorted(lines, key=lambda line: line["doc_id"])
    return json.loads(results.read_text())["results"], samples


def in_its_process(folder: Path, tasks: str, *more: str) -> tuple[dict[str, Any], dict[str, Any]]:
    model = f"pretrained={FOLDER},dtype=float32,{BEGINNING}"
    return harness(
        ["--model", "hf", "--model_args", model, "--device", "cpu", "--tasks", tasks, *more], {}, folder
    )


def over_the_swarm(
    swarm: Swarm, folder: Path, tasks: str, kind: str, path: str, *more: str
) -> tuple[dict[str, Any], dict[str, Any]]:
    address = f"model={DEMO_MODEL},base_url={swarm.url}/v1/{path},tokenizer={FOLDER}"
    model = f"{address},num_concurrent=2,max_retries=1,{BEGINNING}"
    arguments = ["--model", kind, "--model_args", model, "--tasks", tasks, *more]
    return harness(arguments, {"OPENAI_API_KEY": swarm.client_token}, folder)


def scores(found: dict[str, Any]) -> dict[str, Any]:
    """Without what names the task and how often it was drawn."""
    return {
        task: {name: value for name, value in metrics.items() if "stderr" not in name}
        for task, metrics in found.items()
    }


def answers(samples: list[dict[str, Any]]) -> list[Any]:
    return [sample["filtered_resps"] for sample in samples]


@pytest.fixture(scope="module")
def found(swarm: Swarm, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Scores and samples of completions: here, and over the swarm."""
    folder, tasks = tmp_path_factory.mktemp("completions"), "endings,stories"
    return (
        in_its_process(folder / "here", tasks),
        over_the_swarm(swarm, folder / "swarm", tasks, "local-completions", "completions"),
    )


class TestCompletions:
    def test_get_the_same_scores(self, found: Any) -> None:
        (here, _), (swarm, _) = found
        assert scores(swarm) == scores(here)
        assert here["endings"]["acc,none"] > 0.5

    def test_get_the_same_log_probabilities(self, found: Any) -> None:
        (_, here), (_, swarm) = found
        for mine, theirs in zip(answers(swarm["endings"]), answers(here["endings"]), strict=True):
            for (logprob, is_greedy), (expected, was_greedy) in zip(mine, theirs, strict=True):
                assert float(logprob) == pytest.approx(float(expected), abs=LOGPROB_TOLERANCE)
                assert is_greedy == was_greedy

    def test_get_the_same_texts(self, found: Any) -> None:
        (_, here), (_, swarm) = found
        assert answers(swarm["stories"]) == answers(here["stories"])


def test_chats_get_the_same_scores(swarm: Swarm, tmp_path: Path) -> None:
    here, said_here = in_its_process(tmp_path / "here", "stories", "--apply_chat_template")
    found, said = over_the_swarm(
        swarm,
        tmp_path / "swarm",
        "stories",
        "local-chat-completions",
        "chat/completions",
        "--apply_chat_template",
    )
    assert scores(found) == scores(here)
    assert 0 < here["stories"]["exact_match,none"] < 1
    assert answers(said["stories"]) == answers(said_here["stories"])
