"""What an accessibility checker (axe-core, vendored) finds on the page: nothing. The test plays the relay."""

import pytest
from playwright.async_api import expect

from tests.web.axe import violations
from tests.web.scripted import ScriptedRelay

pytestmark = [pytest.mark.browser, pytest.mark.asyncio(loop_scope="session")]

TEXT = """## Title

- one

| a | b |
|---|--:|
| 1 | $x^2$ |

```python
# so
print("1" < 2)
```
"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 360])
async def test_a_conversation_has_no_barriers(scripted: ScriptedRelay, scheme: str, width: int) -> None:
    page = scripted.page
    await page.set_viewport_size({"width": width, "height": 800})
    await page.emulate_media(color_scheme=scheme, reduced_motion="reduce")  # pyright: ignore[reportArgumentType]
    chat = await scripted.open()
    await expect(page.get_by_text("each hold a part of the model")).to_be_visible()
    assert await violations(page) == []
    await chat.ask("Show me.")
    scripted.finish((await scripted.next_chat()).id, TEXT)
    await chat.wait_for_end()
    await chat.retry.click()
    scripted.finish((await scripted.next_chat()).id, TEXT)
    await chat.wait_for_end()
    await expect(chat.text.locator("math")).to_be_visible()
    await expect(chat.text.locator(".hl-comment")).to_be_visible()
    await chat.last.get_by_role("button", name="Where the time went").click()
    assert await violations(page) == []
    await page.get_by_role("button", name="Conversations", exact=True).click()
    assert await violations(page) == []
