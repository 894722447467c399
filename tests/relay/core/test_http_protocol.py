"""relay/http_protocol.py: what is no request, or never a whole one, is refused by name, and is no mistake."""

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from pathlib import Path
from typing import NamedTuple

import httpx
import pytest

from relay import http_protocol
from schema.messages import Cancel, Generate
from tests.relay.core.peers import ScriptedPeer, say_texts
from tests.relay.core.rest_client import CHAT, QUESTION
from tests.relay.core.support import RunningRelay, running_relay
from tests.relay.core.waiting import DEADLINE, eventually

FILES, IN_PARTS = "/v1/files", "multipart/form-data; boundary=b"
FORM = (
    b'--b\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nbatch\r\n'
    b'--b\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\nlines\r\n--b--\r\n'
)


@pytest.fixture
async def relay(sqlite_file: Path, tmp_path: Path) -> AsyncIterator[RunningRelay]:
    async with running_relay(sqlite_file, files=str(tmp_path / "files")) as running:
        yield running


@pytest.fixture(autouse=True)
def logs(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.INFO)
    return caplog


class Line(NamedTuple):
    """A connection, byte by byte."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def rest(self) -> bytes:
        """All that comes until the other side closes."""
        async with asyncio.timeout(DEADLINE):
            found = await self.reader.read()
        self.writer.close()
        return found


async def dialled(relay: RunningRelay) -> Line:
    return Line(*await asyncio.open_connection("127.0.0.1", relay.port))


async def posting(relay: RunningRelay, token: str, path: str, kind: str, length: int, body: bytes) -> Line:
    """Who has sent a body, and has said that it has so many bytes."""
    line = await dialled(relay)
    head = (
        f"POST {path} HTTP/1.1\r\nHost: relay\r\nAuthorization: Bearer {token}\r\n"
        f"Content-Type: {kind}\r\nContent-Length: {length}\r\n\r\n"
    )
    line.writer.write(head.encode() + body)
    return line


def refused(answer: bytes, status: str = "400 bad request", code: str = "invalid_request") -> str:
    """The message of a refusal that is the whole of an answer, in the API's shape."""
    head, _, body = answer.partition(b"\r\n\r\n")
    first, *headers = head.decode().lower().split("\r\n")
    assert first == f"http/1.1 {status}"
    length = f"content-length: {len(body)}"
    assert {"content-type: application/json", length, "connection: close"} <= {*headers}
    error = json.loads(body)["error"]
    assert (error["code"], error["type"]) == (code, "invalid_request_error")
    return error["message"]


def mistakes(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [one.getMessage() for one in caplog.records if one.levelno >= logging.ERROR or one.exc_info]


async def test_an_upload_with_more_bytes_than_it_says_is_refused_and_not_kept(
    relay: RunningRelay, token: str, http: httpx.AsyncClient, logs: pytest.LogCaptureFixture
) -> None:
    line = await posting(relay, token, FILES, IN_PARTS, len(FORM), FORM + b"and it has grown since")
    assert "Content-Length" in refused(await line.rest())
    await eventually(lambda: not relay.server.server_state.tasks)
    assert (await http.get(FILES)).json()["data"] == []
    assert (relay.refusals("invalid_request"), mistakes(logs)) == (1, [])


async def test_an_upload_that_ends_early_is_refused_where_somebody_listens(
    relay: RunningRelay, token: str, http: httpx.AsyncClient, logs: pytest.LogCaptureFixture
) -> None:
    line = await posting(relay, token, FILES, IN_PARTS, len(FORM) + 100, FORM)
    line.writer.write_eof()
    assert "before its body was whole" in refused(await line.rest())
    await eventually(lambda: not relay.server.server_state.tasks)
    assert (await http.get(FILES)).json()["data"] == []
    assert (relay.refusals("invalid_request"), mistakes(logs)) == (1, [])


@pytest.mark.parametrize(("path", "kind"), [(FILES, IN_PARTS), (CHAT, "application/json")])
async def test_who_leaves_in_the_middle_of_a_body_is_counted_and_logged_as_no_mistake(
    relay: RunningRelay, token: str, logs: pytest.LogCaptureFixture, path: str, kind: str
) -> None:
    line = await posting(relay, token, path, kind, len(FORM) + 100, FORM)
    await eventually(lambda: relay.server.server_state.tasks)
    line.writer.transport.abort()
    await eventually(lambda: not relay.server.server_state.tasks)
    assert await relay.metric("requests_total", route=path, status="499") == 1
    assert mistakes(logs) == []


async def test_a_form_that_breaks_off_is_refused_by_name(http: httpx.AsyncClient) -> None:
    answer = await http.post(FILES, content=FORM[:-20], headers={"Content-Type": IN_PARTS})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "file")


async def test_what_is_no_http_at_all_is_refused(relay: RunningRelay, logs: pytest.LogCaptureFixture) -> None:
    line = await dialled(relay)
    line.writer.write(b"\x16\x03\x01 hello\r\n\r\n")
    assert "no HTTP" in refused(await line.rest())
    assert (relay.refusals("invalid_request"), mistakes(logs)) == (1, [])


async def test_nothing_is_said_into_the_middle_of_an_answer(
    relay: RunningRelay, head: ScriptedPeer, token: str, logs: pytest.LogCaptureFixture
) -> None:
    body = json.dumps(QUESTION | {"stream": True}).encode()
    line = await posting(relay, token, CHAT, "application/json", len(body), body)
    asked = await head.hear(Generate)
    await say_texts(head, asked, "a")
    async with asyncio.timeout(DEADLINE):
        begun = await line.reader.readuntil(b'"a"')
    line.writer.write(b"\x00 and more\r\n\r\n")
    assert b"200 OK" in begun
    assert b"HTTP/1.1" not in await line.rest()
    assert await head.hear(Cancel) == Cancel(request=asked.request)
    assert (relay.refusals("invalid_request"), mistakes(logs)) == (1, [])


@pytest.mark.parametrize("begins", ["GET /?", "GET / HTTP/1.1\r\nX: ", "GET / HTTP/1.1\r\n" + "X: a\r\n" * 9])
async def test_a_head_without_end_is_refused_before_it_fills_the_memory(
    relay: RunningRelay, begins: str
) -> None:
    line = await dialled(relay)
    line.writer.write(begins.encode())
    await line.writer.drain()
    more = b"X: a\r\n" * 1000 if begins.endswith("\n") else b"a" * 6000
    async with asyncio.timeout(DEADLINE):
        while not line.reader.at_eof() and not relay.refusals("too_large"):
            line.writer.write(more)
            await line.writer.drain()
            await asyncio.sleep(0)
    assert "line and headers" in refused(await line.rest(), "413 request entity too large", "too_large")
    assert relay.refusals("too_large") == 1


async def test_heads_that_follow_each_other_are_counted_one_by_one(
    relay: RunningRelay, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_protocol, "MAX_HEAD_BYTES", 100)
    line = await dialled(relay)
    for _ in range(4):
        for part in (
            b"GET /healthz HTTP/1.1\r\n",
            b"Host: relay\r\n",
            b"X: aaaaaaaaaaaaaaaaaaaa\r\n",
            b"\r\n",
        ):
            line.writer.write(part)
            await line.writer.drain()
            await asyncio.sleep(0)
        async with asyncio.timeout(DEADLINE):
            assert (await line.reader.readuntil(b"ok\n")).startswith(b"HTTP/1.1 200")
    line.writer.close()
