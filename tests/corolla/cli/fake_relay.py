"""A fake relay: says over HTTP what a test has written down, and keeps what it was asked."""

import threading
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import msgspec

from schema.api import error_body
from schema.credentials import new_credential
from schema.errors import CorollaError


@dataclass(frozen=True)
class Answer:
    """What the fake says once. A `body` that is no bytes goes as JSON."""

    body: Any = b""
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=lambda: dict[str, str]())

    @property
    def data(self) -> bytes:
        return self.body if isinstance(self.body, bytes) else msgspec.json.encode(self.body)


@dataclass(frozen=True)
class Asked:
    """What the fake was asked."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        return msgspec.json.decode(self.body)


class FakeRelay:
    """Answers each path with what `says` was told, one after the other, the last one again and again."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.token = str(new_credential("client", self.url))
        self.asked: list[Asked] = []
        self._answers: dict[str, list[Answer]] = defaultdict(list)

    def says(self, path: str, *answers: Answer) -> None:
        """`path`: method, path and query, such as `GET /v1/models`."""
        self._answers[path] += answers

    def refuses(self, path: str, error: CorollaError, times: int = 1, after: str | None = None) -> None:
        """Say an error as a relay does. `after`: when to come back, as its header says it."""
        headers = {} if after is None else {"Retry-After": after}
        self.says(path, *[Answer(error_body(error), error.http_status, headers)] * times)

    def answer(self, asked: Asked) -> Answer:
        """What to say to a request; it is kept."""
        self.asked.append(asked)
        answers = self._answers[f"{asked.method} {asked.path}"]
        if not answers:
            return Answer({"error": {"message": f"nobody expected {asked.path}", "code": "not_found"}}, 404)
        return answers.pop(0) if len(answers) > 1 else answers[0]


class _Server(ThreadingHTTPServer):
    """Knows the fake that it speaks for."""

    daemon_threads = True
    fake: FakeRelay


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server  # pyright: ignore[reportIncompatibleVariableOverride]

    def _handle(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.headers.get("Transfer-Encoding") == "chunked":
            while size := int(self.rfile.readline(), 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
        answer = self.server.fake.answer(Asked(self.command, self.path, dict(self.headers), body))
        self.send_response(answer.status)
        for name, value in {"Content-Length": str(len(answer.data)), **answer.headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(answer.data)

    do_GET = do_POST = _handle

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing: what was asked is kept."""


@contextmanager
def fake_relay() -> Iterator[FakeRelay]:
    """A fake on a free port."""
    with _Server(("127.0.0.1", 0), _Handler) as server:
        server.fake = FakeRelay(server.server_address[1])
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server.fake
        finally:
            server.shutdown()
            thread.join()
