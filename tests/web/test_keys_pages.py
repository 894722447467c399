"""/keys and /operators: made once, limited, revoked; kept out with a reason. The test plays the interface."""

import time
from typing import Any

import msgspec
import pytest
from playwright.async_api import Page, expect
from starlette.requests import Request
from starlette.responses import JSONResponse

from tests.web.axe import violations
from tests.web.page_objects import view_as
from tests.web.scripted import volunteer
from tests.web.scripted_swarm import ScriptedSwarm, refusal

pytestmark = [pytest.mark.browser, pytest.mark.asyncio(loop_scope="session")]

MANY = 3000
SECRET = "corolla-client.1111aaaa2222.secret.aHR0cA"
USAGE = {"days": [], "replies": 0, "prompt_tokens": 0, "cached_tokens": 0, "completion_tokens": 0}


def token(name: str, token_id: str = "1111aaaa2222", **changes: Any) -> dict[str, Any]:
    made = {
        "id": token_id,
        "kind": "client",
        "name": name,
        "created_at": time.time() - 60,
        "last_used_at": None,
    }
    return made | changes


def play_keys(played: ScriptedSwarm, *tokens: dict[str, Any]) -> list[dict[str, Any]]:
    """A relay that makes, changes and revokes keys; they are in the list that is given back."""
    kept = list(tokens)

    async def listed(_: Request) -> dict[str, Any]:
        return {"tokens": list(kept), "next": None}

    async def make(request: Request) -> JSONResponse:
        asked = await request.json()
        kept.insert(0, token(asked["name"]) | asked)
        return JSONResponse(kept[0] | {"token": SECRET}, 201)

    async def change(request: Request) -> dict[str, Any]:
        kept[0] |= await request.json()
        return kept[0]

    async def revoke(_: Request) -> dict[str, Any]:
        return kept.pop(0)

    played.answers["GET", "/api/tokens"] = listed
    played.answers["POST", "/api/tokens"] = make
    played.answers["PATCH", "/api/tokens/1111aaaa2222"] = change
    played.answers["DELETE", "/api/tokens/1111aaaa2222"] = revoke
    used = {"day": time.strftime("%Y-%m-%d", time.gmtime()), "model": "m", "replies": 2, "prompt_tokens": 900}
    day = used | {"cached_tokens": 100, "completion_tokens": 100}
    used_up = {
        "days": [day],
        "replies": 2,
        "prompt_tokens": 900,
        "cached_tokens": 100,
        "completion_tokens": 100,
    }
    played.answers["GET", "/api/tokens/1111aaaa2222/usage"] = used_up
    played.answers["GET", "/api/tokens/me/usage"] = USAGE
    return kept


async def test_a_key_is_made_shown_once_changed_and_revoked(
    browser_page: Page, played: ScriptedSwarm
) -> None:
    play_keys(played)
    await played.open(browser_page, "/keys")
    making = browser_page.get_by_role("region", name="New key")
    await making.get_by_label("Name").fill("my script")
    await making.get_by_label("Replies at once").fill("none")
    await making.get_by_role("button", name="Make it").click()
    await expect(making.get_by_text("Replies at once: a whole number from 1")).to_be_visible()
    await expect(making.get_by_label("Replies at once")).to_be_focused()
    await making.get_by_label("Replies at once").fill("2")
    await making.get_by_label("Tokens a day").fill("50,000")
    await making.get_by_label("Ends").select_option("never")
    await making.get_by_role("button", name="Make it").click()
    await expect(making.get_by_text(SECRET)).to_be_visible()
    limits = {"replies_at_once": 2, "tokens_a_day": 50_000, "expires_at": None}
    assert played.asked == [("POST", "/api/tokens", {"kind": "client", "name": "my script"} | limits)]
    await making.get_by_role("button", name="I have it").click()
    await expect(browser_page.get_by_text(SECRET)).to_have_count(0)

    key = browser_page.get_by_role("region", name="Keys that this one has made").get_by_role("listitem")
    await expect(key).to_contain_text("At most 2 replies at once and 50,000 tokens a day.")
    await key.get_by_role("button", name="Use my script").click()
    await expect(key).to_contain_text("2 replies in the last 30 days")
    change = key.get_by_role("button", name="Change my script")
    await change.click()
    dialog = browser_page.get_by_role("dialog", name="Change my script")
    await dialog.get_by_label("Tokens a day").fill("")
    await dialog.get_by_role("button", name="Change it").click()
    await expect(key).to_contain_text("At most 2 replies at once.")
    assert played.asked[-1][2] == {"name": "my script", "replies_at_once": 2, "tokens_a_day": None}
    await key.get_by_role("button", name="Revoke my script").click()
    revoke = browser_page.get_by_role("dialog", name="Revoke my script?")
    await browser_page.keyboard.press("Escape")
    await expect(revoke).to_have_count(0)
    await key.get_by_role("button", name="Revoke my script").click()
    await revoke.get_by_role("button", name="Revoke it").click()
    await expect(browser_page.get_by_text("None.", exact=True)).to_be_visible()


async def test_a_renamed_key_is_called_by_its_new_name(browser_page: Page, played: ScriptedSwarm) -> None:
    play_keys(played, token("old"))
    await played.open(browser_page, "/keys")
    await browser_page.get_by_role("button", name="Change old").click()
    await browser_page.get_by_role("dialog").get_by_label("Name").fill("new")
    await browser_page.get_by_role("button", name="Change it").click()
    for what in ("Use", "Change", "Revoke"):
        await expect(browser_page.get_by_role("button", name=f"{what} new")).to_be_visible()


async def test_keys_can_be_changed_after_they_could_not_be_read_again(
    browser_page: Page, played: ScriptedSwarm
) -> None:
    play_keys(played, token("a script"))
    await played.open(browser_page, "/keys")
    change = browser_page.get_by_role("button", name="Change a script")
    await expect(change).to_be_visible()
    played.answers["GET", "/api/tokens"] = refusal(503, "unavailable", "the database is away")
    await browser_page.get_by_label("Also those that are over").check()
    await expect(browser_page.get_by_text("The database is away.")).to_be_visible()
    await change.click()
    await expect(browser_page.get_by_role("dialog", name="Change a script")).to_be_visible()


async def test_whoever_revokes_the_key_of_the_page_is_warned(
    browser_page: Page, played: ScriptedSwarm
) -> None:
    play_keys(played, token("Ada", "0a1b2c3d4e5f"), token("another"))
    await played.open(browser_page, "/keys")
    key = browser_page.get_by_role("region", name="Keys that this one has made").get_by_role("listitem")
    await expect(key.filter(has_text="This page is signed in with it.")).to_have_count(1)
    await browser_page.get_by_role("button", name="Revoke Ada").click()
    await expect(browser_page.get_by_role("dialog")).to_contain_text("This page is signed in with it")
    await browser_page.keyboard.press("Escape")
    await browser_page.get_by_role("button", name="Revoke another").click()
    await expect(browser_page.get_by_role("dialog")).not_to_contain_text("This page")


async def test_whoever_revokes_by_keyboard_goes_on_with_the_next_key(
    browser_page: Page, played: ScriptedSwarm
) -> None:
    play_keys(played, token("first"), token("second", "2222aaaa2222"))
    await played.open(browser_page, "/keys")
    await browser_page.get_by_role("button", name="Revoke first").press("Enter")
    await browser_page.get_by_role("button", name="Revoke it").press("Enter")
    await expect(browser_page.get_by_role("button", name="Revoke first")).to_have_count(0)
    await expect(browser_page.get_by_role("button", name="Revoke second")).to_be_focused()


async def test_what_the_relay_refuses_is_said_at_the_form(browser_page: Page, played: ScriptedSwarm) -> None:
    play_keys(played)
    refused = refusal(403, "forbidden", "a token that another one has made makes none")
    played.answers["POST", "/api/tokens"] = refused
    await played.open(browser_page, "/keys")
    await browser_page.get_by_label("Name").fill("another")
    make = browser_page.get_by_role("button", name="Make it")
    await make.press("Enter")
    await expect(browser_page.get_by_text("A token that another one has made makes none.")).to_be_visible()
    await expect(make).to_be_focused()


async def test_a_relay_that_makes_no_keys_says_so(browser_page: Page, played: ScriptedSwarm) -> None:
    played.answers["GET", "/api/tokens/me/usage"] = USAGE
    await played.open(browser_page, "/keys")
    await expect(browser_page.get_by_text("This relay does not make keys here")).to_be_visible()
    await expect(browser_page.get_by_role("region", name="New key")).to_be_hidden()
    await expect(browser_page.get_by_role("region", name="The key of this page")).to_contain_text("Ada")


# ---- operators ----


def play_operators(played: ScriptedSwarm) -> None:
    played.signed_in("admin")
    play_keys(played, token("a friend"))
    rosa = msgspec.to_builtins(volunteer("rosa", 0, 8, score=0.3, head=True))
    iris = msgspec.to_builtins(volunteer("iris", 8, 12, score=0.9))
    out: list[dict[str, Any]] = []

    async def listed(_: Request) -> dict[str, Any]:
        known = {"token": "3333bbbb4444", "token_name": "the lab", "since": time.time() - 7200}
        watched = [
            {
                "id": one["id"],
                "volunteer": one,
                "quarantines": [q for q in out if q["volunteer"] == one["id"]],
            }
            | known
            for one in (rosa, iris)
        ]
        return {"volunteers": watched, "next": None, "quarantined": out}

    async def quarantine(request: Request) -> dict[str, Any]:
        reason = (await request.json())["reason"]
        out.append({"volunteer": "rosa-id", "at": time.time(), "reason": reason, "by": "0a1b2c3d4e5f"})
        return out[0]

    async def restore(_: Request) -> dict[str, Any]:
        return out.pop()

    played.answers["GET", "/api/admin/volunteers"] = listed
    played.answers["POST", "/api/volunteers/rosa-id/quarantine"] = quarantine
    played.answers["POST", "/api/volunteers/rosa-id/restore"] = restore


async def test_a_volunteer_is_kept_out_with_a_reason_and_restored(
    browser_page: Page, played: ScriptedSwarm
) -> None:
    play_operators(played)
    await played.open(browser_page, "/operators")
    row = browser_page.get_by_role("row", name="rosa")
    await expect(row).to_contain_text("the lab (3333bbbb4444)")
    await browser_page.get_by_label("Only those worth a look").check()
    await expect(browser_page.get_by_role("row", name="iris")).to_have_count(0)
    await row.get_by_role("button", name="Quarantine rosa").click()
    dialog = browser_page.get_by_role("dialog", name="Quarantine rosa?")
    await dialog.get_by_label("Why").fill("  ")
    await dialog.get_by_role("button", name="Quarantine it").click()
    await expect(dialog.get_by_text("Say why: somebody will ask.")).to_be_visible()
    await dialog.get_by_label("Why").fill("plausible nonsense")
    await dialog.get_by_role("button", name="Quarantine it").click()
    kept_out = browser_page.get_by_role("region", name="Kept out")
    await expect(kept_out).to_contain_text("plausible nonsense (just now, by key 0a1b2c3d4e5f)")
    await expect(row).to_contain_text("Kept out")
    await row.get_by_role("button", name="Restore rosa").click()
    dialog = browser_page.get_by_role("dialog", name="Restore rosa?")
    await dialog.get_by_label("Why").fill("looked into it")
    await dialog.get_by_role("button", name="Restore it").click()
    await expect(kept_out).to_be_hidden()
    assert [(path, body) for method, path, body in played.asked if method == "POST"] == [
        ("/api/volunteers/rosa-id/quarantine", {"reason": "plausible nonsense"}),
        ("/api/volunteers/rosa-id/restore", {"reason": "looked into it"}),
    ]
    await expect(
        browser_page.get_by_role("region", name="Everybody\N{RIGHT SINGLE QUOTATION MARK}s keys")
    ).to_contain_text("a friend")


async def test_who_is_restored_from_those_kept_out_is_gone_from_there(
    browser_page: Page, played: ScriptedSwarm
) -> None:
    play_operators(played)
    out = [
        {"volunteer": name, "at": time.time() - 60, "reason": "nonsense", "by": None}
        for name in ("0123456789abcdef", "fedcba9876543210")
    ]

    async def restore(_: Request) -> dict[str, Any]:
        return out.pop(0)

    async def listed(_: Request) -> dict[str, Any]:
        return {"volunteers": [], "next": None, "quarantined": out}

    played.answers["GET", "/api/admin/volunteers"] = listed
    played.answers["POST", "/api/volunteers/0123456789abcdef/restore"] = restore
    await played.open(browser_page, "/operators")
    await expect(browser_page.get_by_text("No volunteer is connected.")).to_be_visible()
    kept_out = browser_page.get_by_role("region", name="Kept out").get_by_role("listitem")
    await kept_out.filter(has_text="01234567").get_by_role("button").press("Enter")
    dialog = browser_page.get_by_role("dialog")
    await dialog.get_by_label("Why").fill("looked into it")
    await dialog.get_by_label("Why").press("Enter")
    await expect(dialog).to_have_count(0)
    await expect(kept_out).to_have_count(1)
    await expect(kept_out).to_contain_text("fedcba98")
    await expect(kept_out.get_by_role("button")).to_be_focused()


async def test_three_thousand_volunteers_are_shown_page_by_page_the_most_doubtful_first(
    browser_page: Page, played: ScriptedSwarm
) -> None:
    play_operators(played)
    one = msgspec.to_builtins(volunteer("peer", 0, 12))
    ids = [f"{number:016x}" for number in range(MANY)]
    doubtful = {id: {"score": 0.1 + number / MANY} for number, id in enumerate(ids)}
    watched = [
        {"id": id, "volunteer": one | {"id": id, "name": f"peer-{id[-4:]}"} | doubtful[id]} for id in ids
    ]
    out = [{"volunteer": id, "at": time.time(), "reason": "nonsense", "by": None} for id in ids[:40]]

    async def listed(request: Request) -> dict[str, Any]:
        asked = request.query_params
        first = int(asked.get("after", "0"))
        last = first + int(asked["limit"])
        following = str(last) if last < MANY else None
        return {"volunteers": watched[first:last], "next": following, "quarantined": out}

    played.answers["GET", "/api/admin/volunteers"] = listed
    await played.open(browser_page, "/operators")
    volunteers = browser_page.get_by_role("region", name="Volunteers", exact=True)
    await expect(volunteers).to_contain_text("3,000 volunteers")
    rows = volunteers.get_by_role("row")
    await expect(rows).to_have_count(51)
    await expect(rows.nth(1)).to_contain_text("peer-0000")
    await volunteers.get_by_role("button", name="Show more").click()
    await expect(rows).to_have_count(101)
    await browser_page.get_by_label("Find").fill("peer-0bb7")
    await expect(rows).to_have_count(2)
    await expect(volunteers).to_contain_text("1 of 3,000 volunteers")
    kept_out = browser_page.get_by_role("region", name="Kept out")
    await expect(kept_out).to_contain_text("40 volunteers")
    await expect(kept_out.get_by_role("listitem")).to_have_count(10)
    await kept_out.get_by_role("button", name="Show more").click()
    await expect(kept_out.get_by_role("listitem")).to_have_count(40)
    await expect(kept_out.get_by_role("button", name="Show more")).to_be_hidden()


async def test_who_is_no_operator_sees_neither_the_page_nor_the_way_there(
    browser_page: Page, played: ScriptedSwarm
) -> None:
    play_operators(played)
    played.signed_in("client")
    await played.open(browser_page, "/operators")
    await expect(browser_page.get_by_role("heading", name="Not yours to see")).to_be_visible()
    await played.open(browser_page, "/keys")
    pages = browser_page.get_by_role("navigation", name="Pages")
    await expect(pages.get_by_role("link", name="Keys")).to_have_attribute("aria-current", "page")
    await expect(pages.get_by_role("link", name="Operators")).to_be_hidden()
    played.signed_in("admin")
    await browser_page.reload()
    await expect(pages.get_by_role("link", name="Operators")).to_be_visible()


# ---- for everybody ----


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1280])
async def test_nothing_stands_in_anybodys_way(
    browser_page: Page, played: ScriptedSwarm, width: int, scheme: str
) -> None:
    await view_as(browser_page, width, scheme)
    play_operators(played)
    await played.open(browser_page, "/keys")
    await browser_page.get_by_role("button", name="Use a friend").click()
    await expect(browser_page.get_by_text("2 replies in the last 30 days")).to_be_visible()
    await browser_page.get_by_label("Name").fill("a script")
    await browser_page.get_by_role("button", name="Make it").click()
    await expect(browser_page.get_by_text(SECRET)).to_be_visible()
    assert await violations(browser_page) == []
    assert await browser_page.evaluate("document.documentElement.scrollWidth") == width
    await browser_page.get_by_role("button", name="Change a friend").click()
    assert await violations(browser_page) == []
    await played.open(browser_page, "/operators")
    await expect(browser_page.get_by_role("row", name="rosa")).to_be_visible()
    await browser_page.get_by_role("button", name="Quarantine rosa").click()
    await browser_page.get_by_role("button", name="Quarantine it").click()
    assert await violations(browser_page) == []
    assert await browser_page.evaluate("document.documentElement.scrollWidth") == width


async def test_a_phone_shows_the_operators_page_and_the_way_to_all_others(
    browser_page: Page, played: ScriptedSwarm
) -> None:
    play_operators(played)
    await browser_page.set_viewport_size({"width": 360, "height": 740})
    await played.open(browser_page, "/operators")
    await expect(browser_page.get_by_role("row", name="rosa")).to_be_visible()
    for link in await browser_page.get_by_role("navigation", name="Pages").get_by_role("link").all():
        await expect(link).to_be_in_viewport(ratio=1)
    beyond = await browser_page.evaluate(
        "() => [...document.querySelectorAll('main *:not(.table *)')]"
        ".filter((one) => one.getBoundingClientRect().right > innerWidth).map((one) => one.outerHTML)"
    )
    assert beyond == []
