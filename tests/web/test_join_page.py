"""/join: a token, the one command, and a machine's way to serving, with a real relay and a real volunteer."""

import msgspec
import pytest
from playwright.async_api import Page, expect
from starlette.requests import Request

from benchmarks.processes import relay, volunteer
from schema.overview import SwarmEvent
from tests.conftest import DEMO_MODEL
from tests.web.axe import violations
from tests.web.page_objects import view_as
from tests.web.scripted import complete_swarm
from tests.web.scripted import volunteer as status
from tests.web.scripted_swarm import ScriptedSwarm, refusal

pytestmark = [pytest.mark.browser, pytest.mark.asyncio(loop_scope="session")]

REPOSITORY = "https://git.example/corolla.git"
HERE, ELSEWHERE = "aHR0cHM6Ly9yZWxheS5leGFtcGxl", "aHR0cHM6Ly9lbHNld2hlcmUuZXhhbXBsZQ"
"""The last parts of tokens: the addresses of the relays that have made them."""
TOKEN = "corolla-volunteer.0a1b2c3d4e5f.secret.aHR0cA"
ARRIVAL_MS = 180_000


async def test_a_real_machine_is_seen_arriving(browser_page: Page) -> None:
    with relay(DEMO_MODEL, REPOSITORY=REPOSITORY) as server:
        await browser_page.goto(f"{server.url}/join")
        await expect(browser_page.get_by_text(f"git+{REPOSITORY}")).to_be_visible()
        await browser_page.get_by_label("Your machine\N{RIGHT SINGLE QUOTATION MARK}s name").fill("dahlia")
        await expect(browser_page.get_by_text("Waiting for a machine called dahlia")).to_be_visible()
        await browser_page.get_by_text("I have a token already").click()
        token = server.volunteer_token()
        await browser_page.get_by_label("Volunteer\N{RIGHT SINGLE QUOTATION MARK}s token").fill(token)
        await expect(browser_page.get_by_text(f"--token '{token}' --name 'dahlia'")).to_be_visible()
        with volunteer(server, "dahlia"):
            machines = browser_page.get_by_role("list", name="Machines that have appeared")
            machine = machines.get_by_role("listitem").filter(has_text="dahlia")
            await expect(machine.get_by_text("It serves. Thank you!")).to_be_visible(timeout=ARRIVAL_MS)
            await expect(machine).to_contain_text("blocks 0\N{EN DASH}11 and head")
        await expect(machine).to_contain_text("dahlia has left", timeout=ARRIVAL_MS)
        await browser_page.goto("about:blank")  # before the relay goes, which would be logged


async def test_whose_machine_is_refused_is_told_why_and_what_to_do(browser_page: Page) -> None:
    with relay(DEMO_MODEL) as server:
        await browser_page.goto(f"{server.url}/join")
        token = server.token("volunteer", "rosa")
        await browser_page.get_by_text("I have a token already").click()
        await browser_page.get_by_label("Volunteer\N{RIGHT SINGLE QUOTATION MARK}s token").fill(token)
        wrong = browser_page.get_by_role("alert").filter(has_text="cannot join")
        with volunteer(server, "rosa", "--memory", "1MB", token=token):
            await expect(wrong).to_contain_text("rosa cannot join", timeout=ARRIVAL_MS)
            await expect(wrong).to_contain_text("allow more with --memory")
        await expect(browser_page.get_by_text("the same command tries again")).to_be_visible()
        with volunteer(server, "rosa", token=token):
            await expect(browser_page.get_by_text("It serves. Thank you!")).to_be_visible(timeout=ARRIVAL_MS)
            await expect(wrong).to_be_hidden()
        server.operate("token", "revoke", token.split(".")[1])
        revoked = browser_page.get_by_role("alert").filter(has_text="No machine can join with this token")
        await expect(revoked).to_contain_text("This token was revoked: ask the relay", timeout=ARRIVAL_MS)
        await browser_page.goto("about:blank")


async def test_a_token_is_made_and_the_command_copied(browser_page: Page, played: ScriptedSwarm) -> None:
    await browser_page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    played.answers["GET", "/api/join"] = {"relay": "https://relay.example", "repository": REPOSITORY}
    played.answers["POST", "/api/tokens"] = {"id": "0a1b2c3d4e5f", "token": TOKEN}
    await played.open(browser_page, "/join")
    await browser_page.get_by_label("Your machine\N{RIGHT SINGLE QUOTATION MARK}s name").fill("ada")
    await browser_page.get_by_role("button", name="Make a token").click()
    await expect(browser_page.get_by_text("Your token is in the command below").first).to_be_visible()
    assert played.asked == [("POST", "/api/tokens", {"kind": "volunteer", "name": "ada"})]
    for system, begins in (
        ("Windows", "wsl bash -c"),
        ("Docker", "docker build"),
        ("Linux", "python3 -m venv"),
    ):
        await browser_page.get_by_role("radio", name=system).check()
        await browser_page.get_by_role("button", name="Copy").click()
        await expect(browser_page.get_by_role("button", name="Copied")).to_be_visible()
        copied = await browser_page.evaluate("navigator.clipboard.readText()")
        assert copied.startswith(begins)
        assert f"--token '{TOKEN}' --name 'ada'" in copied
    kept = await browser_page.evaluate("JSON.stringify([localStorage, sessionStorage, location.href])")
    assert TOKEN not in kept


async def test_another_relays_token_is_not_told_to_this_one(
    browser_page: Page, played: ScriptedSwarm
) -> None:
    shown: list[str] = []

    async def refusal_of(request: Request) -> dict[str, None]:
        shown.append(request.headers["authorization"])
        return {"refusal": None}

    here, elsewhere = (f"corolla-volunteer.0a1b2c3d4e5f.secret.{at}" for at in (HERE, ELSEWHERE))
    played.answers["GET", "/api/join"] = {"relay": "https://relay.example", "repository": REPOSITORY}
    played.answers["GET", "/api/join/refusal"] = refusal_of
    await played.open(browser_page, "/join")
    await expect(browser_page.get_by_text(f"git+{REPOSITORY}")).to_be_visible()
    await browser_page.get_by_text("I have a token already").click()
    pasted = browser_page.get_by_label("Volunteer\N{RIGHT SINGLE QUOTATION MARK}s token")
    await pasted.fill(elsewhere)
    await expect(browser_page.get_by_text("another relay, https://elsewhere.example").first).to_be_visible()
    async with browser_page.expect_response("**/api/join/refusal"):
        await pasted.fill(here)
    assert shown[0] == f"Bearer {here}"


async def test_where_the_relay_makes_no_tokens_one_is_told_who_does(
    browser_page: Page, played: ScriptedSwarm
) -> None:
    await played.open(browser_page, "/join")
    await browser_page.get_by_role("button", name="Make a token").click()
    await expect(browser_page.get_by_text("its operator makes the tokens")).to_be_visible()
    await expect(browser_page.get_by_text("in place of the dots")).to_be_visible()
    played.answers["POST", "/api/tokens"] = refusal(403, "forbidden", "only operators make them here")
    await browser_page.reload()
    await browser_page.get_by_role("button", name="Make a token").click()
    await expect(browser_page.get_by_text("Only operators make them here.")).to_be_visible()


async def test_what_does_not_fit_a_command_is_refused(browser_page: Page, played: ScriptedSwarm) -> None:
    await played.open(browser_page, "/join")
    await browser_page.get_by_label("Your machine\N{RIGHT SINGLE QUOTATION MARK}s name").fill(
        "a'; rm -rf ~ #"
    )
    await expect(browser_page.get_by_text("A name has letters, digits")).to_be_visible()
    await expect(browser_page.get_by_text("rm -rf")).to_have_count(0)
    await browser_page.get_by_text("I have a token already").click()
    pasted = browser_page.get_by_label("Volunteer\N{RIGHT SINGLE QUOTATION MARK}s token")
    await pasted.fill("corolla-client.0a1b2c3d4e5f.secret.aHR0cA")
    await expect(browser_page.get_by_text("This token is for chatting")).to_be_visible()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1280])
async def test_nothing_stands_in_anybodys_way(
    browser_page: Page, played: ScriptedSwarm, width: int, scheme: str
) -> None:
    await view_as(browser_page, width, scheme)
    played.swarm = complete_swarm()
    await played.open(browser_page, "/join")
    await browser_page.get_by_text("Nothing appears?").click()
    await expect(browser_page.get_by_text("Waiting for a new machine")).to_be_visible()
    assert await violations(browser_page) == []
    coming = status("fern", 4, 8, state="loading", done=4, total=9)
    gone = msgspec.structs.replace(coming, id="gone", name="oak")
    joined = [SwarmEvent(type="joined", volunteer=one) for one in (coming, gone)]
    played.change(played.swarm, *joined, SwarmEvent(type="left", volunteer=gone))
    await expect(browser_page.get_by_text("oak went away while it was loading")).to_have_count(2)
    assert await violations(browser_page) == []
    assert await browser_page.evaluate("document.documentElement.scrollWidth") == width
