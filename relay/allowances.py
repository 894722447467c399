"""What each access token may still ask for: by its own limits, and those of the token that has made it.

    a request ─> its token's limits, from SQL ─> and what it has used today, written or not ─> Allowance

Kept for some seconds, so that most requests ask for nothing. So what replies took counts once they have ended
and a few seconds are over; what other replicas served counts when they have written it, within half a minute.
Limits that are changed through another replica hold here within `KEEP_SECONDS`.
While the database is away what was known last holds. Owned by the event loop's thread. Does not refuse
anybody: that is relay/admission.py.
"""

import time
from collections import OrderedDict
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Protocol

from relay.admission import UNLIMITED, Allowance
from relay.records import TokenRecord
from relay.usage import ANONYMOUS, DAY, UsageAccount, UsageStore, day_of
from schema.errors import Unavailable

KEEP_SECONDS = 10.0
"""For which it is believed that a token has no limits."""
KEEP_LIMITED_SECONDS = 2.0
"""For which it is believed what one with limits has left."""
MOST_KEPT = 10_000


class AllowanceStore(UsageStore, Protocol):
    """Where limits and usage are written."""

    async def token_and_parent(self, token_id: str) -> list[TokenRecord]: ...
    async def family_of(self, owner: str, since: float) -> list[str]: ...


@dataclass(slots=True)
class _Known:
    allowance: Allowance
    until: float


class Allowances:
    """The allowances of those that have asked lately."""

    def __init__(self, store: AllowanceStore, usage: UsageAccount) -> None:
        self._store = store
        self._usage = usage
        self._known: OrderedDict[str, _Known] = OrderedDict()
        """Those that were looked up last come last."""

    async def of(self, asker: str, now: float | None = None) -> Allowance:
        """What an asker may. `asker`: a token's id; who has none may what everybody may. `now`: Unix time."""
        if not asker or asker.startswith(ANONYMOUS):
            return UNLIMITED
        now = time.time() if now is None else now
        known = self._known.get(asker)
        if known is not None and now < known.until:
            return known.allowance
        if known is not None:
            known.until = now + KEEP_LIMITED_SECONDS  # whoever asks meanwhile does not ask once more
        try:
            found = await self._look_up(asker, now)
        except Unavailable:
            return UNLIMITED if known is None else known.allowance
        seconds = KEEP_LIMITED_SECONDS if found.is_limited else KEEP_SECONDS
        self._known[asker] = _Known(found, now + seconds)
        self._known.move_to_end(asker)
        if len(self._known) > MOST_KEPT:
            self._known.popitem(last=False)
        return found

    async def owner_of(self, token_id: str) -> str:
        """Whose limits hold for a token: its maker's, or its own where no token has made it."""
        return (await self.of(token_id)).owner or token_id

    def forget(self) -> None:
        """Limits were changed here: look all of them up anew."""
        self._known.clear()

    async def _look_up(self, asker: str, now: float) -> Allowance:
        tokens = await self._store.token_and_parent(asker)
        owner = tokens[-1].id if tokens else asker
        left = [await self._left(one, owner, now) for one in tokens if one.tokens_a_day is not None]
        return Allowance(
            owner=owner,
            replies=_least(one.replies_at_once for one in tokens if one.id != owner),
            owners_replies=_least(one.replies_at_once for one in tokens if one.id == owner),
            tokens_left=_least(left),
            seconds=day_of(now) + DAY - now,
        )

    async def _left(self, token: TokenRecord, owner: str, now: float) -> int:
        """Of what a token may use today; what those use that it has made counts as its own."""
        ids: Collection[str] = {token.id}
        if token.id == owner:
            ids = {*await self._store.family_of(owner, day_of(now)), owner}
        used = await self._usage.tokens_of(self._store, ids, day_of(now))
        return (token.tokens_a_day or 0) - sum(used.values())


def _least(limits: Iterable[int | None]) -> int | None:
    return min((limit for limit in limits if limit is not None), default=None)
