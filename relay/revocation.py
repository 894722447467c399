"""Closes the connections whose token has been revoked since they came.

Asks for what was revoked lately, not for the tokens of all connections: thousands of those would be looked up
again and again for nothing. Now and then it asks for all that were ever revoked, since clocks can be wrong.
Owned by the event loop's thread.
"""

from relay.hub import Hub
from relay.store import Store

CLOCKS_APART_SECONDS = 300.0
"""By how much the clock of whoever revokes may be behind, for his word to be heard at once."""
ALL_SECONDS = 300.0
"""How often all that were ever revoked are asked for."""


class Revocation:
    """What was revoked, as far as it was looked up."""

    def __init__(self, store: Store, hub: Hub, now: float) -> None:
        """`now`: Unix time; no connection is older."""
        self._store = store
        self._hub = hub
        self._looked_up = now
        self._all_due = now + ALL_SECONDS

    async def close_revoked(self, now: float) -> None:
        """End the connections of the tokens that were revoked since the last call. `now`: Unix time.

        Raises:
            Unavailable: the database is away; the next call asks for those that this one missed.
        """
        lately = min(self._looked_up, now) - CLOCKS_APART_SECONDS
        is_due = not 0 <= self._all_due - now <= ALL_SECONDS  # a clock that was set back has it due too
        revoked = await self._store.revoked_since(0.0 if is_due else lately)
        self._looked_up = now
        if is_due:
            self._all_due = now + ALL_SECONDS
        if revoked:
            self._hub.end_revoked(revoked)
