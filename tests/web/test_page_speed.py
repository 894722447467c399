"""What the page costs: bytes over the wire, and the browser's time. The relay's end is played by the test.

Times are compared with budgets that the page has to keep on a person's machine, and are measured on whatever
runs the tests: they are those of the page's own work, not of the clock, wherever that can be told apart.
"""

import json

import pytest
from playwright.async_api import CDPSession, Page, expect

from tests.web.page_objects import ChatPage
from tests.web.scripted import ScriptedRelay

pytestmark = [pytest.mark.browser, pytest.mark.asyncio(loop_scope="session")]

FIRST_LOAD_BYTES = 150_000
TURNS = 1000
FRAME_SCRIPT_MS = 10.0
INPUT_DELAY_MS = 50.0
TOKENS_A_SECOND = 200

TEXT = """Petals close at **dusk**, as their *outer* cells grow faster.

1. Light falls
2. Cells swell

```python
def closes(light: float) -> bool:
    return light < 0.3
```

| Flower | Closes |
|---|---|
| Tulip | dusk |
"""

KEEP_LONG = """async ([count, text]) => {
  const turns = Array.from({ length: count }, (_, index) => ({
    id: `t${index}`, parent: index === 0 ? null : `t${index - 1}`, question: `Question ${index}?`,
    created: index,
    reply: { id: `r${index}`, model: 'petal-12b', phase: 'done', text: `Answer ${index}. ${text}`, base: 0,
      started: index, reason: 'stop', usage: null, timing: null, error: null },
  }));
  const info = { id: 'long', title: 'A long one', titled: 1, created: 1, updated: Date.now(), touched: 1,
    deleted: 0, model: null, settings: { temperature: 0.7, top_p: 0.95, top_k: 0, min_p: 0,
      repetition_penalty: 1, presence_penalty: 0, frequency_penalty: 0, max_tokens: null, seed: null,
      stop: '', system: '' },
    leaf: `t${count - 1}` };
  const database = await new Promise((resolve) => {
    const request = indexedDB.open('corolla');
    request.onsuccess = () => resolve(request.result);
  });
  const transaction = database.transaction(['conversations', 'turns'], 'readwrite');
  transaction.objectStore('conversations').put(info);
  for (const turn of turns) transaction.objectStore('turns').put({ conversation: 'long', turn });
  await new Promise((resolve) => { transaction.oncomplete = resolve; });
  database.close();
  sessionStorage.setItem('corolla.open', '"long"');
}"""

SCROLL = """async ([frames, step]) => {
  const scroller = document.getElementById('scroller');
  for (let frame = 0; frame < frames; frame += 1) {
    scroller.scrollTop -= step;
    await new Promise(requestAnimationFrame);
  }
}"""


async def open_long(scripted: ScriptedRelay) -> ChatPage:
    """The page with a conversation of 2,000 messages on it."""
    chat = await scripted.open()
    await scripted.page.evaluate(KEEP_LONG, [TURNS, TEXT])
    await scripted.page.reload()
    await expect(chat.text).to_contain_text(f"Answer {TURNS - 1}.")
    return chat


async def script_seconds(session: CDPSession) -> float:
    """How long the page's scripts have run so far."""
    metrics = (await session.send("Performance.getMetrics"))["metrics"]
    return next(one["value"] for one in metrics if one["name"] == "ScriptDuration")


async def watch_performance(page: Page) -> CDPSession:
    session = await page.context.new_cdp_session(page)
    await session.send("Performance.enable")
    return session


async def test_the_first_load_stays_within_its_bytes(scripted: ScriptedRelay) -> None:
    session = await scripted.page.context.new_cdp_session(scripted.page)
    await session.send("Network.enable")
    sizes: list[float] = []
    session.on("Network.loadingFinished", lambda event: sizes.append(event["encodedDataLength"]))
    chat = await scripted.open()
    await expect(chat.send).to_be_visible()
    assert sum(sizes) <= FIRST_LOAD_BYTES, f"{sum(sizes):.0f} bytes in {len(sizes)} files"


async def test_a_second_load_sends_no_file_again(scripted: ScriptedRelay) -> None:
    chat = await scripted.open()
    await expect(chat.send).to_be_visible()
    statuses: list[int] = []
    scripted.page.on("response", lambda response: statuses.append(response.status))
    await scripted.page.reload()
    await expect(chat.send).to_be_visible()
    sent = await scripted.page.evaluate(
        "() => performance.getEntriesByType('resource').filter((one) => one.name.includes('/static/'))"
        ".reduce((sum, one) => sum + (one.transferSize > 300 ? one.transferSize : 0), 0)"
    )
    assert sent == 0


async def test_a_long_conversation_is_there_from_its_end_and_is_found_by_the_browser(
    scripted: ScriptedRelay,
) -> None:
    chat = await open_long(scripted)
    await expect(chat.last).to_be_in_viewport()
    await expect(chat.turns).to_have_count(TURNS)
    await expect(chat.turns.first).to_contain_text("Answer 0.", timeout=30_000)


async def test_a_long_conversation_scrolls_with_little_script(scripted: ScriptedRelay) -> None:
    chat = await open_long(scripted)
    await expect(chat.turns.first).to_contain_text("Answer 0.", timeout=30_000)
    session = await watch_performance(scripted.page)
    frames = 120
    before = await script_seconds(session)
    await scripted.page.evaluate(SCROLL, [frames, 400])
    each = 1000 * (await script_seconds(session) - before) / frames
    assert each <= FRAME_SCRIPT_MS, f"{each:.1f} ms of script a frame"


async def test_typing_stays_prompt_while_a_reply_streams(scripted: ScriptedRelay) -> None:
    chat = await open_long(scripted)
    await expect(chat.turns.first).to_contain_text("Answer 0.", timeout=30_000)
    await chat.ask("Go on.")
    reply = (await scripted.next_chat()).id
    await scripted.page.evaluate(
        """() => {
          window.delays = [];
          new PerformanceObserver((list) => {
            for (const entry of list.getEntries())
              if (entry.name === 'keydown') window.delays.push(entry.processingStart - entry.startTime);
          }).observe({ type: 'event', durationThreshold: 16, buffered: true });
        }"""
    )
    words = (TEXT + "\n\n").split(" ")
    typed = 100
    for index in range(typed):
        scripted.say(reply, *(f" {words[(5 * index + word) % len(words)]}" for word in range(5)))
        await scripted.page.keyboard.press("a", delay=1000 * 5 / TOKENS_A_SECOND)
    scripted.finish(reply)
    # By its class: to look through two thousand messages by role takes longer than all the rest.
    await expect(scripted.page.locator(".reply[data-phase='streaming']")).to_have_count(0)
    await expect(chat.question).to_have_value("a" * typed)
    slow = sorted(json.loads(await scripted.page.evaluate("() => JSON.stringify(window.delays)")))
    # Events that took less than 16 ms from key to paint are not told: their delay was less than that.
    delays = [0.0] * (typed - len(slow)) + slow
    assert delays[int(0.95 * typed) - 1] <= INPUT_DELAY_MS, f"the slowest: {slow[-10:]}"
