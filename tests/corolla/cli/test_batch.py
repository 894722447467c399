"""`corolla batch` against a fake relay that says what OpenAI's Batch API says."""

import json
import os
from pathlib import Path
from typing import Any

import msgspec
import pytest

from corolla.cli import batch as batch_command
from corolla.cli.exits import ExitCode
from schema.batches import (
    Batch,
    BatchError,
    BatchErrors,
    BatchList,
    BatchRequest,
    BatchStatus,
    BatchUsage,
    RequestCounts,
)
from schema.errors import NotFound, Unavailable
from schema.files import FileObject
from tests.corolla.cli.fake_relay import Answer, FakeRelay
from tests.corolla.cli.running import CommandLine

ID = "batch_7f"
LOOK = f"GET /v1/batches/{ID}"
UPLOAD, CREATE = "POST /v1/files", "POST /v1/batches"
FILE = Answer(FileObject(id="file-1", bytes=7, created_at=1, filename="requests.jsonl", purpose="batch"))
LINE = '{"custom_id": "a", "method": "POST", "url": "/v1/completions", "body": {}}\n'
ANSWERS = '{"custom_id": "a", "response": {"body": "\u202e\\u001b[2J"}}\n{"custom_id": "b"}'
ERRORS = b'{"custom_id": "c", "error": {"message": "no"}}\n'
AT_ONCE = ("--interval", "0.001")


def batch(status: BatchStatus = "in_progress", done: int = 0, failed: int = 0, **more: Any) -> Batch:
    """One of four requests."""
    counts = RequestCounts(total=4, completed=done, failed=failed)
    shared = {"id": ID, "endpoint": "/v1/completions", "input_file_id": "file-1", "created_at": 1_700_000_000}
    return Batch(**{**shared, **more}, status=status, request_counts=counts)


@pytest.fixture
def requests(tmp_path: Path) -> str:
    """A file of requests."""
    file = tmp_path / "requests.jsonl"
    file.write_text(LINE * 2)
    return str(file)


@pytest.fixture
def taking(fake: FakeRelay) -> FakeRelay:
    """A relay that takes batches."""
    fake.says(UPLOAD, FILE)
    fake.says(CREATE, Answer(batch("validating")))
    return fake


@pytest.fixture
def finished(fake: FakeRelay) -> FakeRelay:
    """A relay with a batch of which three requests were answered and one failed."""
    fake.says(LOOK, Answer(batch("completed", 3, 1, output_file_id="file-2", error_file_id="file-3")))
    fake.says("GET /v1/files/file-2/content", Answer(ANSWERS.encode()))
    fake.says("GET /v1/files/file-3/content", Answer(ERRORS))
    return fake


# ---- submit ----


def test_a_file_is_uploaded_and_its_batch_begun(faked: CommandLine, taking: FakeRelay, requests: str) -> None:
    outcome = faked("batch", "submit", requests, "--metadata", "for=tests", "--metadata", "a=b=c")
    assert (outcome.code, outcome.out) == (0, f"{ID}\n")
    assert f"corolla batch status {ID} --watch" in outcome.err
    upload, create = taking.asked
    assert LINE.encode() * 2 in upload.body
    assert b'name="purpose"\r\n\r\nbatch\r\n' in upload.body
    assert b'filename="requests.jsonl"' in upload.body
    body = msgspec.json.decode(create.body, type=BatchRequest)
    assert (body.input_file_id, body.endpoint) == ("file-1", "/v1/completions")
    assert body.metadata == {"for": "tests", "a": "b=c"}
    keys = [asked.headers["Idempotency-Key"] for asked in taking.asked]
    assert len(set(keys)) == 2
    assert {asked.headers["Authorization"] for asked in taking.asked} == {f"Bearer {taking.token}"}


@pytest.mark.parametrize(
    ("first", "options", "endpoint"),
    [
        (LINE, ["--endpoint", "/v1/embeddings"], "/v1/embeddings"),
        ("no JSON\n", [], "/v1/chat/completions"),
        ('{"custom_id": "a"}\n', [], "/v1/chat/completions"),
        ("", [], "/v1/chat/completions"),
    ],
)
def test_the_endpoint_is_what_is_said_or_what_the_first_line_says(
    first: str, options: list[str], endpoint: str, faked: CommandLine, taking: FakeRelay
) -> None:
    assert faked("batch", "submit", "-", *options, piped=first.encode()).code == 0
    upload, create = taking.asked
    assert first.encode() in upload.body
    assert create.json()["endpoint"] == endpoint


def test_an_upload_that_is_asked_for_again_is_whole(
    faked: CommandLine, fake: FakeRelay, requests: str
) -> None:
    fake.refuses(UPLOAD, Unavailable("away"), after="0")
    fake.says(UPLOAD, FILE)
    fake.says(CREATE, Answer(batch("validating")))
    assert faked("batch", "submit", requests, "--retry", "1", "--quiet").out == f"{ID}\n"
    first, second, _ = fake.asked
    assert LINE.encode() * 2 in first.body
    assert LINE.encode() * 2 in second.body
    assert first.headers["Idempotency-Key"] == second.headers["Idempotency-Key"]


@pytest.mark.parametrize("options", [[], ["--endpoint", "/v1/embeddings"]], ids=["first line", "told"])
def test_what_can_be_read_only_once_is_sent_as_often_as_it_takes(
    options: list[str],
    faked: CommandLine,
    fake: FakeRelay,
) -> None:
    """As in `corolla batch submit <(generate)`."""
    fake.refuses(UPLOAD, Unavailable("away"), after="0")
    fake.says(UPLOAD, FILE)
    fake.says(CREATE, Answer(batch("validating")))
    reading, writing = os.pipe()
    os.write(writing, LINE.encode() * 2)
    os.close(writing)
    with open(reading, "rb"):
        outcome = faked("batch", "submit", f"/dev/fd/{reading}", *options, "--retry", "1", "--quiet")
    assert (outcome.code, outcome.out) == (0, f"{ID}\n")
    *uploads, create = fake.asked
    assert [upload.body.count(LINE.encode()) for upload in uploads] == [2, 2]
    assert create.json()["endpoint"] == (options[1] if options else "/v1/completions")


def test_an_id_cannot_steer_a_terminal(faked: CommandLine, fake: FakeRelay) -> None:
    fake.says(UPLOAD, FILE)
    fake.says(CREATE, Answer(batch(id="\x1b[2J")))
    assert faked("batch", "submit", "-", "-q", piped=b"", is_terminal=True).out == "\\x1b[2J\n"


def test_a_file_that_is_not_there_is_wrong_usage(faked: CommandLine, fake: FakeRelay) -> None:
    outcome = faked("batch", "submit", "no such file")
    assert (outcome.code, fake.asked) == (ExitCode.USAGE, [])
    assert outcome.err == "corolla: no such file cannot be read: No such file or directory\n"


# ---- following ----


@pytest.mark.parametrize("arguments", [("submit", "-", "--wait"), ("status", ID, "--watch")])
def test_a_batch_is_followed_to_its_end(
    arguments: tuple[str, ...], faked: CommandLine, taking: FakeRelay
) -> None:
    taking.says(LOOK, Answer(batch("validating")), Answer(batch(done=1)), Answer(batch(done=1)))
    taking.says(LOOK, Answer(batch("completed", 4, output_file_id="file-2")))
    outcome = faked("batch", *arguments, *AT_ONCE, piped=b"")
    assert outcome.code == 0
    assert outcome.err.splitlines() == [
        f"{ID}: validating, 0 of 4",
        f"{ID}: in progress, 1 of 4",
        f"{ID}: completed, 4 of 4",
        f"to read its results: corolla batch results {ID}",
    ]


def test_a_terminal_shows_a_bar(faked: CommandLine, fake: FakeRelay) -> None:
    fake.says(LOOK, Answer(batch(done=1)), Answer(batch("completed", 4)))
    outcome = faked("batch", "status", ID, "--watch", *AT_ONCE, is_terminal=True)
    first, last = outcome.err.removeprefix("\r").removesuffix("\x1b[K\n").split("\x1b[K\r")
    assert first == f"[{'#' * 7}{'.' * 23}] in progress, 1 of 4"
    assert last == f"[{'#' * 30}] completed, 4 of 4"


def test_a_relay_that_is_away_for_a_moment_does_not_end_it(faked: CommandLine, fake: FakeRelay) -> None:
    fake.says(LOOK, Answer(batch()))
    fake.refuses(LOOK, Unavailable("restarting"), 2, after="0")
    fake.says(LOOK, Answer(batch("completed", 4)))
    outcome = faked("batch", "status", ID, "--watch", *AT_ONCE)
    assert (outcome.code, outcome.err.count("restarting")) == (0, 2)


@pytest.mark.parametrize(
    ("end", "told"),
    [
        (batch("completed", 3, 1), "1 of 4 requests failed"),
        (batch("expired", 3), "is expired"),
        (batch("cancelled", 3), "is cancelled"),
        (
            batch("failed", errors=BatchErrors(data=[BatchError(code="x", message="no JSON", line=7)])),
            "line 7: no JSON",
        ),
    ],
)
def test_a_batch_that_is_not_whole_is_a_failure(
    end: Batch, told: str, faked: CommandLine, fake: FakeRelay
) -> None:
    fake.says(LOOK, Answer(end))
    outcome = faked("batch", "status", ID, "--watch", "--quiet")
    assert (outcome.code, outcome.out, told in outcome.err) == (ExitCode.FAILED, "", True), outcome.err


def test_json_of_a_batch_that_is_followed_is_its_end(faked: CommandLine, fake: FakeRelay) -> None:
    fake.says(LOOK, Answer(batch()), Answer(batch("completed", 4)))
    outcome = faked("batch", "status", ID, "--watch", "--json", *AT_ONCE)
    assert outcome.json()["status"] == "completed"


def test_json_of_a_batch_that_is_waited_for_comes_last_and_its_id_at_once(
    faked: CommandLine, taking: FakeRelay
) -> None:
    taking.says(LOOK, Answer(batch("completed", 4)))
    outcome = faked("batch", "submit", "-", "--wait", "--json", *AT_ONCE, piped=b"")
    assert outcome.json()["status"] == "completed"
    assert outcome.err.splitlines()[0] == f"batch {ID} has begun"


@pytest.mark.parametrize("options", [[], ["--json"], ["--json", "--quiet"]], ids=str)
def test_whoever_stops_waiting_is_told_which_batch_goes_on(
    options: list[str], faked: CommandLine, taking: FakeRelay, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(batch_command, "watch", interrupt)
    outcome = faked("batch", "submit", "-", "--wait", *options, piped=b"")
    assert outcome.code == ExitCode.INTERRUPTED
    assert f"batch {ID} goes on: `corolla batch status {ID} --watch` follows it" in outcome.err
    assert f"`corolla batch cancel {ID}` stops it" in outcome.err


# ---- results ----


def test_results_are_answers_and_then_errors_each_on_a_line(faked: CommandLine, finished: FakeRelay) -> None:
    outcome = faked("batch", "results", ID)
    assert outcome.code == ExitCode.FAILED  # of one request
    assert outcome.out == f"{ANSWERS}\n{ERRORS.decode()}"
    assert f"batch {ID} is completed: 3 lines\n1 of 4 requests failed" in outcome.err


def test_results_cannot_steer_a_terminal(faked: CommandLine, finished: FakeRelay) -> None:
    shown = faked("batch", "results", ID, is_terminal=True).out.splitlines()
    assert all(line.isprintable() for line in shown)
    assert [json.loads(line) for line in shown] == [
        *map(json.loads, ANSWERS.splitlines()),
        json.loads(ERRORS),
    ]


def test_results_that_are_no_json_cannot_steer_it_either(faked: CommandLine, fake: FakeRelay) -> None:
    fake.says(LOOK, Answer(batch("completed", 4, output_file_id="file-2")))
    fake.says("GET /v1/files/file-2/content", Answer(b"\x1b[2J\xff"))
    assert faked("batch", "results", ID, is_terminal=True).out == "\\x1b[2J\ufffd\n"


@pytest.mark.parametrize(("only", "expected"), [("output", f"{ANSWERS}\n"), ("errors", ERRORS.decode())])
def test_one_of_the_two_is_enough(only: str, expected: str, faked: CommandLine, finished: FakeRelay) -> None:
    assert faked("batch", "results", ID, "--only", only).out == expected


def test_results_go_to_a_file(faked: CommandLine, finished: FakeRelay, tmp_path: Path) -> None:
    file = tmp_path / "results.jsonl"
    file.write_text("of yesterday")
    outcome = faked("batch", "results", ID, "-o", str(file))
    assert (outcome.out, f"3 lines in {file}" in outcome.err) == ("", True)
    assert file.read_text() == f"{ANSWERS}\n{ERRORS.decode()}"
    assert list(tmp_path.glob(".results*")) == []


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o666])
def test_a_file_keeps_who_may_read_it(
    mode: int, faked: CommandLine, finished: FakeRelay, tmp_path: Path
) -> None:
    file = tmp_path / "results.jsonl"
    file.touch()
    file.chmod(mode)
    faked("batch", "results", ID, "-o", str(file))
    assert (file.stat().st_mode & 0o777, file.stat().st_size > 0) == (mode, True)


@pytest.mark.parametrize("is_there", [True, False])
def test_a_link_stays_and_leads_to_the_results(
    is_there: bool, faked: CommandLine, finished: FakeRelay, tmp_path: Path
) -> None:
    folder, link = tmp_path / "elsewhere", tmp_path / "results.jsonl"
    folder.mkdir()
    if is_there:
        (folder / "file").touch(0o600)
    link.symlink_to(folder / "file")
    faked("batch", "results", ID, "-o", str(link))
    assert link.is_symlink()
    assert link.read_text().endswith(ERRORS.decode())
    assert [entry.name for entry in folder.iterdir()] == ["file"]


def test_what_is_no_file_is_written_to(faked: CommandLine, finished: FakeRelay, tmp_path: Path) -> None:
    """A pipe here; /dev/null is another."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with open(os.open(pipe, os.O_RDONLY | os.O_NONBLOCK), "rb") as reading:
        outcome = faked("batch", "results", ID, "-o", str(pipe))
        assert reading.read().endswith(ERRORS)
    assert (pipe.is_fifo(), "3 lines in" in outcome.err) == (True, True)


def test_a_folder_is_no_file_for_results(faked: CommandLine, finished: FakeRelay, tmp_path: Path) -> None:
    outcome = faked("batch", "results", ID, "-o", str(tmp_path))
    assert (outcome.code, "cannot be written: Is a directory" in outcome.err) == (ExitCode.USAGE, True)


def test_a_file_keeps_what_it_has_when_the_results_break_off(
    faked: CommandLine, fake: FakeRelay, tmp_path: Path
) -> None:
    fake.says(LOOK, Answer(batch("completed", 4, output_file_id="file-2")))
    broken = {"Content-Length": "1000", "Connection": "close"}
    fake.says("GET /v1/files/file-2/content", Answer(ANSWERS.encode(), headers=broken))
    file = tmp_path / "results.jsonl"
    file.write_text("of yesterday")
    outcome = faked("batch", "results", ID, "-o", str(file))
    assert (outcome.code, file.read_text()) == (ExitCode.UNREACHABLE, "of yesterday")
    assert list(tmp_path.glob(".results*")) == []


def test_no_folder_for_results_is_wrong_usage(
    faked: CommandLine, finished: FakeRelay, tmp_path: Path
) -> None:
    outcome = faked("batch", "results", ID, "-o", str(tmp_path / "nowhere" / "results"))
    assert (outcome.code, "cannot be written" in outcome.err) == (ExitCode.USAGE, True)


def test_results_come_at_the_end(faked: CommandLine, fake: FakeRelay) -> None:
    fake.says(LOOK, Answer(batch(done=1)))
    outcome = faked("batch", "results", ID)
    assert (outcome.code, outcome.out) == (ExitCode.FAILED, "")
    assert f"`corolla batch status {ID} --watch` waits for it" in outcome.err


# ---- the rest ----


def test_a_status_is_a_row(faked: CommandLine, fake: FakeRelay) -> None:
    usage = BatchUsage(input_tokens=1000, output_tokens=234, total_tokens=1234)
    fake.says(LOOK, Answer(batch(done=2, failed=1, usage=usage)))
    heading, row = faked("batch", "status", ID).out.splitlines()
    assert heading.split() == ["ID", "STATUS", "DONE", "FAILED", "TOTAL", "TOKENS", "CREATED", "ENDPOINT"]
    assert row.split("  ", 1)[0] == ID
    assert row.endswith("  in progress     2       1      4    1234  2023-11-14 22:13 UTC  /v1/completions")


def test_tokens_that_the_relay_does_not_know_are_not_shown_as_none(
    faked: CommandLine, fake: FakeRelay
) -> None:
    fake.says(LOOK, Answer(batch(done=2)))
    assert "     4       -  2023-11-14" in faked("batch", "status", ID).out


def test_a_batch_can_be_cancelled(faked: CommandLine, fake: FakeRelay) -> None:
    fake.says(f"POST /v1/batches/{ID}/cancel", Answer(batch("cancelling")))
    assert "cancelling" in faked("batch", "cancel", ID).out
    assert faked("batch", "cancel", ID, "--json").json()["status"] == "cancelling"


def test_a_list_goes_over_as_many_pages_as_it_needs(faked: CommandLine, fake: FakeRelay) -> None:
    pages = [BatchList(data=[batch(id=f"b{page}")], has_more=page < 3) for page in range(4)]
    fake.says("GET /v1/batches?limit=20", Answer(pages[0]))
    fake.says("GET /v1/batches?limit=19&after=b0", Answer(pages[1]))
    fake.says("GET /v1/batches?limit=18&after=b1", Answer(pages[2]))
    fake.says("GET /v1/batches?limit=17&after=b2", Answer(pages[3]))
    shown = faked("batch", "list").out.splitlines()
    assert [line.split()[0] for line in shown] == ["ID", "b0", "b1", "b2", "b3"]
    listed = faked("batch", "list", "--json").json()["data"]
    assert isinstance(listed, list)
    assert len(listed) == 4


def test_a_list_ends_where_it_is_told_to(faked: CommandLine, fake: FakeRelay) -> None:
    fake.says("GET /v1/batches?limit=1", Answer(BatchList(data=[batch()], has_more=True)))
    assert len(faked("batch", "list", "--limit", "1").out.splitlines()) == 2
    assert len(fake.asked) == 1


def test_no_batches_are_no_rows(faked: CommandLine, fake: FakeRelay) -> None:
    fake.says("GET /v1/batches?limit=20", Answer(BatchList(data=[])))
    outcome = faked("batch", "list")
    assert (outcome.code, outcome.out, outcome.err) == (0, "", "There are no batches.\n")


def test_an_id_is_one_part_of_a_path(faked: CommandLine, fake: FakeRelay) -> None:
    fake.refuses("GET /v1/batches/..%2Fmodels%3Fx", NotFound("there is no batch '../models?x'"))
    outcome = faked("batch", "status", "../models?x")
    assert (outcome.code, "there is no batch" in outcome.err) == (ExitCode.FAILED, True)
