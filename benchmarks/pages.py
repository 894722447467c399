"""What the chat page costs: bytes, time until a question can be asked, scrolling, typing under a stream.

    python -m benchmarks.pages [--full]

A real relay serves the page to a real Chromium; the relay's end of the page's WebSocket is played here: a
model that is complete, and a reply at 200 tokens a second. Loads are by new profiles, so that nothing is
cached. The long conversation has 2,000 messages, with lists, code and tables, and each of them is drawn.
"""

import argparse
import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from playwright.async_api import Browser, Page, WebSocketRoute, async_playwright

from benchmarks import long_chat
from benchmarks.chromium import ARGUMENTS, find_chromium
from benchmarks.processes import relay
from benchmarks.report import Bar, Report, Spread
from schema.browser import Chat, PageWelcome, ReplyDelta, ToPage, decode_from_page, encode_to_page
from schema.swarm import ModelStatus, SwarmStatus, VolunteerStatus

MODEL = "petal-12b"
VOLUNTEER = VolunteerStatus(
    id="rosa", name="rosa", state="serving", device="CPU", model=MODEL, start=0, end=12, head=True
)
SWARM = SwarmStatus(
    models=[ModelStatus(id=MODEL, blocks=12, context=1024, complete=True, heads=1)], volunteers=[VOLUNTEER]
)
LOADS, FRAMES, KEYS = 5, 240, 100
FULL = 3
"""Times as much of everything."""


class PlayedRelay:
    """The relay's end of a page's WebSocket."""

    def __init__(self) -> None:
        self._socket: WebSocketRoute | None = None
        self._asked: asyncio.Queue[Chat] = asyncio.Queue()

    def accept(self, socket: WebSocketRoute) -> None:
        self._socket = socket
        socket.on_message(self._take)
        self.say(PageWelcome(software="benchmark", swarm=SWARM))

    def say(self, message: ToPage) -> None:
        if self._socket is None:
            raise RuntimeError("the page has not connected")
        self._socket.send(encode_to_page(message))

    async def asked(self) -> str:
        """The id of the next reply that the page asks for."""
        return (await self._asked.get()).id

    def _take(self, text: str | bytes) -> None:
        message = decode_from_page(text)
        if isinstance(message, Chat):
            self._asked.put_nowait(message)


@asynccontextmanager
async def opened(browser: Browser) -> AsyncIterator[tuple[Page, PlayedRelay]]:
    """A page of a profile of its own, blank still."""
    context = await browser.new_context(viewport={"width": 1280, "height": 800})
    page, played = await context.new_page(), PlayedRelay()
    await page.route_web_socket("**/ws/chat", played.accept)
    await long_chat.watch_readiness(page)
    yield page, played
    await context.close()


async def load(browser: Browser, url: str) -> tuple[float, float, int]:
    """Milliseconds until a question can be typed and sent; bytes, and files."""
    async with opened(browser) as (page, _):
        session = await page.context.new_cdp_session(page)
        await session.send("Network.enable")
        sizes: list[float] = []
        session.on("Network.loadingFinished", lambda event: sizes.append(event["encodedDataLength"]))
        await page.goto(url)
        ready = await long_chat.ready_at(page)
        await page.wait_for_load_state("networkidle")
        return ready, sum(sizes), len(sizes)


async def long_conversation(browser: Browser, url: str, times: int, report: Report) -> None:
    async with opened(browser) as (page, played):
        session = await long_chat.watch_performance(page)
        await page.goto(url)
        await long_chat.ready_at(page)
        report.figures["ready_script_ms"] = await long_chat.script_milliseconds(session)
        report.figures["unit_ms"] = await long_chat.unit_milliseconds(page)
        await long_chat.keep_long(page)
        await page.reload()
        report.figures["long_ready_ms"] = await long_chat.ready_at(page)
        await long_chat.wait_until_whole(page)
        await scroll(page, FRAMES * times, report)
        await type_under_a_stream(page, played, KEYS * times, report)


async def scroll(page: Page, frames: int, report: Report) -> None:
    session = await long_chat.watch_performance(page)
    before = await long_chat.script_milliseconds(session)
    seconds = await long_chat.scroll(page, frames)
    each = (await long_chat.script_milliseconds(session) - before) / frames
    report.figures["drawn_turns"] = await long_chat.drawn_turns(page)
    report.bars.append(Bar("script a frame while 2,000 messages scroll, ms", each, "<=", 10.0))
    report.bars.append(Bar("frames a second meanwhile", frames / seconds, ">=", 59.0))
    print(f"scrolling: {frames / seconds:.1f} frames/s, {each:.2f} ms of script a frame", flush=True)


async def type_under_a_stream(page: Page, played: PlayedRelay, keys: int, report: Report) -> None:
    question = page.locator("#question")
    await question.fill("Go on.")
    await question.press("Enter")
    reply = await played.asked()
    await long_chat.watch_keys(page)
    for key in range(keys):
        for word in long_chat.next_words(key):
            played.say(ReplyDelta(id=reply, text=word))
        await page.keyboard.press("a", delay=1000 * long_chat.TOKENS_A_KEY / long_chat.TOKENS_A_SECOND)
    delays = await long_chat.key_delays(page, keys)
    p95 = delays[int(0.95 * keys) - 1]
    report.bars.append(Bar("input delay while 200 tokens/s stream, p95, ms", p95, "<=", 50.0))
    print(f"typing: {p95:.0f} ms at the 95th percentile, {delays[-1]:.0f} ms at most", flush=True)


async def measure(url: str, times: int, report: Report) -> None:
    async with async_playwright() as playwright:
        path = find_chromium(playwright.chromium.executable_path)
        browser = await playwright.chromium.launch(executable_path=path, args=ARGUMENTS)
        report.figures["browser"] = browser.version
        loads = [await load(browser, url) for _ in range(LOADS * times)]
        ready = Spread.of([one[0] for one in loads])
        report.figures["ready_ms"], report.figures["files"] = ready, loads[0][2]
        report.bars.append(
            Bar("first load, kB over the wire", max(one[1] for one in loads) / 1000, "<=", 150.0)
        )
        report.bars.append(Bar("until a question can be asked, median, ms", ready.median, "<=", 1000.0))
        spread = f"{ready.median:.0f} ms ({ready.low:.0f} to {ready.high:.0f})"
        print(f"loading: {spread}, {loads[0][1] / 1000:.0f} kB in {loads[0][2]} files", flush=True)
        await long_conversation(browser, url, times, report)
        await browser.close()


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--full", action="store_true", help=f"{FULL} times as much of everything")
    full: bool = parser.parse_args().full
    report = Report("pages", full)
    with relay(MODEL, LOG_LEVEL="WARNING") as server:
        asyncio.run(measure(server.url, FULL if full else 1, report))
    report.print_last_line()
    return 0


if __name__ == "__main__":
    sys.exit(main())
