"""What each page says when the relay refuses what it asks, or is gone: cause and remedy, never nothing."""

import re

import pytest
from playwright.async_api import Page, expect

from tests.web.scripted import complete_swarm
from tests.web.scripted_swarm import ScriptedSwarm, refusal

pytestmark = [pytest.mark.browser, pytest.mark.asyncio(loop_scope="session")]

PATHS = ("/swarm", "/join", "/jobs", "/keys", "/operators")
OWN = ("/jobs", "/keys", "/operators")
BUSY = "you have asked for a lot: come back in a minute"
AWAY = "the database is away: try again in 5 s"
REVOKED = "this token was revoked: ask for a new one"


def play(played: ScriptedSwarm) -> None:
    """A relay that has all parts, and nothing in them."""
    played.signed_in("admin")
    played.swarm = complete_swarm()
    played.answers |= {
        ("GET", "/v1/batches"): {"data": []},
        ("GET", "/v1/files"): {"data": []},
        ("GET", "/api/tokens"): {"tokens": [], "next": None},
        ("GET", "/api/admin/volunteers"): {"volunteers": [], "next": None, "quarantined": []},
    }


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    ("status", "code", "message"),
    [
        (401, "unauthorized", REVOKED),
        (429, "rate_limit_exceeded", BUSY),
        (503, "unavailable", AWAY),
    ],
    ids=["signed out", "busy", "database away"],
)
async def test_what_the_relay_refuses_is_said_with_its_remedy(
    browser_page: Page, played: ScriptedSwarm, path: str, status: int, code: str, message: str
) -> None:
    play(played)
    played.refused = refusal(status, code, message)
    await played.open(browser_page, path)
    words = "Load the page again to sign in" if status == 401 and path in OWN else message[1:]
    said = browser_page.get_by_role("status").filter(has_text=words)
    await expect(said.first).to_be_visible()


@pytest.mark.parametrize("path", PATHS)
async def test_a_relay_that_does_not_answer_is_said_to_be_away(
    browser_page: Page, played: ScriptedSwarm, path: str
) -> None:
    play(played)
    await played.open(browser_page, path)
    await expect(browser_page.get_by_role("main")).to_be_visible()
    if path == "/jobs":  # its first look is over, and it waits for whoever comes back
        await expect(browser_page.get_by_text("None yet.")).to_be_visible()
    played.is_cut_off = True
    played.break_streams()
    if path in ("/keys", "/operators"):
        await browser_page.get_by_label("Also those that are over").check()
    elif path == "/jobs":  # whoever comes back to it has it look again
        await browser_page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
    said = browser_page.get_by_role("status").filter(has_text=re.compile("[Tt]ry(ing)? again"))
    await expect(said.first).to_be_visible()
