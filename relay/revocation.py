"""Closes the connections whose token has been revoked since they came.

Asks for what was revoked lately, not for the tokens of all connections: thousands of those would be looked up
again and again for nothing. Owned by the event loop's thread.
"""

from relay.hub import Hub
from relay.store import Store

CLOCKS_APART_SECONDS = 300.0
"""By how much the clock of whoever revokes may be behind."""


class Revocation:
    """What was revoked, as far as it was looked up."""

    def __init__(self, store: Store, hub: Hub, now: float) -> None:
        """`now`: Unix time; no connection is older."""
        self._store = store
        self._hub = hub
        self._looked_up = now

    async def close_revoked(self, now: float) -> None:
        """End the connections of the tokens that were revoked since the last call. `now`: Unix time.

        Raises:
            Unavailable: the database is away; the next call asks for those that this one missed.
        """
        revoked = await self._store.revoked_since(self._looked_up - CLOCKS_APART_SECONDS)
        self._looked_up = now
        if revoked:
            self._hub.end_revoked(revoked)
