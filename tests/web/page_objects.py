"""The parts of the page by what people call them: roles and labels, never how they are made."""

from playwright.async_api import Locator, Page, expect

REPLY_TIMEOUT_MS = 180_000


async def sign_in(page: Page, url: str, path: str, token: str) -> None:
    """Open a page of the relay at `url` that wants a token, and give it one."""
    await page.goto(url + path)
    await page.get_by_label("Access token").fill(token)
    await page.get_by_role("button", name="Sign in").click()
    await expect(page.get_by_role("button", name="Sign out")).to_be_visible()


async def view_as(page: Page, width: int, scheme: str) -> None:
    """Show a page on a screen of this width, `scheme` "light" or "dark", and without motion."""
    await page.set_viewport_size({"width": width, "height": 800})
    color_scheme = "dark" if scheme == "dark" else "light"
    await page.emulate_media(color_scheme=color_scheme, reduced_motion="reduce")


class ChatPage:
    """What a person sees and does on the page."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.question = page.get_by_role("textbox", name="Your question")
        self.send = page.get_by_role("button", name="Send", exact=True)
        self.stop = page.get_by_role("button", name="Stop", exact=True)
        self.turns = page.get_by_role("article")
        self.model = page.get_by_role("combobox", name="Model")
        self.settings = page.get_by_role("dialog", name="Settings")

    @property
    def last(self) -> Locator:
        return self.turns.last

    @property
    def text(self) -> Locator:
        """The last reply's text."""
        return self.last.locator(".prose")

    @property
    def retry(self) -> Locator:
        return self.last.get_by_role("button", name="Retry")

    async def ask(self, question: str) -> None:
        await self.question.fill(question)
        await expect(self.send).to_be_enabled(timeout=REPLY_TIMEOUT_MS)
        await self.question.press("Enter")
        await expect(self.last).to_contain_text(question)

    async def ask_and_wait(self, question: str) -> str:
        """Ask, and return the reply when it is complete."""
        await self.ask(question)
        await self.wait_for_end()
        return await self.text.inner_text()

    async def wait_for_end(self) -> None:
        await expect(self.retry).to_be_visible(timeout=REPLY_TIMEOUT_MS)
        await expect(self.send).to_be_visible()

    async def set(self, **values: str) -> None:
        """Change settings by their labels (`_` for a space), in the drawer."""
        await self.page.get_by_role("button", name="Settings").click()
        for label, value in values.items():
            await self.settings.get_by_label(label.replace("_", " "), exact=True).fill(value)
        await self.page.keyboard.press("Escape")
        await expect(self.settings).to_be_hidden()

    async def has_no_sideways_scroll(self) -> bool:
        """Whether nothing of the page reaches beyond the window's edge."""
        return await self.page.evaluate(
            "() => [document.documentElement, document.body, document.getElementById('scroller')]"
            ".every((part) => part.scrollWidth <= part.clientWidth)"
        )
