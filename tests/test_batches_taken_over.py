"""A replica dies while it works on a batch: the other one answers the rest, and every line is there once."""

import json
import signal
import time
from collections.abc import Iterator

import httpx
import openai
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.conftest import DEMO_MODEL
from tests.replicated import Replicated, replicated, shared

pytestmark = [pytest.mark.slow, pytest.mark.postgres]
LINES = 160
TOKENS = 24
SECONDS = 120.0
"""Until a replica that waits for something gives up."""


@pytest.fixture(scope="module")
def relay() -> Iterator[Replicated]:
    """Two replicas; whoever writes replies is connected to the second one."""
    with shared() as between, replicated(between, DEMO_MODEL) as running:
        running.plant("anemone", 1, "--blocks", "0:12")
        running.wait_until_serving()
        yield running


def content() -> bytes:
    body = {"model": DEMO_MODEL, "prompt": "The garden", "max_tokens": TOKENS}
    fields = {"method": "POST", "url": "/v1/completions", "body": body}
    lines = [json.dumps({"custom_id": f"line {number}", **fields}) for number in range(LINES)]
    return "\n".join(lines).encode()


def answered(url: str) -> float:
    """Lines that a replica has answered and recorded."""
    text = httpx.get(f"{url}/metrics").text
    return sum(
        sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name.endswith("batch_lines_total") and sample.labels["outcome"] == "answered"
    )


def test_every_line_is_answered_once_though_a_replica_dies(relay: Replicated) -> None:
    deadline = time.monotonic() + SECONDS
    with openai.OpenAI(base_url=f"{relay.urls[1]}/v1", api_key=relay.token("tests"), max_retries=0) as api:
        file = api.files.create(file=("lines.jsonl", content()), purpose="batch")
        batch = api.batches.create(input_file_id=file.id, endpoint="/v1/completions", completion_window="24h")
        while not answered(relay.urls[0]):
            assert time.monotonic() < deadline, relay.last_words()
            time.sleep(0.02)
        relay.stop(0, signal.SIGKILL)
        assert api.batches.retrieve(batch.id).status == "in_progress"
        while batch.status != "completed":
            assert time.monotonic() < deadline, relay.last_words()
            time.sleep(0.1)
            batch = api.batches.retrieve(batch.id)
        assert batch.request_counts
        assert batch.request_counts.to_dict() == {"total": LINES, "completed": LINES, "failed": 0}
        output = [
            json.loads(line) for line in api.files.content(batch.output_file_id or "").text.splitlines()
        ]
        found = [line["custom_id"] for line in output]
        took = [line["response"]["body"]["usage"]["total_tokens"] for line in output]
        assert batch.usage
        assert batch.usage.total_tokens == sum(took) > 0, "what was computed twice counts once"
    assert found == [f"line {number}" for number in range(LINES)], "each once, in the order of the input"
    assert answered(relay.urls[1]) < LINES, "what the other had recorded was not done again"
