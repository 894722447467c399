"""relay/openapi.py and relay/docs.py: what is described is what is served, to programs and to people."""

import re
from typing import Any

import msgspec
import pytest
from starlette.routing import BaseRoute, Mount, Route, WebSocketRoute

from relay.app import create_app
from relay.docs import DOCUMENT, render
from relay.openapi import Operation, document, error_meanings, field_notes
from relay.operations import OPERATIONS, UNDESCRIBED
from relay.settings import Settings
from relay.web_files import SECURITY_HEADERS
from schema.api import CompletionRequest
from schema.errors import CorollaError, kinds_of
from scripts.write_openapi import FILE, written
from tests.relay.core.rest_client import client_of
from tests.relay.core.support import RunningRelay

DESCRIBED = document(OPERATIONS)
HTTP_METHODS = ("get", "post", "put", "patch", "delete")


def methods_of(route: Route) -> set[str]:
    """In small letters, those that Starlette adds left out."""
    if route.methods is not None:
        return {method.lower() for method in route.methods} - {"head"}
    return {method for method in HTTP_METHODS if hasattr(route.endpoint, method)}


def served() -> list[tuple[str, set[str]]]:
    """Every path of the relay, with its methods; none for what is no plain route."""
    routes: list[BaseRoute] = create_app(Settings()).routes
    found: list[tuple[str, set[str]]] = []
    for route in routes:
        assert isinstance(route, Route | WebSocketRoute | Mount)
        path = route.path.replace(":path}", "}")
        found.append((path, methods_of(route) if isinstance(route, Route) else set()))
    return found


def test_the_file_is_current() -> None:
    assert FILE == DOCUMENT
    assert FILE.read_text(encoding="utf-8") == written(), "run scripts/openapi"


def test_every_route_is_described_or_named_as_none_of_the_interface() -> None:
    described = {(path, method) for path, methods in DESCRIBED["paths"].items() for method in methods}
    routes = {(path, method) for path, methods in served() for method in methods if path not in UNDESCRIBED}
    assert described == routes
    assert {path for path, _ in served()} >= UNDESCRIBED.keys()
    assert not UNDESCRIBED.keys() & DESCRIBED["paths"].keys()


def test_every_reference_leads_somewhere() -> None:
    for reference in set(re.findall(r'"\$ref": "#/components/(\w+)/([^"]+)"', written())):
        assert reference[1] in DESCRIBED["components"][reference[0]]


def test_names_of_operations_are_single() -> None:
    names = [one["operationId"] for methods in DESCRIBED["paths"].values() for one in methods.values()]
    assert len(set(names)) == len(names) == len(OPERATIONS)


@pytest.mark.parametrize("one", OPERATIONS, ids=lambda one: f"{one.method} {one.path}")
def test_an_operation_says_every_error_with_its_status_and_when_to_come_back(one: Operation) -> None:
    described = DESCRIBED["paths"][one.path][one.method.lower()]
    for error in one.all_errors:
        name = described["responses"][str(error.http_status)]["$ref"].rpartition("/")[2]
        answer = DESCRIBED["components"]["responses"][name]
        shape = answer["content"]["application/json"]["schema"]
        if one.failure is None:
            codes = shape["allOf"][1]["properties"]["error"]["properties"]["code"]
            assert error.code in codes["enum"]
        else:
            assert shape["$ref"].endswith(one.failure.__name__)
        assert ("Retry-After" in answer.get("headers", {})) == (error.http_status == 503)
        assert f"`{error.code}`: " in answer["description"]
    if described["security"]:
        assert {"401", "403", "503"} <= described["responses"].keys()


@pytest.mark.parametrize(
    "one", [one for one in OPERATIONS if one.example is not None], ids=lambda one: one.path
)
def test_examples_are_what_they_are_examples_of(one: Operation) -> None:
    msgspec.convert(one.example, one.body)


def test_every_parameter_of_a_path_is_described() -> None:
    for one in OPERATIONS:
        assert re.findall(r"{(\w+)}", one.path) == [name for name, _ in one.in_path]


def test_fields_are_explained_with_the_words_of_the_source() -> None:
    shapes = DESCRIBED["components"]["schemas"]
    told = shapes["ModelStatus"]["properties"]["complete"]["description"]
    assert told == "Whether a chat would be answered now: every block and a head are served."
    assert "vLLM" in field_notes(CompletionRequest)["stop_token_ids"]


def test_every_error_has_a_meaning() -> None:
    meanings = error_meanings()
    assert {error.__name__ for error in kinds_of(CorollaError)} - meanings.keys() == {"CorollaError"}


# ---- as it is served ----


async def test_it_is_served_to_programs(relay: RunningRelay) -> None:
    async with client_of(relay, None) as anybody:
        response = await anybody.get("/openapi.json")
        assert response.headers["Content-Type"] == "application/json"
        assert response.json() == DESCRIBED


async def test_it_is_served_to_people_under_the_pages_policy(relay: RunningRelay) -> None:
    async with client_of(relay, None) as anybody:
        response = await anybody.get("/docs")
    assert response.headers["Content-Type"] == "text/html; charset=utf-8"
    assert {name: response.headers[name] for name in SECURITY_HEADERS} == SECURITY_HEADERS
    assert "style=" not in response.text
    assert re.findall(r"<script[^>]*>[^<]", response.text) == []
    assert re.findall(r'(?:src|href)="(?!/|#)[^"]*"', response.text) == []


def test_the_page_has_every_operation_and_shape_and_all_links_lead_somewhere() -> None:
    page = render(DESCRIBED)
    targets = set(re.findall(r'id="([^"]+)"', page))
    names = {one["operationId"] for methods in DESCRIBED["paths"].values() for one in methods.values()}
    assert names | DESCRIBED["components"]["schemas"].keys() <= targets
    assert set(re.findall(r'href="#([^"]+)"', page)) <= targets


def test_what_is_described_is_no_markup() -> None:
    hostile: dict[str, Any] = DESCRIBED | {"info": {"description": "<script>`<b>`", "version": "<i>"}}
    page = render(hostile)
    assert "&lt;script&gt;<code>&lt;b&gt;</code>" in page
    assert "<i>" not in page
