"""The description of the HTTP interface holds for whatever is asked: schemathesis asks a real relay.

Once with a volunteer that serves a tiny model, once without any. No status that is not described, no body of
another shape, nothing invalid taken, and no server's error but 503 with when to come back.
"""

import copy
import json
import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import httpx
import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, settings
from schemathesis.checks import CheckContext, load_all_checks, not_a_server_error
from schemathesis.config import OutputConfig, SanitizationConfig, SchemathesisConfig
from schemathesis.core.transport import Response
from schemathesis.specs.openapi.checks import positive_data_acceptance

from benchmarks.models import TINY
from benchmarks.processes import RelayProcess, relay, volunteer
from relay.openapi import Operation, document
from relay.operations import OPERATIONS
from schema.generation import MAX_INT32
from tests.described import assert_described, assert_event_described
from tests.garden import MODEL, make_model

pytestmark = pytest.mark.slow

SHORT = replace(TINY, context=32)
"""A reply ends where the model's positions do, so none is long, whatever limit is asked for."""
EXAMPLES = 10
"""Random requests of each kind, beside those for every edge of every field."""
PATIENCE_SECONDS = 180.0
OF_ANY_MODEL = ("/api/volunteers", "/api/admin/volunteers")
"""Where any name may be asked for."""


def asked_for() -> dict[str, Any]:
    """The description, narrowed to what is answered often: random names of models, say, are of none.

    Schemathesis also asks for what the description forbids, and takes an answer to that as a mistake.
    Narrowing a limit would have it forbid what the relay does take. So limits stay as they are, and kinds of
    values too: all other names of models are refused, and a field that nothing but null, or what asks for
    nothing, is taken for is left out.
    """
    described = copy.deepcopy(document(OPERATIONS))
    for name in shapes_of_requests(described):
        fields = described["components"]["schemas"][name].get("properties", {})
        for field in [field for field, told in fields.items() if not told.keys() - {"description"}]:
            del fields[field]
        if "model" in fields:
            fields["model"] = this_model(fields["model"])
    for path, methods in described["paths"].items():
        for parameter in methods.get("get", {}).get("parameters", ()):
            if parameter["name"] == "model" and path not in OF_ANY_MODEL:
                parameter["schema"] = this_model(parameter["schema"])
    return described


def this_model(told: dict[str, Any]) -> dict[str, Any]:
    """The shape of a model's name, for the only model that is served; it may be null where that is said."""
    return {"enum": [MODEL, None] if {"type": "null"} in told.get("anyOf", ()) else [MODEL]}


def shapes_of_requests(described: dict[str, Any]) -> set[str]:
    """The names of all shapes that bodies of requests are made of."""
    found: set[str] = set()
    waiting: list[Any] = [
        one.get("requestBody") for methods in described["paths"].values() for one in methods.values()
    ]
    while waiting:
        new = set(re.findall(r'"#/components/schemas/(\w+)"', json.dumps(waiting.pop()))) - found
        found |= new
        waiting += [described["components"]["schemas"][name] for name in new]
    return found


PLAINLY = SchemathesisConfig(output=OutputConfig(sanitization=SanitizationConfig(enabled=False)))
"""A failure's request is shown as it was: otherwise the values of all fields with `token` in their name are
hidden, and those are limits here."""
load_all_checks()
DESCRIBED = schemathesis.openapi.from_dict(asked_for(), config=PLAINLY).exclude(path="/api/events")
"""Schemathesis judges an answer when it has read all of it: of a stream that has no end, never. What
`/api/events` answers, and each event, is held against the description below, and more of it in
tests/relay/core/test_events.py.
"""
OF_VOLUNTEERS = DESCRIBED.include(path_regex=r"^/(v1|api/(v1|models|route|volunteers))")
"""What is answered in another way where there are none."""
OFTEN = settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize=True,
    database=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large],
)


@pytest.fixture(scope="module")
def alone() -> Iterator[RelayProcess]:
    """A relay that has no volunteer."""
    with relay(MODEL) as server:
        yield server


@pytest.fixture(scope="module")
def alive(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RelayProcess]:
    """A relay with a volunteer that serves the whole model."""
    model = make_model(tmp_path_factory.mktemp("model"), SHORT)
    with relay(MODEL) as server:
        arguments = ("--model", f"{MODEL}={model}", "--blocks", "0:12")
        with volunteer(server, "anemone", *arguments) as one:
            server.wait_until_serving(["anemone"], [one])
            yield server


class Asker:
    """Sends what schemathesis makes up, with a token that may do all, and judges what comes back."""

    def __init__(self, server: RelayProcess, allowed: set[int]) -> None:
        self._url = server.url
        self._headers = {"Authorization": f"Bearer {server.token('admin', 'asker')}"}
        self._allowed = allowed
        self._session = requests.Session()
        self._session.trust_env = False

    def ask(self, case: schemathesis.Case) -> None:
        answer = case.call(self._url, self._session, self._headers, timeout=PATIENCE_SECONDS)
        case.validate_response(
            answer,
            additional_checks=[self.no_servers_error],
            excluded_checks=[not_a_server_error, positive_data_acceptance],
            headers=self._headers,
        )

    def no_servers_error(self, ctx: CheckContext, answer: Response, case: schemathesis.Case) -> None:
        assert answer.status_code < 500 or answer.status_code in self._allowed, answer.text
        if answer.status_code == 503:
            assert int(answer.headers["retry-after"][0]) > 0


@pytest.fixture(scope="module")
def ask_alone(alone: RelayProcess) -> Asker:
    return Asker(alone, {503})


@pytest.fixture(scope="module")
def ask_alive(alive: RelayProcess) -> Asker:
    return Asker(alive, set())


@DESCRIBED.parametrize()
@OFTEN
def test_a_swarm_does_as_described(case: schemathesis.Case, ask_alive: Asker) -> None:
    ask_alive.ask(case)


@OF_VOLUNTEERS.parametrize()
@OFTEN
def test_a_relay_without_volunteers_does_as_described(case: schemathesis.Case, ask_alone: Asker) -> None:
    ask_alone.ask(case)


# ---- what is always answered ----


@pytest.fixture(scope="module")
def reader(alive: RelayProcess) -> Iterator[httpx.Client]:
    """A client of the swarm with a good token."""
    headers = {"Authorization": f"Bearer {alive.token('client', 'reader')}"}
    with httpx.Client(
        base_url=alive.url, headers=headers, timeout=PATIENCE_SECONDS, trust_env=False
    ) as client:
        yield client


@pytest.mark.parametrize(
    "one",
    [one for one in OPERATIONS if isinstance(one.example, dict) and "model" in one.example],
    ids=lambda one: one.path,
)
def test_the_descriptions_examples_are_answered(one: Operation, reader: httpx.Client) -> None:
    answer = reader.request(one.method, one.path, json=one.example | {"model": MODEL})
    assert answer.status_code == 200, answer.text
    assert_described(answer)


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize(
    ("limit", "tokens"),
    [
        ({"max_new_tokens": 1}, 1),
        ({"max_new_tokens": MAX_INT32}, SHORT.context - 3),
        ({"max_length": 4}, 1),
        ({"max_length": MAX_INT32}, SHORT.context - 3),
        ({"max_length": 3}, None),
    ],
    ids=str,
)
def test_limits_of_petals_hold_at_their_edges(
    method: str, limit: dict[str, int], tokens: int | None, reader: httpx.Client
) -> None:
    asked = {"inputs": "1 2 3"} | limit
    how: dict[str, Any] = {"params": asked} if method == "GET" else {"json": asked}
    answer = reader.request(method, "/api/v1/generate", **how)
    assert_described(answer)
    assert answer.status_code == (400 if tokens is None else 200)
    if tokens is not None:
        assert len(answer.json()["outputs"].split()) == tokens


def test_the_first_event_is_the_swarm_as_described(reader: httpx.Client) -> None:
    with reader.stream("GET", "/api/events") as answer:
        assert answer.status_code == 200
        assert_described(answer)
        data = next(line for line in answer.iter_lines() if line.startswith("data: "))
    told = json.loads(data.removeprefix("data: "))
    assert_event_described("/api/events", told)
    assert [one["name"] for one in told["swarm"]["volunteers"]] == ["anemone"]
