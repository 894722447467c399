"""Which tokens are looked up to close their connections."""

from typing import cast

import pytest

from relay.hub import Hub
from relay.revocation import CLOCKS_APART_SECONDS, Revocation
from relay.store import Store
from schema.errors import Unavailable

NOW = 1_000_000.0


class AskedStore:
    """A store that notes what it is asked, and can be away."""

    def __init__(self) -> None:
        self.asked: list[float] = []
        self.is_away = False

    async def revoked_since(self, when: float) -> set[str]:
        self.asked.append(NOW - when)
        if self.is_away:
            raise Unavailable("the database is away")
        return set()


async def test_each_time_the_tokens_revoked_since_the_last_time_are_asked_for() -> None:
    store = AskedStore()
    revocation = Revocation(cast(Store, store), Hub(1.0), NOW)
    for now in (NOW + 2, NOW + 4):
        await revocation.close_revoked(now)
    assert store.asked == [CLOCKS_APART_SECONDS, CLOCKS_APART_SECONDS - 2]


async def test_none_is_missed_while_the_database_is_away() -> None:
    store = AskedStore()
    revocation = Revocation(cast(Store, store), Hub(1.0), NOW)
    store.is_away = True
    with pytest.raises(Unavailable):
        await revocation.close_revoked(NOW + 1000)
    store.is_away = False
    await revocation.close_revoked(NOW + 2000)
    assert store.asked == [CLOCKS_APART_SECONDS] * 2
