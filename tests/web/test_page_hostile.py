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


async def test_formulas_and_code_cannot_either(scripted: ScriptedRelay) -> None:
    asked: list[str] = []
    chat = await scripted.open()
    await chat.ask("Say something bad in TeX.")
    text = (
        "$\\href{javascript:window.hacked=1}{x}$ and $\\includegraphics{https://evil.example/a.png}$\n\n"
        "$$\\style{position:fixed}{\\color{red} y}$$\n\n$$z^2$$\n\n"
        "```html\n<script>window.hacked = 'code'</script><img src=x onerror=window.hacked=1>\n```\n"
    )
    scripted.page.on("request", lambda request: asked.append(request.url))
    scripted.finish((await scripted.next_chat()).id, text)
    await chat.wait_for_end()
    await expect(chat.text.locator("math")).to_have_count(1)
    await expect(chat.text.locator(".hl-tag").first).to_be_visible()
    await expect(chat.text.locator("script, img, math a, math [href], [style*=fixed]")).to_have_count(0)
    assert await scripted.page.evaluate("() => window.hacked") is None
    assert all(url.startswith(scripted.url) for url in asked), asked


async def test_control_and_direction_characters_are_seen(scripted: ScriptedRelay) -> None:
    chat = await scripted.open()
    await chat.ask("Turn around.")
    text = "\x1b[31mred\x1b[0m invoice\u202efdp.exe\n\n```\nif (admin\u2066) { // \u2069\n```"
    scripted.finish((await scripted.next_chat()).id, text)
    await chat.wait_for_end()
    await expect(chat.text).to_contain_text("\u241b[31mred\u241b[0m invoice\u27e8U+202E\u27e9fdp.exe")
    await expect(chat.text.locator("pre")).to_contain_text("admin\u27e8U+2066\u27e9")


async def test_one_line_of_a_megabyte_leaves_the_page_usable(scripted: ScriptedRelay) -> None:
    chat = await scripted.open()
    await chat.ask("A long line.")
    reply = (await scripted.next_chat()).id
    for _ in range(64):
        scripted.say(reply, "x" * 16_384)
    await chat.question.fill("Still here?")
    scripted.finish(reply)
    await chat.wait_for_end()
    assert len(await chat.text.inner_text()) >= 64 * 16_384
    assert await chat.has_no_sideways_scroll()
    await expect(chat.question).to_have_value("Still here?")


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
