"""/jobs: a file is checked, uploaded, watched, cancelled and read, at a real relay that nobody has joined."""

import asyncio
import json
import re
from typing import Any

import pytest
from playwright.async_api import FilePayload, Page, expect
from starlette.requests import Request
from starlette.responses import HTMLResponse

from benchmarks.processes import RelayProcess
from tests.conftest import DEMO_MODEL
from tests.web.axe import violations
from tests.web.page_objects import sign_in, view_as
from tests.web.scripted_swarm import ScriptedSwarm

pytestmark = [pytest.mark.browser, pytest.mark.asyncio(loop_scope="session")]


def line(name: str, **changes: Any) -> str:
    body = {"model": DEMO_MODEL, "prompt": "Once", "max_tokens": 2}
    fields = {"custom_id": name, "method": "POST", "url": "/v1/completions", "body": body}
    return json.dumps(fields | changes)


def file_of(*lines: str, name: str = "lines.jsonl") -> FilePayload:
    return {"name": name, "mimeType": "application/jsonl", "buffer": "\n".join(lines).encode()}


async def test_a_job_is_begun_cancelled_and_its_errors_read_by_line(
    browser_page: Page, closed_relay: RelayProcess
) -> None:
    await sign_in(browser_page, closed_relay.url, "/jobs", closed_relay.token("client", "Ada"))
    await expect(browser_page.get_by_text("None yet.")).to_be_visible()
    await browser_page.get_by_label("Choose a file").set_input_files(file_of(line("a"), "", line("b")))
    await expect(browser_page.get_by_text("2 lines, ").first).to_contain_text("Nothing is wrong with them.")
    await browser_page.get_by_role("button", name="Upload and begin").click()
    job = browser_page.get_by_role("region", name="Your jobs").get_by_role("listitem")
    await expect(job.get_by_role("heading", name="lines.jsonl")).to_be_visible()
    await expect(job).to_contain_text("0 of 2 lines answered")  # nobody has joined: they wait
    await job.get_by_role("button", name="Cancel").click()
    await expect(job).to_contain_text("Cancelled", timeout=15_000)
    await job.get_by_role("button", name="Errors by line").click()
    errors = job.get_by_role("list", name="What was wrong, by line").get_by_role("listitem")
    await expect(errors).to_contain_text([re.compile("Line 1a: .*cancelled"), re.compile("Line 3b: ")])
    async with browser_page.expect_download() as waiting:
        await job.get_by_role("link", name="Errors").click()
    download = await waiting.value
    assert len((await download.path()).read_text().splitlines()) == 2
    files = browser_page.get_by_role("table")
    await expect(files.get_by_role("row")).to_have_count(3)
    delete = browser_page.get_by_role("button", name="Delete lines.jsonl")
    await delete.click()
    await expect(
        browser_page.get_by_role("status").filter(has_text="Really delete lines.jsonl?")
    ).to_be_attached()
    await browser_page.get_by_role("button", name="Really delete? lines.jsonl").click()
    await expect(files.get_by_role("row")).to_have_count(2)
    await browser_page.get_by_role("button", name="Sign out").click()
    await expect(browser_page.get_by_label("Access token")).to_be_focused()


async def test_mistakes_are_told_with_their_lines_and_nothing_is_uploaded(
    browser_page: Page, played: ScriptedSwarm
) -> None:
    played.answers["GET", "/v1/batches"] = {"data": []}
    played.answers["GET", "/v1/files"] = {"data": []}
    played.answers["GET", "/api/models"] = {"models": [{"id": DEMO_MODEL}]}
    await played.open(browser_page, "/jobs")
    chooser = browser_page.get_by_label("Choose a file")
    await chooser.set_input_files(file_of(line("a"), "{", line("a"), line("b", method="GET")))
    await expect(browser_page.get_by_text("3 lines would be refused").first).to_be_visible()
    problems = browser_page.get_by_role("list", name="What is wrong, by line").get_by_role("listitem")
    await expect(problems).to_contain_text(["Line 2", "Line 3Line 1 has the same", "Line 4"])
    await expect(browser_page.get_by_role("button", name="Upload and begin")).to_be_disabled()
    await chooser.set_input_files(file_of(line("a", body={"model": "no-such-model"})))
    await expect(browser_page.get_by_text("1 line would fail: it names")).to_be_visible()
    await browser_page.get_by_role("button", name="Not this one").click()
    await expect(browser_page.get_by_role("button", name="Upload and begin")).to_be_hidden()
    assert played.asked == []


async def test_models_that_are_known_late_are_compared_with_the_file_all_the_same(
    browser_page: Page, played: ScriptedSwarm
) -> None:
    known = asyncio.Event()

    async def models(_: Request) -> dict[str, Any]:
        await known.wait()
        return {"models": [{"id": DEMO_MODEL}]}

    played.answers["GET", "/v1/batches"] = {"data": []}
    played.answers["GET", "/v1/files"] = {"data": []}
    played.answers["GET", "/api/models"] = models
    await played.open(browser_page, "/jobs")
    chosen = file_of(line("a", body={"model": "no-such-model"}))
    await browser_page.get_by_label("Choose a file").set_input_files(chosen)
    await expect(browser_page.get_by_text("Nothing is wrong with them.").first).to_be_visible()
    known.set()
    await expect(browser_page.get_by_text("1 line would fail: it names")).to_be_visible()


async def test_a_file_that_is_dropped_is_checked_too(browser_page: Page, played: ScriptedSwarm) -> None:
    played.answers["GET", "/v1/batches"] = {"data": []}
    played.answers["GET", "/v1/files"] = {"data": []}
    await played.open(browser_page, "/jobs")
    await expect(browser_page.get_by_text("None yet.")).to_be_visible()
    dropped = await browser_page.evaluate_handle(
        "text => { const data = new DataTransfer();"
        " data.items.add(new File([text], 'dropped.jsonl')); return data; }",
        line("a"),
    )
    await browser_page.dispatch_event("#drop", "drop", {"dataTransfer": dropped})
    await expect(browser_page.get_by_text("dropped.jsonl")).to_be_visible()
    await expect(browser_page.get_by_role("button", name="Upload and begin")).to_be_enabled()


async def test_a_refused_upload_says_why_and_can_be_tried_again(
    browser_page: Page, played: ScriptedSwarm
) -> None:
    played.answers["GET", "/v1/batches"] = {"data": []}
    played.answers["GET", "/v1/files"] = {"data": []}
    await played.open(browser_page, "/jobs")
    await browser_page.get_by_label("Choose a file").set_input_files(file_of(line("a")))
    begin = browser_page.get_by_role("button", name="Upload and begin")
    await begin.click()
    await expect(browser_page.get_by_text("There is nothing here.").first).to_be_visible()
    played.answers["POST", "/v1/files"] = {"id": "file-1"}
    played.answers["POST", "/v1/batches"] = {"id": "batch_1"}
    await begin.click()
    await expect(begin).to_be_hidden()
    body = {"input_file_id": "file-1", "endpoint": "/v1/completions", "completion_window": "24h"}
    assert played.asked[-1] == ("POST", "/v1/batches", body)


async def test_another_file_takes_the_place_of_one_that_is_uploaded(
    browser_page: Page, played: ScriptedSwarm
) -> None:
    """What becomes of the first one's upload does not touch the second."""
    played.answers["GET", "/v1/batches"] = {"data": []}
    played.answers["GET", "/v1/files"] = {"data": []}
    played.answers["POST", "/v1/batches"] = {"id": "batch_1"}
    asked, answer = asyncio.Event(), asyncio.Event()

    async def keep(_: Request) -> dict[str, Any]:
        asked.set()
        await answer.wait()
        return {"id": "file-1"}

    played.answers["POST", "/v1/files"] = keep
    await played.open(browser_page, "/jobs")
    chooser = browser_page.get_by_label("Choose a file")
    await chooser.set_input_files(file_of(line("a"), name="first.jsonl"))
    begin = browser_page.get_by_role("button", name="Upload and begin")
    await begin.click()
    await asked.wait()
    await chooser.set_input_files(file_of(line("b"), name="second.jsonl"))
    await expect(begin).to_be_enabled()
    answer.set()
    played.answers["POST", "/v1/files"] = {"id": "file-2"}
    await expect(browser_page.get_by_text("second.jsonl")).to_be_visible()
    await begin.click()
    await expect(begin).to_be_hidden()
    begun = [body["input_file_id"] for _, path, body in played.asked if path == "/v1/batches"]
    assert begun == ["file-2"]


async def test_an_upload_that_is_answered_by_no_relay_is_said_to_have_failed(
    browser_page: Page, played: ScriptedSwarm
) -> None:
    played.answers["GET", "/v1/batches"] = {"data": []}
    played.answers["GET", "/v1/files"] = {"data": []}
    played.answers["POST", "/v1/files"] = HTMLResponse("<p>a proxy's page</p>")
    await played.open(browser_page, "/jobs")
    await browser_page.get_by_label("Choose a file").set_input_files(file_of(line("a")))
    begin = browser_page.get_by_role("button", name="Upload and begin")
    await begin.click()
    await expect(browser_page.locator("#chosen-words")).to_contain_text("answer is not understood")
    await expect(begin).to_be_enabled()


async def test_whoever_deletes_a_file_by_keyboard_goes_on_with_the_next(
    browser_page: Page, played: ScriptedSwarm
) -> None:
    played.answers["GET", "/v1/batches"] = {"data": []}
    stored = {"bytes": 5, "created_at": 1, "purpose": "batch"}
    kept = [stored | {"id": name, "filename": f"{name}.jsonl"} for name in ("one", "two")]

    async def delete(_: Request) -> dict[str, Any]:
        return kept.pop(0)

    async def listed(_: Request) -> dict[str, Any]:
        return {"data": kept}

    played.answers["GET", "/v1/files"] = listed
    played.answers["DELETE", "/v1/files/one"] = delete
    await played.open(browser_page, "/jobs")
    await browser_page.get_by_role("button", name="Delete one.jsonl").press("Enter")
    sure = browser_page.get_by_role("button", name="Really delete? one.jsonl")
    await sure.press("Enter")
    await expect(sure).to_have_count(0)
    await expect(browser_page.get_by_role("button", name="Delete two.jsonl")).to_be_focused()


def batch(name: str, status: str, total: int, completed: int, failed: int, **changes: Any) -> dict[str, Any]:
    times = ("completed_at", "cancelled_at", "expired_at", "failed_at")
    counts = {"total": total, "completed": completed, "failed": failed}
    shown = {
        "id": name,
        "endpoint": "/v1/completions",
        "status": status,
        "input_file_id": "file-1",
        "created_at": 1_800_000_000,
        "in_progress_at": 1_800_000_001,
        "expires_at": 1_800_086_400,
        "request_counts": counts,
    }
    missing = dict.fromkeys(("errors", "output_file_id", "error_file_id", *times))
    return missing | shown | changes


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1280])
async def test_nothing_stands_in_anybodys_way(
    browser_page: Page, played: ScriptedSwarm, width: int, scheme: str
) -> None:
    await view_as(browser_page, width, scheme)
    refused = {"data": [{"code": "invalid_json_line", "message": "the line is not JSON", "line": 7}]}
    ended = {"output_file_id": "file-2", "error_file_id": "file-3", "completed_at": 1_800_000_100}
    played.answers["GET", "/v1/batches"] = {
        "data": [
            batch("batch_1", "in_progress", 500, 120, 3),
            batch("batch_2", "completed", 500, 490, 10, **ended),
            batch("batch_3", "failed", 0, 0, 0, errors=refused, failed_at=1_800_000_002),
        ]
    }
    played.answers["GET", "/v1/batches/batch_3"] = batch("batch_3", "failed", 0, 0, 0, errors=refused)
    stored = {
        "id": "file-1",
        "filename": "a-rather-long-name-" * 4,
        "bytes": 5,
        "created_at": 1,
        "purpose": "batch",
    }
    played.answers["GET", "/v1/files"] = {"data": [stored]}
    await played.open(browser_page, "/jobs")
    await browser_page.get_by_label("Choose a file").set_input_files(file_of("{", "{"))
    await expect(browser_page.get_by_text("2 lines would be refused").first).to_be_visible()
    await browser_page.get_by_role("button", name="Errors by line").last.click()
    await expect(browser_page.get_by_text("the line is not JSON").last).to_be_visible()
    await browser_page.get_by_text("What a file looks like").click()
    assert await violations(browser_page) == []
    assert await browser_page.evaluate("document.documentElement.scrollWidth") == width
