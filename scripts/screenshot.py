"""Takes the README's picture: `python -m scripts.screenshot`.

A relay and three volunteers with the demonstration model, a question typed into a real Chromium, and
the page as it is when the reply is complete.
"""

import shutil
import sys

from playwright.sync_api import sync_playwright

from benchmarks.processes import relay, volunteers
from scripts.reference import DOCS

SPANS = {"rose": "0:4", "iris": "4:8", "lily": "8:12"}
QUESTIONS = ("What is Corolla?", "Tell me a short story about a fox.")
NAMES = ("chromium", "chromium-browser", "google-chrome")
FLAGS = ["--disable-gpu", "--disable-quic", "--disable-background-networking", "--disable-component-update"]


def main() -> int:
    chromium = next((path for name in NAMES if (path := shutil.which(name))), None)
    with (
        relay("corolla-demo", LOG_LEVEL="WARNING") as server,
        volunteers(server, SPANS),
        sync_playwright() as playwright,
    ):
        browser = playwright.chromium.launch(executable_path=chromium, chromium_sandbox=False, args=FLAGS)
        page = browser.new_page(viewport={"width": 1200, "height": 760}, color_scheme="light")
        page.goto(server.url)
        for number, question in enumerate(QUESTIONS, start=1):
            page.get_by_placeholder("Ask anything").fill(question)
            page.locator("#send").click()
            page.get_by_text("tokens/s").nth(number - 1).wait_for()
        page.screenshot(path=DOCS / "screenshot.png")
        browser.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
