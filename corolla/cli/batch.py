"""`corolla batch`: many requests as one job of the relay's, in OpenAI's form.

Does not know what the requests ask for: a file's lines go to the relay as they are, and so do its answers.
"""

import argparse
import os
import secrets
import shutil
import stat
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO
from urllib.parse import quote

import msgspec

from corolla.cli.exits import ExitCode, Interrupted, Refused, WrongUsage
from corolla.cli.fetching import fetch
from corolla.cli.relay import Relay
from corolla.cli.replies import as_line, decode
from corolla.cli.terminal import Console, columns
from corolla.cli.watching import has_ended, watch
from schema.batches import MOST_BATCHES, Batch, BatchEndpoint, InputLine
from schema.files import FileObject
from schema.limits import MAX_HTTP_BODY_BYTES

BATCHES = "/v1/batches"
FILES = "/v1/files"
STANDARD_INPUT = "-"
USUAL_ENDPOINT: BatchEndpoint = "/v1/chat/completions"
WATCH_RETRIES = 5
"""Of each look at a batch that is followed: the relay may restart meanwhile."""
_HEADING = ("ID", "STATUS", "DONE", "FAILED", "TOTAL", "TOKENS", "CREATED", "ENDPOINT")


class _RawBatchList(msgspec.Struct):
    """schema.batches.BatchList, its batches as the relay wrote them."""

    data: list[msgspec.Raw]
    has_more: bool = False


def submit(
    relay: Relay, arguments: argparse.Namespace, console: Console, environment: Mapping[str, str]
) -> int:
    """Upload a file and let the relay work through it; prints the batch's id. Raises CommandError."""
    with _opened(arguments.file, console) as (file, name):
        endpoint = arguments.endpoint or _endpoint_of(file)
        uploaded = decode(relay.upload(FILES, {"purpose": "batch"}, name, file, _key()), FileObject)
    body = {"input_file_id": uploaded.id, "endpoint": endpoint, "completion_window": "24h"}
    if arguments.metadata:
        body["metadata"] = dict(arguments.metadata)
    raw = relay.post(BATCHES, body, _key())
    batch = decode(raw, Batch)
    if not arguments.json:
        console.said(f"{batch.id}\n")
    elif arguments.wait:
        console.note(f"batch {batch.id} has begun")  # the JSON comes at its end, perhaps hours from now
    if arguments.wait:
        return _until_the_end(relay, batch.id, arguments, console)
    if arguments.json:
        console.line(as_line(raw))
    console.note(f"to follow it: corolla batch status {batch.id} --watch")
    return ExitCode.DONE


def status(
    relay: Relay, arguments: argparse.Namespace, console: Console, environment: Mapping[str, str]
) -> int:
    """Tell how far a batch is. Raises CommandError."""
    if arguments.watch:
        return _until_the_end(relay, arguments.id, arguments, console)
    raw = relay.get(_path(arguments.id))
    batch = decode(raw, Batch)
    console.line(as_line(raw) if arguments.json else _table([batch]))
    _tell_errors(batch, console)
    return ExitCode.DONE


def results(
    relay: Relay, arguments: argparse.Namespace, console: Console, environment: Mapping[str, str]
) -> int:
    """Fetch what came of a batch: answers first, then errors, one JSON object a line. Raises CommandError."""
    batch = decode(relay.get(_path(arguments.id)), Batch)
    files = {"output": batch.output_file_id, "errors": batch.error_file_id}
    wanted = [file for kind, file in files.items() if file and arguments.only in (None, kind)]
    if not wanted and not has_ended(batch):
        raise Refused(
            f"batch {batch.id} is {_words(batch.status)}: its results come at its end; "
            f"`corolla batch status {batch.id} --watch` waits for it",
            409,
        )
    paths = [f"{FILES}/{quote(file, safe='')}/content" for file in wanted]
    lines = fetch(relay, paths, arguments.output, console)
    where = f" in {arguments.output}" if arguments.output else ""
    console.note(f"batch {batch.id} is {_words(batch.status)}: {lines} lines{where}")
    return _end(batch, console)


def cancel(
    relay: Relay, arguments: argparse.Namespace, console: Console, environment: Mapping[str, str]
) -> int:
    """Stop a batch; what is done stays done. Raises CommandError."""
    raw = relay.post(f"{_path(arguments.id)}/cancel", {})
    console.line(as_line(raw) if arguments.json else _table([decode(raw, Batch)]))
    return ExitCode.DONE


def show_all(
    relay: Relay, arguments: argparse.Namespace, console: Console, environment: Mapping[str, str]
) -> int:
    """List the newest batches. Raises CommandError."""
    batches: list[msgspec.Raw] = []
    query: dict[str, str] = {}
    while len(batches) < arguments.limit:
        query["limit"] = str(min(MOST_BATCHES, arguments.limit - len(batches)))
        page = decode(relay.get(BATCHES, query), _RawBatchList)
        batches += page.data
        if not page.has_more or not page.data:
            break
        query["after"] = decode(bytes(page.data[-1]), Batch).id
    if arguments.json:
        console.line(as_line(msgspec.json.encode({"data": batches})))
    elif batches:
        console.line(_table([decode(bytes(raw), Batch) for raw in batches]))
    else:
        console.note("There are no batches.")
    return ExitCode.DONE


def _until_the_end(relay: Relay, batch_id: str, arguments: argparse.Namespace, console: Console) -> int:
    """Follow a batch, and tell how it ended; the exit code. Raises CommandError, also after Ctrl-C."""
    steadfast = relay.with_retries(WATCH_RETRIES)
    answers: list[bytes] = [b""]

    def ask() -> Batch:
        answers[0] = steadfast.get(_path(batch_id))
        return decode(answers[0], Batch)

    try:
        batch = watch(ask, console, arguments.interval)
    except KeyboardInterrupt:
        raise Interrupted(
            f"interrupted, but batch {batch_id} goes on: `corolla batch status {batch_id} --watch` "
            f"follows it, `corolla batch cancel {batch_id}` stops it"
        ) from None
    if arguments.json:
        console.line(as_line(answers[0]))
    elif batch.output_file_id or batch.error_file_id:
        console.note(f"to read its results: corolla batch results {batch.id}")
    return _end(batch, console)


def _end(batch: Batch, console: Console) -> int:
    """Say what went wrong; the exit code: everything that was asked for has to be there."""
    _tell_errors(batch, console)
    failed = batch.request_counts.failed
    if failed:
        why = f"`corolla batch results {batch.id} --only errors` says why"
        console.error(f"{failed} of {batch.request_counts.total} requests failed: {why}")
    elif has_ended(batch) and batch.status != "completed":
        console.error(f"batch {batch.id} is {batch.status}: not all requests were answered")
    return ExitCode.FAILED if failed or batch.status != "completed" else ExitCode.DONE


def _tell_errors(batch: Batch, console: Console) -> None:
    for error in batch.errors.data if batch.errors else ():
        where = "" if error.line is None else f"line {error.line}: "
        console.error(f"{where}{error.message}")


def _table(batches: list[Batch]) -> str:
    rows = [
        (
            batch.id,
            _words(batch.status),
            str(batch.request_counts.completed),
            str(batch.request_counts.failed),
            str(batch.request_counts.total),
            "-" if batch.usage is None else str(batch.usage.total_tokens),
            datetime.fromtimestamp(batch.created_at, UTC).strftime("%Y-%m-%d %H:%M UTC"),
            batch.endpoint,
        )
        for batch in batches
    ]
    return columns(_HEADING, rows, ("DONE", "FAILED", "TOTAL", "TOKENS"))


def _words(status: str) -> str:
    return status.replace("_", " ")


def _path(batch_id: str) -> str:
    return f"{BATCHES}/{quote(batch_id, safe='')}"


def _key() -> str:
    """An Idempotency-Key: with it a request that is sent again is still one."""
    return secrets.token_hex(16)


@contextmanager
def _opened(path: str, console: Console) -> Iterator[tuple[BinaryIO, str]]:
    """A file that can be read more than once, and its name. Raises WrongUsage."""
    try:
        if path == STANDARD_INPUT:
            with _spooled(console.source.buffer) as file:
                yield file, "standard-input.jsonl"
            return
        with open(path, "rb") as file, _spooled(file) as again:
            yield again, Path(path).name
    except OSError as error:
        raise WrongUsage(f"{path} cannot be read: {error.strerror or error}") from error


@contextmanager
def _spooled(file: BinaryIO) -> Iterator[BinaryIO]:
    """The same from its beginning; what is no regular file, such as a pipe, as a copy of what it gives."""
    if stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        yield file
        return
    with tempfile.TemporaryFile() as copy:
        shutil.copyfileobj(file, copy)
        copy.seek(0)
        yield copy


def _endpoint_of(file: BinaryIO) -> str:
    """What the first line of an input file is for; the usual endpoint if it does not say so."""
    first = file.readline(MAX_HTTP_BODY_BYTES)
    file.seek(0)
    try:
        url = msgspec.json.decode(first, type=InputLine).url
    except (msgspec.DecodeError, UnicodeDecodeError):
        return USUAL_ENDPOINT  # the relay says what is wrong with the line
    return url if isinstance(url, str) and url else USUAL_ENDPOINT
