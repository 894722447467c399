"""What a model, or whoever serves it, may do to a page: nothing. The relay's end is played by the test."""

import pytest
from playwright.async_api import expect

from schema.swarm import ModelStatus
from tests.web.scripted import ScriptedRelay, complete_swarm

pytestmark = [pytest.mark.browser, pytest.mark.asyncio(loop_scope="session")]

HOSTILE = """<script>window.hacked = "script"</script>

hello <img src="https://evil.example/a.png" onerror="window.hacked = 'img'"> there
<svg onload="window.hacked = 'svg'"><script>window.hacked = 'svg script'</script></svg>

<iframe srcdoc="<script>parent.hacked = 'iframe'</script>" src="https://evil.example/frame"></iframe>

[click me](javascript:window.hacked='link') and [me](  JaVaScRiPt:window.hacked='link'  )
and [data](data:text/html,<script>window.hacked='data'</script>) <javascript:window.hacked='auto'>

![image](https://evil.example/b.png) ![x](data:image/svg+xml,<svg/onload=window.hacked=1>)

| <b onclick=alert(1)>a</b> |
|---|
| <style>body { display: none }</style><link rel=stylesheet href=https://evil.example/x.css> |

> - # <form action=https://evil.example><input autofocus onfocus="window.hacked = 'focus'"></form>

```"><script>window.hacked = 'code'</script>
</code></pre><script>window.hacked = "code end"</script>
```

<meta http-equiv=refresh content="0;url=https://evil.example"> <base href=https://evil.example>
"""


async def test_a_reply_cannot_run_load_or_link_anything(scripted: ScriptedRelay) -> None:
    asked: list[str] = []
    scripted.page.on("request", lambda request: asked.append(request.url))
    scripted.page.on("dialog", lambda dialog: asked.append(dialog.message))
    chat = await scripted.open()
    await chat.ask("Say something bad.")
    reply = (await scripted.next_chat()).id
    asked.clear()
    scripted.finish(reply, *(HOSTILE[start : start + 7] for start in range(0, len(HOSTILE), 7)))
    await chat.wait_for_end()
    await expect(chat.text).to_contain_text("window.hacked = 'img'")
    made = "script, img, iframe, svg, style, link, form, input, meta, base, object, embed"
    await expect(chat.text.locator(made)).to_have_count(0)
    for text in ("click me", "me", "data"):
        await chat.text.get_by_text(text, exact=True).first.click()
    hrefs = await chat.text.locator("a").evaluate_all("(links) => links.map((link) => link.href)")
    assert all(href.startswith(("https://", "http://", "mailto:")) for href in hrefs), hrefs
    assert await scripted.page.evaluate("() => window.hacked") is None
    assert asked == []


async def test_a_question_is_shown_as_text(scripted: ScriptedRelay) -> None:
    chat = await scripted.open()
    await chat.ask("<img src=x onerror=alert(1)> **not bold**")
    await expect(chat.last.get_by_text("<img src=x onerror=alert(1)> **not bold**")).to_be_visible()


async def test_names_of_volunteers_and_models_are_shown_as_text(scripted: ScriptedRelay) -> None:
    name = "<img src=x onerror=window.hacked=1>"
    other = ModelStatus(id=name, reason=name)
    await scripted.open(complete_swarm(name, others=[other]))
    strip = scripted.page.get_by_role("region", name="The swarm")
    await strip.get_by_role("button").click()
    await expect(strip.get_by_role("listitem").filter(has_text=name)).to_be_visible()
    await expect(scripted.page.locator("main img, header img, section img")).to_have_count(0)
    assert await scripted.page.evaluate("() => window.hacked") is None


async def test_long_lines_stay_inside_a_phone(scripted: ScriptedRelay) -> None:
    await scripted.page.set_viewport_size({"width": 360, "height": 720})
    chat = await scripted.open()
    await chat.ask("x" * 2000)
    word = "y" * 3000
    table = f"| {word[:200]} | b |\n|---|---|\n| 1 | {word[:200]} |"
    scripted.finish(
        (await scripted.next_chat()).id,
        f"{word}\n\n`{word}`\n\n```\n{word}\n```\n\n{table}\n\n- {word}\n\n> https://a.example/{word}\n",
    )
    await chat.wait_for_end()
    assert await chat.has_no_sideways_scroll()


async def test_the_policy_of_the_page_is_strict(scripted: ScriptedRelay) -> None:
    answer = await scripted.page.goto(scripted.url)
    assert answer is not None
    policy = (await answer.all_headers())["content-security-policy"]
    for rule in (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "require-trusted-types-for 'script'",
    ):
        assert rule in policy.split("; ")
    assert "unsafe" not in policy
