"""/swarm: who holds what, live, at 3 and at 3,000 volunteers; what is said when the relay is out of sight."""

import re
import time
from typing import Any

import msgspec
import pytest
from playwright.async_api import Locator, Page, expect

from schema.overview import SwarmEvent
from schema.swarm import ModelStatus, SwarmStatus, VolunteerReport
from tests.web.axe import violations
from tests.web.page_objects import view_as
from tests.web.scripted import MODEL, complete_swarm, incomplete_swarm, volunteer
from tests.web.scripted_swarm import ScriptedSwarm

pytestmark = [pytest.mark.browser, pytest.mark.asyncio(loop_scope="session")]

MANY = 3000


def many() -> SwarmStatus:
    """A model of 120 blocks; each of them has the same number of holders but for the last twelve."""
    holders = [
        msgspec.structs.replace(
            volunteer(f"peer-{n:04d}", n % 10 * 12, n % 10 * 12 + 12),
            state="serving" if n % 10 != 9 or n < 50 else "loading",
            blocks_per_second=100.0 + n,
            score=0.8,
            head=n % 100 == 0,
        )
        for n in range(MANY)
    ]
    model = ModelStatus(id=MODEL, blocks=120, context=1024, complete=True, heads=30)
    return SwarmStatus(models=[model], volunteers=holders)


def history(**changes: Any) -> dict[str, Any]:
    now = int(time.time()) // 60 * 60
    minute = {"tokens": 600, "replies": 3, "failed": 0, "first_token": 0.5, "step": 0.04, "serving": 3}
    minutes = [minute | {"at": now - 60 * back} for back in range(10, -1, -1)]
    lost = {"at": time.time() - 90, "type": "lost", "volunteer": "oak-id", "name": "oak"}
    return {"minutes": minutes, "events": [lost]} | changes


async def open_swarm(page: Page, played: ScriptedSwarm, swarm: SwarmStatus, part: str = "") -> None:
    played.swarm = swarm
    await played.open(page, f"/swarm{part}")
    await expect(page.get_by_text("Live", exact=True)).to_have_count(1)


def rows(page: Page) -> Locator:
    return page.get_by_role("list", name="Volunteers and their blocks").get_by_role("listitem")


def health(page: Page) -> Locator:
    return page.get_by_role("region", name="The swarm").get_by_role("paragraph")


# ---- live ----


async def test_what_changes_is_shown_as_it_is_told(browser_page: Page, played: ScriptedSwarm) -> None:
    await open_swarm(browser_page, played, incomplete_swarm())
    await expect(health(browser_page)).to_contain_text(
        f"{MODEL} cannot answer now. Blocks 4\N{EN DASH}7 have no"
    )
    await expect(browser_page.get_by_text("No volunteer", exact=True)).to_be_visible()
    fern = volunteer("fern", 4, 8, state="loading", done=40, total=100)
    played.change(incomplete_swarm(fern), SwarmEvent(type="joined", volunteer=fern))
    row = rows(browser_page).filter(has_text="fern")
    await expect(row).to_contain_text("Loading, 40 %")
    further = msgspec.structs.replace(fern, done=80)
    played.change(incomplete_swarm(further), SwarmEvent(type="progress", volunteer=further))
    await expect(row).to_contain_text("Loading, 80 %")
    serving = msgspec.structs.replace(fern, state="serving")
    whole = complete_swarm().models[0]
    events = SwarmEvent(type="serving", volunteer=serving), SwarmEvent(type="model", model=whole)
    played.change(complete_swarm("rosa", "fern", "linden"), *events)
    await expect(row).to_contain_text("Serving")
    await expect(health(browser_page)).to_contain_text("answers")
    lately = browser_page.get_by_role("region", name="Lately")
    await expect(lately.get_by_role("listitem")).to_contain_text(
        [
            f"{MODEL} can answer again",
            "fern serves blocks 4\N{EN DASH}7",
            "fern joined, for blocks 4\N{EN DASH}7",
        ]
    )
    played.change(complete_swarm(), SwarmEvent(type="left", volunteer=serving))
    await expect(rows(browser_page)).to_have_count(2)


async def test_a_lost_stream_is_told_with_its_time_and_nothing_is_shown_as_serving(
    browser_page: Page, played: ScriptedSwarm
) -> None:
    await open_swarm(browser_page, played, complete_swarm())
    await expect(rows(browser_page).filter(has_text="Serving")).to_have_count(3)
    played.break_streams({"code": "unauthorized", "message": "the token was revoked"})
    said = browser_page.get_by_role("status").filter(has_text="The relay was heard last at")
    await expect(said).to_contain_text(re.compile(r"at \d\d:\d\d:\d\d"))
    await expect(health(browser_page)).to_contain_text("is not known: the relay is out of sight")
    await expect(rows(browser_page).filter(has_text="was serving")).to_have_count(3)
    await expect(browser_page.get_by_role("table").get_by_text("was serving")).to_have_count(3)
    await expect(browser_page.locator(".petal.serving")).to_have_count(0)
    played.is_away = False
    await said.get_by_role("button", name="Try now").click()
    await expect(said).to_be_hidden()
    await expect(rows(browser_page).filter(has_text="Serving")).to_have_count(3)


async def test_who_was_too_slow_reads_the_whole_swarm(browser_page: Page, played: ScriptedSwarm) -> None:
    await open_swarm(browser_page, played, complete_swarm("rosa", "iris"))
    await expect(rows(browser_page)).to_have_count(2)
    played.change(complete_swarm("rosa", "iris", "linden"), SwarmEvent(type="missed", missed=3))
    await expect(rows(browser_page)).to_have_count(3)


async def test_who_is_kept_out_is_drawn_as_one_that_does_not_serve(
    browser_page: Page, played: ScriptedSwarm
) -> None:
    await open_swarm(browser_page, played, complete_swarm("rosa"))
    petal = browser_page.locator("#flower .petal").first
    bar = rows(browser_page).locator(".petal-bar")
    drawn: dict[str, list[str]] = {}
    await browser_page.emulate_media(reduced_motion="reduce")
    for state, words in (
        ("serving", "Serving"),
        ("paused", "Paused"),
        ("quarantined", "Kept out by an operator"),
    ):
        rosa = msgspec.structs.replace(complete_swarm("rosa").volunteers[0], state=state)
        told = msgspec.structs.replace(played.swarm, volunteers=[rosa])
        played.change(told, SwarmEvent(type="serving" if state == "serving" else "state", volunteer=rosa))
        await expect(rows(browser_page)).to_contain_text([words])
        drawn[state] = [
            await petal.evaluate("(made) => getComputedStyle(made).fill"),
            await bar.evaluate("(made) => getComputedStyle(made).borderStyle"),
        ]
    assert drawn["quarantined"] == drawn["paused"] != drawn["serving"]
    lately = browser_page.get_by_role("region", name="Lately").get_by_role("listitem")
    await expect(lately.first).to_contain_text("rosa is kept out by an operator")


async def test_a_name_turns_nothing_around_but_itself(browser_page: Page, played: ScriptedSwarm) -> None:
    """Not even with controls that say so, which a relay refuses."""
    await open_swarm(browser_page, played, complete_swarm("rosa", "iris"))
    turned = volunteer("\N{RIGHT-TO-LEFT OVERRIDE}fern", 4, 8)
    played.change(complete_swarm(), SwarmEvent(type="joined", volunteer=turned))
    line = browser_page.get_by_role("region", name="Lately").get_by_role("listitem").first
    await expect(line).to_contain_text("joined, for blocks")
    name, first, last = await line.evaluate(
        """(line) => {
          const words = line.querySelector("a").nextSibling;
          const at = (index) => {
            const range = document.createRange();
            range.setStart(words, index);
            range.setEnd(words, index + 1);
            return range.getBoundingClientRect().left;
          };
          return [line.querySelector("a").getBoundingClientRect().left, at(1), at(words.length - 1)];
        }"""
    )
    assert name < first < last


# ---- three thousand ----


async def test_three_thousand_volunteers_are_a_picture_a_table_and_a_list(
    browser_page: Page, played: ScriptedSwarm
) -> None:
    await open_swarm(browser_page, played, many())
    await expect(health(browser_page)).to_contain_text("2,705 volunteers, every block is held by at least 5")
    block = browser_page.get_by_role("slider", name="Block")
    await expect(block).to_have_attribute(
        "aria-valuetext", re.compile(r"Block 108: 5 volunteers serve it, 295 on")
    )
    await block.press("Home")
    await expect(block).to_have_attribute("aria-valuetext", re.compile(r"Block 0: 300 volunteers serve it"))
    await block.press("ArrowRight")
    await block.press("Enter")
    volunteers = browser_page.get_by_role("region", name="Volunteers", exact=True)
    await expect(volunteers).to_contain_text("300 of 3,000 volunteers")
    await expect(volunteers.get_by_role("row")).to_have_count(26)
    await volunteers.get_by_role("button", name="Show 25 more").click()
    await expect(volunteers.get_by_role("row")).to_have_count(51)
    await volunteers.get_by_label("Find").fill("peer-0010")
    await expect(volunteers.get_by_role("row")).to_have_count(2)
    await volunteers.get_by_role("button", name="Only block 1").click()
    await browser_page.get_by_label("As a table").check()
    coverage = browser_page.get_by_role("region", name="Coverage as a table")
    last = coverage.get_by_role("row", name=re.compile("Blocks 108\N{EN DASH}119"))
    await expect(last).to_contain_text("295")
    await last.get_by_role("button").click()
    await expect(browser_page.get_by_role("button", name="Only block 108")).to_be_visible()


# ---- over time ----


async def test_charts_are_read_by_keyboard_and_told_in_a_sentence(
    browser_page: Page, played: ScriptedSwarm
) -> None:
    played.answers["GET", "/api/history"] = history()
    await open_swarm(browser_page, played, complete_swarm())
    throughput = browser_page.get_by_role("figure").filter(has_text="Throughput")
    await expect(throughput).to_contain_text("10.0/s on average")
    line = throughput.get_by_role("slider", name="Throughput, by time")
    await line.press("Home")
    await expect(line).to_have_attribute("aria-valuenow", "0")
    await expect(line).to_have_attribute("aria-valuetext", re.compile(r"^10\.0/s at \d\d:\d\d$"))
    lately = browser_page.get_by_role("region", name="Lately")
    await expect(lately.get_by_role("listitem")).to_contain_text(["oak was lost: it went without a word"])


async def test_a_relay_without_history_says_so(browser_page: Page, played: ScriptedSwarm) -> None:
    await open_swarm(browser_page, played, complete_swarm())
    for region in ("Over time", "Most computed"):
        part = browser_page.get_by_role("region", name=region)
        await expect(part).to_contain_text("Not available on this relay.")
        await expect(part.get_by_role("combobox")).to_be_disabled()
    await expect(rows(browser_page)).to_have_count(3)


# ---- one volunteer ----


async def test_a_volunteers_page_gives_reasons_for_its_reputation(
    browser_page: Page, played: ScriptedSwarm
) -> None:
    report = VolunteerReport(id="rosa-id", score=0.4, prior=0.75, good=3, bad=4, kinds=[], hours=[])
    kind = {"kind": "vanished", "count": 2, "good": 0.0, "bad": 2.5, "since": 0.0, "until": 0.0, "worst": 3}
    done = {"blocks_steps": 1_500_000, "replies": 12, "hours": 30}
    shown = msgspec.to_builtins(report) | {"kinds": [kind], "contribution": done, "since": time.time() - 7200}
    played.answers["GET", "/api/volunteers/rosa-id"] = shown
    await open_swarm(browser_page, played, complete_swarm(), "#volunteer=rosa-id")
    trust = browser_page.get_by_role("region", name="Reputation")
    await expect(trust).to_contain_text("40 %: shaky. What weighs most against it: 2 disappearances")
    await expect(trust.get_by_role("listitem")).to_contain_text(["counts 2.50 now"])
    await expect(browser_page.get_by_role("region", name="Contribution")).to_contain_text("1.5M")
    now = browser_page.get_by_role("region", name="Now")
    await expect(now).to_contain_text("Blocks 0\N{EN DASH}3")
    await expect(now).to_contain_text("for 2 h, since")


async def test_who_comes_back_from_a_volunteers_page_is_where_they_were(
    browser_page: Page, played: ScriptedSwarm
) -> None:
    await open_swarm(browser_page, played, complete_swarm())
    link = rows(browser_page).filter(has_text="iris").get_by_role("link")
    await link.press("Enter")
    await expect(browser_page.get_by_role("heading", name="iris", level=1)).to_be_focused()
    await browser_page.get_by_role("link", name="The swarm", exact=True).press("Enter")
    await expect(link).to_be_focused()


async def test_a_volunteer_that_nobody_knows_is_said_to_be_unknown(
    browser_page: Page, played: ScriptedSwarm
) -> None:
    await open_swarm(browser_page, played, complete_swarm(), "#volunteer=nobody")
    await expect(browser_page.get_by_text("The relay knows no volunteer with this id")).to_be_visible()
    await expect(browser_page.locator("[aria-label='Contribution']")).to_be_hidden()


# ---- for everybody ----


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1280])
async def test_nothing_stands_in_anybodys_way(
    browser_page: Page, played: ScriptedSwarm, width: int, scheme: str
) -> None:
    await view_as(browser_page, width, scheme)
    played.answers["GET", "/api/history"] = history()
    leader = {"id": "rosa-id", "name": "rosa", "blocks_steps": 9, "replies": 1, "score": 0.4, "hours": 30}
    played.answers["GET", "/api/leaderboard"] = {"volunteers": [leader]}
    coming = volunteer("a-volunteer-with-a-rather-long-name", 4, 8, state="loading", done=4, total=9)
    await open_swarm(browser_page, played, incomplete_swarm(coming))
    await expect(browser_page.get_by_role("figure")).to_have_count(3)
    assert await violations(browser_page) == []
    assert await browser_page.evaluate("document.documentElement.scrollWidth") == width
    played.change(many(), SwarmEvent(type="swarm", swarm=many()))
    await expect(browser_page.get_by_role("slider", name="Block")).to_be_visible()
    assert await violations(browser_page) == []
    await browser_page.get_by_label("As a table").check()
    assert await violations(browser_page) == []
    assert await browser_page.evaluate("document.documentElement.scrollWidth") == width


async def test_focus_stays_where_it_is_while_figures_change(
    browser_page: Page, played: ScriptedSwarm
) -> None:
    await open_swarm(browser_page, played, complete_swarm())
    link = rows(browser_page).filter(has_text="iris").get_by_role("link")
    await link.focus()
    busy = volunteer("iris", 4, 8, sessions=7)
    played.change(complete_swarm(), SwarmEvent(type="state", volunteer=busy))
    await expect(link).to_contain_text("7 sessions")
    await expect(link).to_be_focused()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1280])
async def test_nothing_stands_in_anybodys_way_on_a_volunteers_page(
    browser_page: Page, played: ScriptedSwarm, width: int, scheme: str
) -> None:
    await view_as(browser_page, width, scheme)
    name = "a-volunteer-with-a-rather-long-name-" * 2
    seen = {"good": 0.0, "bad": 0.0, "since": 0.0, "until": time.time() - 60}
    kinds = [
        seen | {"kind": "answered", "count": 100_000, "good": 40.0},
        seen | {"kind": "vanished", "count": 2, "bad": 2.5, "worst": 3},
        seen | {"kind": "quarantined", "count": 1},
    ]
    hours = [{"hour": 1_700_000_000, "kind": "answered", "count": 100_000}]
    report = {"id": "rosa-id", "score": 0.4, "prior": 0.75, "good": 3, "bad": 4}
    done = {"blocks_steps": 1_500_000, "replies": 12, "hours": 30}
    played.answers["GET", "/api/volunteers/rosa-id"] = report | {
        "kinds": kinds,
        "hours": hours,
        "contribution": done,
        "memory": 8e9,
        "since": time.time() - 7200,
    }
    rosa = msgspec.structs.replace(volunteer(name, 0, 12), id="rosa-id", score=0.4, blocks_per_second=812.0)
    swarm = complete_swarm()
    await open_swarm(
        browser_page, played, msgspec.structs.replace(swarm, volunteers=[rosa]), "#volunteer=rosa-id"
    )
    await expect(browser_page.get_by_role("region", name="Contribution")).to_contain_text("1.5M")
    await expect(browser_page.get_by_role("heading", name=name, level=1)).to_be_focused()
    assert await violations(browser_page) == []
    assert await browser_page.evaluate("document.documentElement.scrollWidth") == width
    played.change(msgspec.structs.replace(swarm, volunteers=[]), SwarmEvent(type="left", volunteer=rosa))
    await expect(browser_page.get_by_text("It is not connected now.")).to_be_visible()
    assert await violations(browser_page) == []
