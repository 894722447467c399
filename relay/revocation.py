"""Ends what was begun with a token that was revoked or expired since: connections and replies.

Asks for what was revoked lately, not for the tokens of all connections: thousands of those would be looked up
again and again for nothing. Now and then it asks for all that were ever revoked, since clocks can be wrong.
Owned by the event loop's thread.
"""

from collections.abc import Collection, Sequence
from typing import Protocol

from relay.store import Store

CLOCKS_APART_SECONDS = 300.0
"""By how much the clock of whoever revokes may be behind, for his word to be heard at once."""
ALL_SECONDS = 300.0
"""How often all that were ever revoked are asked for."""


class Endable(Protocol):
    """Something that holds what tokens have begun."""

    def end_revoked(self, token_ids: Collection[str], /) -> None:
        """End all that was begun with one of these tokens."""
        ...


class Revocation:
    """What was revoked, as far as it was looked up."""

    def __init__(self, store: Store, begun: Sequence[Endable], now: float) -> None:
        """`begun`: all that tokens have begun. `now`: Unix time; nothing of that is older."""
        self._store = store
        self._begun = begun
        self._looked_up = now
        self._all_due = now + ALL_SECONDS

    async def close_revoked(self, now: float) -> None:
        """End what is of the tokens that have ended since the last call. `now`: Unix time.

        Raises:
            Unavailable: the database is away; the next call asks for those that this one missed.
        """
        lately = min(self._looked_up, now) - CLOCKS_APART_SECONDS
        is_due = not 0 <= self._all_due - now <= ALL_SECONDS  # a clock that was set back has it due too
        revoked = await self._store.ended_since(0.0 if is_due else lately, now)
        self._looked_up = now
        if is_due:
            self._all_due = now + ALL_SECONDS
        if revoked:
            for holder in self._begun:
                holder.end_revoked(revoked)
