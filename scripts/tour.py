"""Takes the pictures of docs/tour.md and the README: `python -m scripts.tour`.

A relay and three volunteers with the demonstration model, and a real Chromium in which an operator asks,
looks around, has a file answered and makes a key. Pictures are of the pages as they are then. It takes some
minutes, as the swarm's figures over time need something to show.
"""

import json
import sys
import time
from pathlib import Path

from playwright.sync_api import BrowserContext, Page, sync_playwright

from benchmarks.chromium import ARGUMENTS, find_chromium
from benchmarks.processes import RelayProcess, relay, volunteers
from scripts.reference import DOCS

MODEL = "corolla-demo"
SPANS = {"rose": "0:4", "iris": "4:8", "lily": "8:12"}
QUESTIONS = ("What is Corolla?", "Tell me a short story about a fox.")
TOUR = DOCS / "tour"
WIDE, TALL, PHONE = (1200, 760), (1200, 1180), (390, 780)
PATIENCE_MS = 120_000
BUSY_SECONDS, PAUSE_SECONDS = 250.0, 4.0
"""How long scripts ask before the swarm's picture is taken, and what they rest after each reply."""


def main() -> int:
    TOUR.mkdir(exist_ok=True)
    with (
        relay(MODEL, LOG_LEVEL="WARNING", OPEN_JOIN="true") as server,
        volunteers(server, SPANS),
        sync_playwright() as playwright,
    ):
        kind = playwright.chromium
        browser = kind.launch(executable_path=find_chromium(kind.executable_path), args=ARGUMENTS)
        context = browser.new_context(color_scheme="light", base_url=server.url)
        context.set_default_timeout(PATIENCE_MS)
        page = context.new_page()
        sign_in(context, server)
        show_chat(page)
        keep_busy(context, server)
        show_swarm(page)
        show_own(context, page)
        show_dark(page)
        browser.close()
    return 0


def sign_in(context: BrowserContext, server: RelayProcess) -> None:
    """As an operator, who sees every page."""
    token = server.token("admin", "Ada")
    answer = context.request.post(
        "/api/session", data={"token": token}, headers={"Origin": server.url}, fail_on_status_code=True
    )
    answer.dispose()


def show_chat(page: Page) -> None:
    resize(page, WIDE)
    page.goto("/")
    for number, question in enumerate(QUESTIONS, start=1):
        page.get_by_placeholder("Ask anything").fill(question)
        page.locator("#send").click()
        page.get_by_text("tokens/s").nth(number - 1).wait_for()
    page.screenshot(path=DOCS / "screenshot.png")
    page.get_by_role("button", name="Where the time went").last.click()
    page.get_by_text("A step, the mean of").wait_for()
    page.get_by_text("on the way").last.scroll_into_view_if_needed()
    take(page, "time")


def keep_busy(context: BrowserContext, server: RelayProcess) -> None:
    """Has replies written as scripts do, for some minutes."""
    headers = {"Authorization": f"Bearer {server.token('client', 'a script')}"}
    until = time.monotonic() + BUSY_SECONDS
    while time.monotonic() < until:
        for question in QUESTIONS:
            asked = {"model": MODEL, "messages": [{"role": "user", "content": question}]}
            answer = context.request.post(
                "/v1/chat/completions", data=asked, headers=headers, fail_on_status_code=True
            )
            answer.dispose()
            time.sleep(PAUSE_SECONDS)


def show_swarm(page: Page) -> None:
    resize(page, TALL)
    page.goto("/swarm")
    page.get_by_text("Live", exact=True).wait_for()
    page.get_by_role("link", name="rose").first.wait_for()
    page.get_by_role("figure").first.wait_for()
    take(page, "swarm")
    page.get_by_role("link", name="rose").first.click()
    page.get_by_role("heading", name="rose").wait_for()
    page.get_by_text("What weighs most").or_(page.get_by_text("newcomers have")).wait_for()
    take(page, "volunteer")


def show_own(context: BrowserContext, page: Page) -> None:
    resize(page, WIDE)
    page.goto("/join")
    page.get_by_role("button", name="Make a token").wait_for()
    take(page, "join")
    page.goto("/jobs")
    page.get_by_label("Choose a file").set_input_files(
        {"name": "questions.jsonl", "mimeType": "application/jsonl", "buffer": lines().encode()}
    )
    page.get_by_role("button", name="Upload and begin").click()
    page.get_by_role("button", name="Errors by line").wait_for()
    take(page, "jobs")
    key = {"kind": "client", "name": "evaluation", "tokens_a_day": 100_000}
    origin = page.evaluate("location.origin")
    made = context.request.post("/api/tokens", data=key, headers={"Origin": origin}, fail_on_status_code=True)
    made.dispose()
    page.goto("/keys")
    page.get_by_text("evaluation").first.wait_for()
    take(page, "keys")
    page.goto("/operators")
    page.get_by_text("rose").first.wait_for()
    take(page, "operators")


def show_dark(page: Page) -> None:
    page.emulate_media(color_scheme="dark")
    resize(page, PHONE)
    page.goto("/")
    page.get_by_text("tokens/s").last.wait_for()
    take(page, "phone")
    resize(page, TALL)
    page.goto("/swarm")
    page.get_by_role("link", name="rose").first.wait_for()
    take(page, "swarm-dark")


def lines() -> str:
    """A file of questions, the last of which no model here can answer."""
    bodies = [
        {"model": MODEL, "prompt": prompt, "max_tokens": 12} for prompt in ("Once upon", "1 2 3", "A fox")
    ]
    bodies.append({"model": "nobody-serves-this", "prompt": "", "max_tokens": 1})
    return "\n".join(
        json.dumps({"custom_id": f"line-{number}", "method": "POST", "url": "/v1/completions", "body": body})
        for number, body in enumerate(bodies, start=1)
    )


def resize(page: Page, size: tuple[int, int]) -> None:
    page.set_viewport_size({"width": size[0], "height": size[1]})


def take(page: Page, name: str) -> None:
    path: Path = TOUR / f"{name}.png"
    page.screenshot(path=path, animations="disabled")
    print(path.relative_to(DOCS.parent), flush=True)


if __name__ == "__main__":
    sys.exit(main())
