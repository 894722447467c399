"""The command line as people use it: processes of their own, with a real relay, volunteer and model."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.garden import HEAD, MODEL, Garden, garden, make_model, wait_until

pytestmark = pytest.mark.slow

QUESTION = "3 1 4 1 5"
OPTIONS = ("--temperature", "0", "--max-tokens", "12")
NOT_SERVED, UNREACHABLE = 4, 3


@pytest.fixture(scope="module")
def swarm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Garden]:
    """One volunteer with all blocks of a tiny model."""
    with garden(make_model(tmp_path_factory.mktemp("tiny")), {HEAD: "0:12"}) as planted:
        planted.mend()
        yield planted


def corolla(swarm: Garden, *arguments: str, piped: str = "") -> subprocess.CompletedProcess[str]:
    """A command that knows its relay from the token alone."""
    home = str(swarm.relay.folder)
    environment = {**os.environ, "COROLLA_API_KEY": swarm.tokens[0], "HOME": home, "XDG_CONFIG_HOME": ""}
    return subprocess.run(
        [sys.executable, "-m", "corolla", *arguments],
        env=environment,
        input=piped,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_a_chat_says_what_every_client_of_the_api_gets(swarm: Garden) -> None:
    expected = swarm.say(QUESTION, 12)
    streamed = corolla(swarm, "chat", QUESTION, *OPTIONS)
    assert (streamed.returncode, streamed.stdout) == (0, f"{expected}\n")
    assert "cut off" in streamed.stderr
    whole = corolla(swarm, "chat", *OPTIONS, "--no-stream", "--quiet", piped=QUESTION)
    assert (whole.stdout, whole.stderr) == (f"{expected}\n", "")
    answer = json.loads(corolla(swarm, "chat", QUESTION, *OPTIONS, "--json").stdout)
    assert answer["choices"][0]["message"]["content"] == expected
    assert answer["usage"]["completion_tokens"] == 12


def test_a_text_is_continued_in_the_same_way_with_the_same_seed(swarm: Garden) -> None:
    options = ("--model", MODEL, "--seed", "7", "--max-tokens", "12", "--quiet")
    first, second = (corolla(swarm, "complete", QUESTION, *options) for _ in range(2))
    assert first.returncode == 0
    assert len(first.stdout.split()) == 12
    assert second.stdout == first.stdout


def test_the_swarm_is_shown(swarm: Garden) -> None:
    shown = corolla(swarm, "swarm").stdout.splitlines()
    assert shown[1].split()[:3] == [MODEL, "yes", "12"]
    (volunteer,) = (line for line in shown if line.startswith(HEAD))
    assert volunteer.split()[:5] == [HEAD, "serving", MODEL, "0-11", "yes"]


def test_a_batch_goes_from_a_file_to_a_file(swarm: Garden, tmp_path: Path) -> None:
    body = {"model": MODEL, "prompt": QUESTION, "max_tokens": 4, "temperature": 0}
    lines = [
        {"custom_id": str(number), "method": "POST", "url": "/v1/completions", "body": body}
        for number in range(3)
    ]
    requests = "\n".join(json.dumps(line) for line in lines)
    submitted = corolla(swarm, "batch", "submit", "-", "--wait", "--interval", "0.1", piped=requests)
    if "there is nothing at /v1/files" in submitted.stderr:
        pytest.skip("this relay has no batches")
    assert submitted.returncode == 0, submitted.stderr
    assert "completed, 3 of 3" in submitted.stderr
    batch_id, file = submitted.stdout.strip(), tmp_path / "results.jsonl"
    fetched = corolla(swarm, "batch", "results", batch_id, "-o", str(file))
    assert fetched.returncode == 0, fetched.stderr
    answers = [json.loads(line) for line in file.read_text().splitlines()]
    assert sorted(answer["custom_id"] for answer in answers) == ["0", "1", "2"]
    assert len({answer["response"]["body"]["choices"][0]["text"] for answer in answers}) == 1
    assert batch_id in corolla(swarm, "batch", "list").stdout
    assert corolla(swarm, "batch", "cancel", batch_id).returncode in (0, 1)  # it has ended: both are fair
    assert "completed" in corolla(swarm, "batch", "status", batch_id).stdout


def test_exit_codes_tell_what_is_wrong(swarm: Garden) -> None:
    """The last test: it takes the swarm apart."""
    swarm.volunteers[HEAD].process.kill()
    wait_until(lambda: not swarm.model().complete, "the relay has noticed")
    refused = corolla(swarm, "chat", QUESTION, "--model", MODEL)
    assert (refused.returncode, refused.stdout) == (NOT_SERVED, "")
    assert "blocks 0\N{EN DASH}11 have no volunteer" in refused.stderr
    assert "have no volunteer" in corolla(swarm, "models").stdout
    assert corolla(swarm, "chat", QUESTION).returncode == NOT_SERVED
    swarm.relay.process.kill()
    swarm.relay.process.wait(60)
    away = corolla(swarm, "swarm")
    assert (away.returncode, away.stdout) == (UNREACHABLE, "")
    assert f"no answer from {swarm.relay.url}" in away.stderr
