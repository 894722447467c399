"""relay/web_files.py: the pages' files, and nothing else, under their headers."""

import asyncio
from collections.abc import AsyncIterator

import httpx
import pytest

from relay.web_files import PAGES, SECURITY_HEADERS, is_among, takes_gzip
from tests.relay.core.support import RunningRelay


@pytest.fixture
async def http(relay: RunningRelay) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=relay.url, trust_env=False) as client:
        yield client


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        *((path, "text/html") for path in PAGES),
        ("/static/index.html", "text/html"),
        ("/static/favicon.svg", "image/svg+xml"),
    ],
)
async def test_documents_come_under_the_security_headers(
    http: httpx.AsyncClient, path: str, kind: str
) -> None:
    response = await http.get(path)
    assert response.status_code == 200
    assert response.headers["Content-Type"].startswith(kind)
    assert {name: response.headers[name] for name in SECURITY_HEADERS} == SECURITY_HEADERS


@pytest.mark.parametrize(
    ("path", "kind"), [("/static/js/main.js", "text/javascript"), ("/static/css/base.css", "text/css")]
)
async def test_what_documents_load_is_taken_for_nothing_else(
    http: httpx.AsyncClient, path: str, kind: str
) -> None:
    """A policy would say nothing here, with each of many small files."""
    response = await http.get(path)
    assert response.headers["Content-Type"].startswith(kind)
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    assert "Content-Security-Policy" not in response.headers


async def test_people_are_told_on_a_page_that_there_is_nothing(
    relay: RunningRelay, http: httpx.AsyncClient
) -> None:
    told = await http.get("/nothing", headers={"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"})
    assert told.status_code == 404
    assert told.headers["Content-Type"].startswith("text/html")
    assert {name: told.headers[name] for name in SECURITY_HEADERS} == SECURITY_HEADERS
    assert "nothing here" in told.text
    assert relay.refusals("not_found") == 1
    program = await http.get("/nothing")
    assert program.status_code == 404
    assert program.json()["error"]["code"] == "not_found"


async def test_only_the_relays_own_scripts_may_run() -> None:
    policy = dict(rule.split(" ", 1) for rule in SECURITY_HEADERS["Content-Security-Policy"].split("; "))
    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
    assert policy["frame-ancestors"] == "'none'"
    assert policy["require-trusted-types-for"] == "'script'"


async def test_a_file_that_has_not_changed_is_not_sent_again(http: httpx.AsyncClient) -> None:
    first = await http.get("/static/js/main.js")
    assert first.headers["Cache-Control"] == "no-cache"
    again = await http.get("/static/js/main.js", headers={"If-None-Match": first.headers["ETag"]})
    assert again.status_code == 304
    assert again.headers["ETag"] == first.headers["ETag"]
    assert "Content-Length" not in again.headers or again.headers["Content-Length"] == "0"


@pytest.mark.parametrize("path", ["/", "/static/js/main.js", "/static/css/base.css"])
async def test_text_comes_compressed_to_those_who_take_it(http: httpx.AsyncClient, path: str) -> None:
    short = await http.get(path, headers={"Accept-Encoding": "br, gzip"})
    long = await http.get(path, headers={"Accept-Encoding": "identity"})
    assert short.headers["Content-Encoding"] == "gzip"
    assert "Content-Encoding" not in long.headers
    assert short.content == long.content
    assert int(short.headers["Content-Length"]) < len(long.content) / 1.5
    assert short.headers["Vary"] == long.headers["Vary"] == "Accept-Encoding"
    assert short.headers["ETag"] != long.headers["ETag"]


async def test_a_tag_is_that_of_one_form_only(http: httpx.AsyncClient) -> None:
    short = await http.get("/static/js/main.js", headers={"Accept-Encoding": "gzip"})
    wanted = {"Accept-Encoding": "identity", "If-None-Match": short.headers["ETag"]}
    assert (await http.get("/static/js/main.js", headers=wanted)).status_code == 200


async def test_the_head_of_a_file_has_no_body(http: httpx.AsyncClient) -> None:
    response = await http.head("/static/js/main.js")
    assert response.status_code == 200
    assert response.content == b""


@pytest.mark.parametrize(
    ("accepted", "taken"),
    [
        ("gzip", True),
        ("br;q=1.0, GZIP;q=0.8", True),
        ("x-gzip", True),
        ("gzip;q=0", False),
        ("gzip; q=0.000", False),
        ("br, identity", False),
        ("", False),
    ],
)
def test_what_accept_encoding_allows(accepted: str, taken: bool) -> None:
    assert takes_gzip(accepted) is taken


@pytest.mark.parametrize(
    ("tags", "found"),
    [('"a"', True), ('"b", W/"a"', True), ("*", True), ('"b"', False), ("", False), ("a", False)],
)
def test_what_if_none_match_names(tags: str, found: bool) -> None:
    assert is_among('"a"', tags) is found


@pytest.mark.parametrize(
    "path",
    [
        "/static/../relay/app.py",
        "/static/%2e%2e/relay/app.py",
        "/static/..%2frelay/app.py",
        "/static/js/../../relay/app.py",
        "/static//etc/passwd",
        "/static/%2fetc/passwd",
        "/static/..%5crelay%5capp.py",
        "/static/%00",
        "/static/js",
        "/static/",
        "/static/nothing.js",
    ],
)
async def test_nothing_but_the_pages_files_is_served(relay: RunningRelay, path: str) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", relay.port)
    writer.write(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
    answer = (await reader.read()).decode()
    writer.close()
    await writer.wait_closed()
    assert answer.startswith("HTTP/1.1 404")
    assert "create_app" not in answer
    assert "root:" not in answer
