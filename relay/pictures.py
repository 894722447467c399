"""The swarm as open pages are told of it: drawn once for each of its versions, however many pages there are.

What a version tells to be the same is not drawn again: figures of load are those of its first picture. Owned
by the event loop's thread. Does not know pages.
"""

from relay.swarm import Swarm
from schema.browser import SwarmChanged, encode_to_page


class Pictures:
    """Of one replica's swarm."""

    def __init__(self, swarm: Swarm) -> None:
        self._swarm = swarm
        self._version = -1
        self._drawn = ""

    def newest(self) -> str:
        """The message that tells pages how the swarm is now."""
        if self._version != self._swarm.version:
            self._version = self._swarm.version
            self._drawn = encode_to_page(SwarmChanged(swarm=self._swarm.status()))
        return self._drawn
