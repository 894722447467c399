"""relay/pages.py: the page's files, and nothing else, under their headers."""

import asyncio
from collections.abc import AsyncIterator

import httpx
import pytest

from relay.pages import SECURITY_HEADERS
from tests.relay.core.support import RunningRelay


@pytest.fixture
async def http(relay: RunningRelay) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=relay.url, trust_env=False) as client:
        yield client


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/", "text/html"),
        ("/static/js/main.js", "text/javascript"),
        ("/static/css/base.css", "text/css"),
        ("/static/favicon.svg", "image/svg+xml"),
    ],
)
async def test_files_come_under_the_security_headers(http: httpx.AsyncClient, path: str, kind: str) -> None:
    response = await http.get(path)
    assert response.status_code == 200
    assert response.headers["Content-Type"].startswith(kind)
    assert {name: response.headers[name] for name in SECURITY_HEADERS} == SECURITY_HEADERS


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
