"""A Hub on this machine: the few routes of the Hugging Face Hub that a download needs, over real sockets."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import cast

COMMIT = "c0ffee" + "0" * 34
"""The only commit of every repository; `main` and `v1` name it."""
REVISIONS = frozenset({COMMIT, "main", "v1"})


class Hub(ThreadingHTTPServer):
    """Serves the folders `root/owner/name`, and remembers which files were sent, whole or in part."""

    daemon_threads = True

    def __init__(self, root: Path) -> None:
        super().__init__(("127.0.0.1", 0), HubRequest)
        self.root = root
        self.sent: list[str] = []
        self.sent_in_part: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class HubRequest(BaseHTTPRequestHandler):
    """`/{repo}/resolve/{revision}/{file}`; under `/api/models/{repo}` the commit and the list of files."""

    protocol_version = "HTTP/1.1"

    @property
    def hub(self) -> Hub:
        return cast(Hub, self.server)

    def do_HEAD(self) -> None:
        self._resolve(with_body=False)

    def do_GET(self) -> None:
        if self.path.startswith("/api/models/"):
            self._api(self.path.removeprefix("/api/models/").split("?")[0].split("/"))
        else:
            self._resolve(with_body=True)

    def log_message(self, format: str, *args: object) -> None:
        """Quiet."""

    def _api(self, parts: list[str]) -> None:
        folder = self.hub.root / parts[0] / parts[1]
        if not folder.is_dir():
            return self._refuse("RepoNotFound")
        files = [
            {"type": "file", "path": f.name, "size": f.stat().st_size, "oid": "0"} for f in folder.iterdir()
        ]
        if "tree" in parts:
            return self._send(json.dumps(files).encode())
        siblings = [{"rfilename": file["path"]} for file in files]
        return self._send(
            json.dumps({"id": "/".join(parts[:2]), "sha": COMMIT, "siblings": siblings}).encode()
        )

    def _resolve(self, with_body: bool) -> None:
        owner, name, _, revision, file = self.path.lstrip("/").split("/", 4)
        folder = self.hub.root / owner / name
        if not folder.is_dir():
            return self._refuse("RepoNotFound")
        if revision not in REVISIONS:
            return self._refuse("RevisionNotFound")
        if not (folder / file).is_file():
            return self._refuse("EntryNotFound")
        content = (folder / file).read_bytes()
        return self._send_range(file, content) if with_body else self._send(content, with_body=False)

    def _send_range(self, file: str, content: bytes) -> None:
        wanted = self.headers.get("Range")
        if wanted is None:
            self.hub.sent.append(file)
            return self._send(content)
        self.hub.sent_in_part.append(file)
        first, last = wanted.removeprefix("bytes=").split("-")
        return self._send(content[int(first) : int(last) + 1 if last else None], status=206)

    def _send(self, content: bytes, status: int = 200, with_body: bool = True) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("ETag", f'"{sha256(content).hexdigest()}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.end_headers()
        if with_body:
            self.wfile.write(content)

    def _refuse(self, code: str) -> None:
        self.send_response(404)
        self.send_header("X-Error-Code", code)
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("Content-Length", "0")
        self.end_headers()


@contextmanager
def running_hub(root: Path) -> Iterator[Hub]:
    hub = Hub(root)
    thread = threading.Thread(target=hub.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield hub
    finally:
        hub.shutdown()
        thread.join()
        hub.server_close()
