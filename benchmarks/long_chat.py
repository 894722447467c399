"""A conversation of 2,000 messages in a real browser, and what the chat page costs there.

The page comes from a real relay; the relay's end of its WebSocket is whoever calls. Times are those of the
browser's own clocks. Does not know what is allowed to cost how much.
"""

from playwright.async_api import CDPSession, Page

TURNS = 1000
"""Each a question and a reply."""
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
WORDS = (TEXT + "\n\n").split(" ")
TOKENS_A_SECOND = 200
TOKENS_A_KEY = 5

_KEEP = """async ([count, text]) => {
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
_IS_WHOLE = "() => document.querySelector('.turn .prose')?.textContent.startsWith('Answer 0.')"
_SCROLL = """async ([frames, step]) => {
  const scroller = document.getElementById('scroller');
  const began = performance.now();
  for (let frame = 0; frame < frames; frame += 1) {
    scroller.scrollTop -= step;
    await new Promise(requestAnimationFrame);
  }
  return (performance.now() - began) / 1000;
}"""
_DRAWN = """() => [...document.querySelectorAll('.turn')]
  .filter((turn) => turn.checkVisibility({ contentVisibilityAuto: true })).length"""
_WATCH_KEYS = """() => {
  window.delays = [];
  new PerformanceObserver((list) => {
    for (const entry of list.getEntries())
      if (entry.name === 'keydown') window.delays.push(entry.processingStart - entry.startTime);
  }).observe({ type: 'event', durationThreshold: 16, buffered: true });
}"""
_UNIT = """() => {
  const once = () => {
    const began = performance.now();
    const words = new Map();
    for (let index = 0; index < 20000; index += 1) {
      const word = `word ${(index * 7919) % 10007}`;
      words.set(word, (words.get(word) ?? 0) + word.split(' ').length);
    }
    return words.size > 0 ? performance.now() - began : 0;
  };
  return Math.min(...Array.from({ length: 9 }, once));
}"""
_READY = """() => {
  const look = () => {
    const question = document.getElementById('question');
    const isReady = question !== null && document.activeElement === question
      && !document.getElementById('composer').hidden && document.getElementById('blocked').hidden;
    if (isReady) window.readyAt = performance.now();
    else requestAnimationFrame(look);
  };
  look();
}"""


async def keep_long(page: Page) -> None:
    """The page's database has the conversation, and the next load shows it."""
    await page.evaluate(_KEEP, [TURNS, TEXT])


async def wait_until_whole(page: Page) -> None:
    """Return when every turn is drawn, the first one last."""
    await page.wait_for_function(_IS_WHOLE, polling=100)


async def watch_readiness(page: Page) -> None:
    """From the next load on, `ready_at` can be asked for."""
    await page.add_init_script(f"({_READY})()")


async def ready_at(page: Page) -> float:
    """Milliseconds from the navigation until a question can be typed and sent."""
    await page.wait_for_function("() => window.readyAt !== undefined")
    return await page.evaluate("() => window.readyAt")


async def watch_performance(page: Page) -> CDPSession:
    session = await page.context.new_cdp_session(page)
    await session.send("Performance.enable")
    return session


async def script_milliseconds(session: CDPSession) -> float:
    """How long the page's scripts have run so far."""
    metrics = (await session.send("Performance.getMetrics"))["metrics"]
    return 1000 * next(one["value"] for one in metrics if one["name"] == "ScriptDuration")


async def unit_milliseconds(page: Page) -> float:
    """How long this browser, on this machine, takes for a fixed piece of work with texts and a map."""
    return await page.evaluate(_UNIT)


async def scroll(page: Page, frames: int, step: int = 400) -> float:
    """Scroll up, so many pixels at each frame; the seconds that it took."""
    return await page.evaluate(_SCROLL, [frames, step])


async def drawn_turns(page: Page) -> int:
    """How many turns the browser lays out and paints; it skips those far from the window."""
    return await page.evaluate(_DRAWN)


async def watch_keys(page: Page) -> None:
    await page.evaluate(_WATCH_KEYS)


async def key_delays(page: Page, keys: int) -> list[float]:
    """Milliseconds until the page began to handle each of so many keys, sorted.

    Events that took less than 16 ms from key to paint are not told: their delay counts as 0.
    """
    slow: list[float] = sorted(await page.evaluate("() => window.delays"))
    return [0.0] * (keys - len(slow)) + slow


def next_words(key: int) -> list[str]:
    """What is streamed beside a key, at `TOKENS_A_SECOND`."""
    return [f" {WORDS[(TOKENS_A_KEY * key + word) % len(WORDS)]}" for word in range(TOKENS_A_KEY)]
