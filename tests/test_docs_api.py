"""docs/api.md names every field that is accepted, every limit, header and setting of the API."""

import re
from pathlib import Path
from typing import Any

import msgspec
import pytest

from relay.http import QUEUE_POSITION, QUEUE_SECONDS
from relay.settings import SETTINGS
from schema.api.chat import ChatCompletionRequest
from schema.api.common import MOST_REPLIES
from schema.api.completions import CompletionRequest
from schema.api.embeddings import MOST_INPUTS, EmbeddingRequest
from schema.api.responses import ResponsesRequest
from schema.errors import Overloaded, TooManyRequests
from schema.limits import MAX_BIASES, MAX_STOP_CHARS, MAX_STOP_STRINGS, MAX_STOP_TOKEN_IDS, MAX_TOOLS

PAGE = (Path(__file__).parent.parent / "docs/api.md").read_text(encoding="utf-8")
NAMES = {part for name in re.findall(r"`([^`\n]+)`", PAGE) for part in re.split(r"[^\w-]+", name)}
REQUESTS = (ChatCompletionRequest, CompletionRequest, ResponsesRequest, EmbeddingRequest)


@pytest.mark.parametrize("request_body", REQUESTS, ids=lambda kind: kind.__name__)
def test_every_field_that_is_accepted_is_named(request_body: Any) -> None:
    fields = msgspec.structs.fields(request_body)
    accepted = {field.name for field in fields if field.default is not msgspec.UNSET}
    assert accepted - NAMES == set()


def test_every_limit_is_told() -> None:
    limits = (
        MOST_REPLIES,
        MOST_INPUTS,
        MAX_BIASES,
        MAX_STOP_CHARS,
        MAX_STOP_STRINGS,
        MAX_STOP_TOKEN_IDS,
        MAX_TOOLS,
    )
    rows = " ".join(line for line in PAGE.splitlines() if line.startswith("|"))
    assert [limit for limit in limits if str(limit) not in rows] == []


def test_headers_codes_and_settings_of_the_queue_are_named() -> None:
    settings = {"HEAD_REPLIES", "WAITING_REPLIES", "TOKEN_REPLIES", "WAITING_SECONDS", "REQUEST_SECONDS"}
    assert settings <= {setting.variable for setting in SETTINGS}
    named = {QUEUE_POSITION, QUEUE_SECONDS, Overloaded.code, TooManyRequests.code, "Retry-After", *settings}
    assert named - NAMES == set()
