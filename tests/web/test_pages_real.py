"""The pages with volunteers that serve the demo model: what is shown of them, and a job that they answer."""

import json
import re

import pytest
from playwright.async_api import FilePayload, Page, expect

from tests.conftest import DEMO_MODEL, DEMO_SPANS, Swarm
from tests.web.page_objects import sign_in

pytestmark = [pytest.mark.browser, pytest.mark.asyncio(loop_scope="session")]

ANSWER_MS = 180_000


async def test_a_swarm_is_shown_with_its_volunteers(browser_page: Page, swarm: Swarm) -> None:
    await browser_page.goto(f"{swarm.url}/swarm")
    health = browser_page.get_by_role("region", name="The swarm").get_by_role("paragraph")
    await expect(health).to_contain_text("answers, held by 3 volunteers")
    rows = browser_page.get_by_role("list", name="Volunteers and their blocks").get_by_role("listitem")
    await expect(rows).to_have_count(3)
    name = next(iter(DEMO_SPANS))
    row = rows.filter(has_text=name)
    await expect(row).to_contain_text("Serving")
    await row.get_by_role("link").click()
    await expect(browser_page.get_by_role("heading", name=name, level=1)).to_be_focused()
    now = browser_page.get_by_role("region", name="Now")
    await expect(now).to_contain_text("Blocks 0\N{EN DASH}3 and head of corolla-demo")
    await expect(browser_page.get_by_role("region", name="Reputation")).to_contain_text("%")
    await browser_page.get_by_role("link", name="The swarm", exact=True).click()
    await expect(rows).to_have_count(3)


async def test_a_job_is_answered_and_its_results_downloaded(browser_page: Page, swarm: Swarm) -> None:
    """With a line that fails: the others do not."""
    await sign_in(browser_page, swarm.url, "/jobs", swarm.client_token)
    asked = {"model": DEMO_MODEL, "prompt": "Once", "max_tokens": 2}
    lines = [
        {"custom_id": name, "method": "POST", "url": "/v1/completions", "body": asked | more}
        for name, more in (("first", {}), ("second", {"max_tokens": -1}), ("third", {}))
    ]
    content = "\n".join(map(json.dumps, lines)).encode()
    file: FilePayload = {"name": "three.jsonl", "mimeType": "application/jsonl", "buffer": content}
    await browser_page.get_by_label("Choose a file").set_input_files(file)
    await browser_page.get_by_role("button", name="Upload and begin").click()
    jobs = browser_page.get_by_role("region", name="Your jobs").get_by_role("listitem")
    job = jobs.filter(has_text="three.jsonl")  # other tests' jobs are this person's too
    await expect(job).to_contain_text("Done, with errors", timeout=ANSWER_MS)
    await expect(job).to_contain_text("2 of 3 lines answered, 1 failed")
    async with browser_page.expect_download() as waiting:
        await job.get_by_role("link", name="Results").click()
    results = (await (await waiting.value).path()).read_text().splitlines()
    assert [json.loads(line)["custom_id"] for line in results] == ["first", "third"]
    await job.get_by_role("button", name="Errors by line").click()
    errors = job.get_by_role("list", name="What was wrong, by line").get_by_role("listitem")
    await expect(errors).to_contain_text([re.compile("Line 2second: HTTP 400")])
