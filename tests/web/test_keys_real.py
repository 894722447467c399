"""Keys and quarantine at a real relay: what the pages decide holds for whoever uses its API."""

from collections.abc import Iterator

import httpx
import pytest
from playwright.async_api import Page, expect

from benchmarks.processes import RelayProcess, relay, volunteer
from tests.conftest import DEMO_MODEL, Swarm
from tests.web.page_objects import sign_in

pytestmark = [pytest.mark.browser, pytest.mark.asyncio(loop_scope="session")]

ASKED = {"model": DEMO_MODEL, "prompt": "Once", "max_tokens": 2}


def api(url: str, key: str) -> httpx.AsyncClient:
    """The relay's API for a script that holds a key."""
    headers = {"Authorization": f"Bearer {key}"}
    return httpx.AsyncClient(base_url=url, headers=headers, trust_env=False, timeout=60)


async def make_key(page: Page, name: str, kind: str = "client", **limits: str) -> str:
    """Have a key made with `limits` (by labels, `_` for a space), and read it where it is shown."""
    making = page.get_by_role("region", name="New key")
    await making.get_by_label("For").select_option(kind)
    await making.get_by_label("Name").fill(name)
    for label, value in limits.items():
        await making.get_by_label(label.replace("_", " ")).fill(value)
    await making.get_by_role("button", name="Make it").click()
    await expect(making.get_by_text(f"{name} is made")).to_be_visible()
    key = await making.locator("#made-key-text").inner_text()
    await making.get_by_role("button", name="I have it").click()
    return key


async def revoke(page: Page, name: str) -> None:
    await page.get_by_role("button", name=f"Revoke {name}").click()
    await page.get_by_role("dialog").get_by_role("button", name="Revoke it").click()
    await expect(page.get_by_role("dialog")).to_have_count(0)


async def test_a_key_works_within_its_limits_shows_its_use_and_is_refused_once_revoked(
    browser_page: Page, swarm: Swarm
) -> None:
    await sign_in(browser_page, swarm.url, "/keys", swarm.relay.token("client", "Ada"))
    made = browser_page.get_by_role("region", name="Keys that this one has made").get_by_role("listitem")
    await expect(made).to_have_count(0)
    key = await make_key(browser_page, "my script", Tokens_a_day="3")
    await expect(made).to_contain_text("At most 3 tokens a day.")
    await expect(made).to_contain_text("never used")
    async with api(swarm.url, key) as script:
        answered = await script.post("/v1/completions", json=ASKED)
        assert answered.status_code == 200, answered.text
        used = answered.json()["usage"]
        await browser_page.get_by_role("button", name="Use my script").click()
        await expect(made).to_contain_text("1 reply in the last 30 days")
        await expect(made).to_contain_text(f"{used['prompt_tokens']} tokens of prompts")
        await expect(made).to_contain_text(f"and {used['completion_tokens']} written")
        await browser_page.reload()
        await expect(made).to_contain_text("last used")
        await revoke(browser_page, "my script")
        await expect(browser_page.get_by_text("None.", exact=True)).to_be_visible()
        refused = await script.post("/v1/completions", json=ASKED)
        assert refused.status_code == 401, refused.text
    await browser_page.get_by_label("Also those that are over").check()
    await expect(made).to_contain_text("Revoked")
    await expect(browser_page.get_by_role("button", name="Revoke my script")).to_be_hidden()


async def test_an_operator_makes_and_revokes_keys_of_every_kind(
    browser_page: Page, closed_relay: RelayProcess
) -> None:
    await sign_in(browser_page, closed_relay.url, "/operators", closed_relay.token("admin", "Olga"))
    everybodys = browser_page.get_by_role("region", name="Everybody\N{RIGHT SINGLE QUOTATION MARK}s keys")
    making = browser_page.get_by_role("region", name="New key")
    for kind, used in (
        ("client", "for chatting"),
        ("admin", "for an operator"),
        ("volunteer", "for a machine"),
    ):
        key = await make_key(browser_page, f"a {kind}", kind)
        limit = making.get_by_label("Tokens a day")
        await expect(limit).to_be_visible(visible=kind == "client")  # others' have none
        assert key.startswith(f"corolla-{kind}.")
        row = everybodys.get_by_role("listitem").filter(has_text=f"a {kind}")
        await expect(row).to_contain_text(used)
        is_good = {"client": 200, "admin": 200, "volunteer": 403}[kind]  # machines do not chat
        async with api(closed_relay.url, key) as script:
            assert (await script.get("/v1/models")).status_code == is_good
            await revoke(browser_page, f"a {kind}")
            await expect(row).to_have_count(0)
            assert (await script.get("/v1/models")).status_code == 401


# ---- quarantine ----


@pytest.fixture(scope="module")
def garden() -> Iterator[RelayProcess]:
    """A relay of its own, whose model one volunteer holds alone: what becomes of it harms no other test."""
    with relay(DEMO_MODEL) as server, volunteer(server, "rosa"):
        server.wait_until_serving(["rosa"])
        yield server


async def test_who_is_kept_out_is_in_no_route_until_it_is_restored(
    browser_page: Page, garden: RelayProcess
) -> None:
    await sign_in(browser_page, garden.url, "/operators", garden.token("admin", "Olga"))
    row = browser_page.get_by_role("row", name="rosa")
    await expect(row).to_contain_text("Serving")
    async with api(garden.url, garden.token("client", "Ada")) as script:
        answered = await script.post("/v1/completions", json=ASKED)
        assert answered.status_code == 200, answered.text
        await decide(browser_page, "Quarantine", "plausible nonsense")
        kept_out = browser_page.get_by_role("region", name="Kept out")
        await expect(kept_out).to_contain_text("plausible nonsense (just now, by key")
        await expect(row).to_contain_text("Kept out")
        refused = await script.post("/v1/completions", json=ASKED)
        assert refused.status_code == 503, refused.text
        assert (await script.get("/api/route", params={"model": DEMO_MODEL})).status_code == 503

        await row.get_by_role("link", name="rosa").click()
        await expect(browser_page.get_by_role("heading", name="rosa", level=1)).to_be_focused()
        now = browser_page.get_by_role("region", name="Now")
        await expect(now).to_contain_text("Kept out by an operator")
        evidence = browser_page.get_by_role("region", name="Reputation").get_by_role("listitem")
        await expect(evidence.filter(has_text="1 probe passed")).to_be_visible()
        await expect(evidence.filter(has_text="1 reply driven to its end")).to_be_visible()
        await expect(evidence.filter(has_text="1 quarantine by an operator")).to_contain_text(
            "counts nothing"
        )
        await browser_page.get_by_role("link", name="The swarm", exact=True).click()
        health = browser_page.get_by_role("region", name="The swarm").get_by_role("paragraph")
        await expect(health).to_contain_text("cannot answer now")
        rows = browser_page.get_by_role("list", name="Volunteers and their blocks").get_by_role("listitem")
        await expect(rows).to_contain_text(["Kept out by an operator"])

        await browser_page.goto(f"{garden.url}/operators")
        await decide(browser_page, "Restore", "looked into it")
        await expect(kept_out).to_be_hidden()
        await expect(row).to_contain_text("Serving")
        answered = await script.post("/v1/completions", json=ASKED)
        assert answered.status_code == 200, answered.text


async def decide(page: Page, decision: str, why: str) -> None:
    """Have the volunteer rosa quarantined or restored from its row."""
    await page.get_by_role("row", name="rosa").get_by_role("button", name=f"{decision} rosa").click()
    dialog = page.get_by_role("dialog", name=f"{decision} rosa?")
    await dialog.get_by_label("Why").fill(why)
    await dialog.get_by_role("button", name=f"{decision} it").click()
    await expect(dialog).to_have_count(0)
