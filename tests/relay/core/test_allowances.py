"""relay/allowances.py: what a token may still ask for, looked up now and then."""

from typing import Any

from relay.admission import UNLIMITED
from relay.allowances import Allowances
from relay.records import TokenRecord, UsageRecord
from relay.usage import UsageAccount, day_of
from schema.errors import Unavailable
from tests.relay.core.support import RunningRelay, database_away
from tests.relay.core.test_handing_out import NOW, record


class Tables:
    """A store that counts what it is asked, and can be away."""

    def __init__(self, tokens: list[TokenRecord], used: int = 0) -> None:
        self.tokens, self.used, self.asked, self.is_away = tokens, used, 0, False

    async def token_and_parent(self, token_id: str) -> list[TokenRecord]:
        self.asked += 1
        if self.is_away:
            raise Unavailable("the database is away")
        return self.tokens

    async def family_of(self, owner: str, since: float) -> list[str]:
        return [owner, "key", "other"]

    async def tokens_used(self, token_ids: Any, day: float) -> dict[str, int]:
        return dict.fromkeys(token_ids, self.used)

    async def add_usage(self, rows: Any) -> None: ...

    async def usage_of(self, token_id: str, since: float) -> list[UsageRecord]:
        return []


async def test_what_all_keys_of_a_token_use_is_taken_from_its_day() -> None:
    tables = Tables(
        [record("key", parent="owner", tokens_a_day=100), record("owner", tokens_a_day=50)], used=20
    )
    found = await Allowances(tables, UsageAccount()).of("key", NOW)
    assert (found.owner, found.tokens_left) == ("owner", 50 - 3 * 20)
    assert NOW + found.seconds == day_of(NOW) + 86_400


async def test_limits_are_looked_up_now_and_then_and_hold_while_the_database_is_away() -> None:
    tables = Tables([record("key")])
    known = Allowances(tables, UsageAccount())
    assert await known.of("", NOW) is await known.of("~page", NOW) is UNLIMITED
    for seconds in (0, 1, 9, 11):
        await known.of("key", NOW + seconds)
    assert tables.asked == 2
    tables.tokens = [record("key", replies_at_once=3)]
    known.forget()
    assert (await known.of("key", NOW + 12)).owners_replies == 3
    tables.is_away = True
    assert (await known.of("key", NOW + 1000)).owners_replies == 3
    assert await known.of("nobody", NOW) is UNLIMITED


async def test_chatting_goes_on_while_the_database_is_away(relay: RunningRelay) -> None:
    async with database_away(relay):
        assert await relay.services.allowances.of("somebody") is UNLIMITED
