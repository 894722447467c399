"""The files of `web/` as browsers get them: compressed once, known by a hash of what is in them, under a
strict Content-Security-Policy.

A file is read and compressed at its first request and kept until it changes. Its tag is that of its content,
so all replicas of a release give the same. Does not know what the files do.
"""

import gzip
import hashlib
import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import lru_cache
from mimetypes import guess_type
from pathlib import Path

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import Response
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

WEB = Path(__file__).resolve().parent.parent / "web"
PAGES = {
    "/": "index.html",
    "/swarm": "swarm.html",
    "/join": "join.html",
    "/jobs": "jobs.html",
    "/keys": "keys.html",
    "/operators": "operators.html",
}
"""Paths, and files of `web/`. Anybody may have them: what they show is asked for by the pages themselves."""
KEPT_FILES = 512
LEVEL = 9
COMPRESSED_KINDS = ("text/", "application/json", "image/svg+xml")

SECURITY_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
        "require-trusted-types-for 'script'; trusted-types 'none'"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
NO_SNIFFING = {"X-Content-Type-Options": "nosniff"}
"""All that the other files need: a policy is the document's, and with each of 70 files it is 22 kB of a first
load."""
DOCUMENTS = ("text/html", "image/svg+xml")
"""What browsers show by itself, and run scripts of."""
CACHED = {"Cache-Control": "no-cache", "Vary": "Accept-Encoding"}
"""Asked for anew at every load, so that a new release is seen at once; what has not changed is not sent."""


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A file's content in the forms in which it is sent."""

    content: bytes
    compressed: bytes | None
    """gzip; None where it would not be shorter."""
    kind: str
    tag: str


class WebFiles(StaticFiles):
    """What lies in a folder, and nothing else."""

    def file_response(
        self,
        full_path: str | os.PathLike[str],
        stat_result: os.stat_result,
        scope: Scope,
        status_code: int = 200,
    ) -> Response:
        return respond(Path(full_path), stat_result, Headers(scope=scope))


def page(name: str) -> Callable[[Request], Awaitable[Response]]:
    """The handler of one of the pages, by the name of its file in `web/`."""
    path = WEB / name

    async def handle(request: Request) -> Response:
        return respond(path, path.stat(), request.headers)

    return handle


def wants_page(request: Request) -> bool:
    """Whether somebody looks at the answer in a browser, who goes from one document to the next."""
    return request.method in ("GET", "HEAD") and "text/html" in request.headers.get("accept", "")


def not_found() -> Response:
    """That there is nothing at an address, for people."""
    path = WEB / "not_found.html"
    stat = path.stat()
    stored = _stored(path, stat.st_mtime_ns, stat.st_size)
    headers = SECURITY_HEADERS | {"Cache-Control": "no-store"}
    return Response(stored.content, 404, headers, media_type=stored.kind)


def respond(path: Path, stat: os.stat_result, wanted: Headers) -> Response:
    """A file, in the form that the browser takes; 304 when it has it already."""
    stored = _stored(path, stat.st_mtime_ns, stat.st_size)
    is_short = stored.compressed is not None and takes_gzip(wanted.get("accept-encoding", ""))
    tag = f'"{stored.tag}-gzip"' if is_short else f'"{stored.tag}"'
    headers = (SECURITY_HEADERS if stored.kind in DOCUMENTS else NO_SNIFFING) | CACHED | {"ETag": tag}
    if is_among(tag, wanted.get("if-none-match", "")):
        return Response(status_code=304, headers=headers)
    if stored.compressed is None or not is_short:
        return Response(stored.content, headers=headers, media_type=stored.kind)
    return Response(stored.compressed, headers=headers | {"Content-Encoding": "gzip"}, media_type=stored.kind)


def takes_gzip(accepted: str) -> bool:
    """Whether an Accept-Encoding header (RFC 9110 section 12.5.3) allows gzip, by name."""
    for one in accepted.lower().split(","):
        coding, _, parameter = one.partition(";")
        if coding.strip() in ("gzip", "x-gzip"):
            return parameter.replace(" ", "") not in ("q=0", "q=0.0", "q=0.00", "q=0.000")
    return False


def is_among(tag: str, tags: str) -> bool:
    """Whether an If-None-Match header names a tag. A proxy that compresses itself makes tags weak."""
    return tags.strip() == "*" or tag in [one.strip().removeprefix("W/") for one in tags.split(",")]


@lru_cache(maxsize=KEPT_FILES)
def _stored(path: Path, modified: int, size: int) -> StoredFile:
    """The time of its last change, in nanoseconds, and its size tell one state of a file from another."""
    content = path.read_bytes()
    kind = guess_type(path.name)[0] or "application/octet-stream"
    compressed = None
    if kind.startswith(COMPRESSED_KINDS):
        compressed = gzip.compress(content, LEVEL, mtime=0)
    if compressed is not None and len(compressed) >= len(content):
        compressed = None
    return StoredFile(content, compressed, kind, hashlib.sha256(content).hexdigest()[:32])
