"""Places for the WebSockets of pages and of Petals' scripts: how many are open, in all and of each person.

An open page costs memory, and every picture of the swarm is sent to it, though nobody asks anything there. A
person is a token with all that it has made; where nobody signs in, the network that the page comes from, kept
in memory for as long as it is open. Counts only, on one replica. Does not know what is said on them.
"""

from collections import Counter
from collections.abc import Generator
from contextlib import contextmanager

from relay.handing_out import network_of
from schema.errors import TooManyRequests, Unavailable

RETRY_SECONDS = 30.0
"""When asking again makes sense where there are too many."""


class OpenPages:
    """The places of one replica."""

    def __init__(self, most: int, most_of_one: int) -> None:
        self._most = most
        self._most_of_one = most_of_one
        self._people: Counter[str] = Counter()

    def __len__(self) -> int:
        return self._people.total()

    @contextmanager
    def place(self, owner: str | None, address: str) -> Generator[None]:
        """One more. `owner`: the token whose limits hold for it; None where nobody signs in.

        `address`: where it comes from; empty where that is unknown.

        Raises:
            TooManyRequests: this person has too many open. Unavailable: all together have.
        """
        person = f"address {network_of(address)}" if owner is None else f"token {owner}"
        if self._people[person] >= self._most_of_one:
            where = "from your address" if owner is None else "with this token and its keys"
            raise TooManyRequests(
                f"{self._most_of_one} pages of this relay are open already {where}: close one of them",
                retry_after=RETRY_SECONDS,
            )
        if len(self) >= self._most:
            raise Unavailable(
                "too many pages of this relay are open: close one, or wait", retry_after=RETRY_SECONDS
            )
        self._people[person] += 1
        try:
            yield
        finally:
            self._people[person] -= 1
            if not self._people[person]:
                del self._people[person]
