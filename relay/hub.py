"""Who is connected: the one mutable registry of this replica's peers and pages, and of the others' peers.

Owned by the event loop's thread; what is elsewhere is written by relay/replicas.py alone. A second
connection of the same peer replaces the first, since after a network change the old socket can stay open long
after it is dead. Does not know what the peers do.
"""

import math
from collections.abc import Collection, Iterator
from typing import Protocol

from relay.elsewhere import RemotePeer
from relay.peer import Peer
from relay.rounds import Round
from schema.errors import CorollaError, Replaced, Unauthorized, Unresponsive
from schema.ids import PeerId
from schema.messages import GoElsewhere

MISSED_HEARTBEATS = 3
"""Heartbeats that may be missed before a peer counts as gone."""
LOOKS_PER_HEARTBEAT = 2
"""A peer that has missed its heartbeats is noticed within this part of an interval."""
SOON, LATE = 0.5, 1.5
"""Intervals since the relay's last heartbeat to a peer: before the one, the peer's own is not answered with
another; after the other, the relay says something by itself."""


class Page(Protocol):
    """An open page, as far as the hub knows it."""

    @property
    def token_id(self) -> str | None:
        """The token that it was let in with; None where nobody has to sign in."""
        ...

    def end(self, error: CorollaError) -> None: ...

    def send_elsewhere(self, within_seconds: float) -> None:
        """Have it connect again, to another replica."""
        ...


class Hub:
    """The connected peers and pages of this replica, and where other peers are."""

    def __init__(self, heartbeat_seconds: float) -> None:
        self._interval = heartbeat_seconds
        self._patience = MISSED_HEARTBEATS * heartbeat_seconds
        self._peers: dict[PeerId, Peer] = {}
        self._round = Round[Peer]()
        self._looked_at = -math.inf
        """Loop time of the last look at some of them."""
        self.elsewhere: dict[PeerId, RemotePeer] = {}
        """The peers of other replicas, and those on their way from one to another."""
        self._pages: set[Page] = set()

    def __iter__(self) -> Iterator[Peer]:
        return iter(list(self._peers.values()))

    def __len__(self) -> int:
        return len(self._peers)

    def get(self, peer_id: PeerId) -> Peer | None:
        """A peer that is connected here."""
        return self._peers.get(peer_id)

    def find(self, peer_id: PeerId) -> Peer | RemotePeer | None:
        """A peer, wherever it is connected."""
        return self._peers.get(peer_id) or self.elsewhere.get(peer_id)

    def everybody(self) -> list[PeerId]:
        """Who is connected here or elsewhere, or on the way from one to another."""
        return [*self._peers, *self.elsewhere]

    def add(self, peer: Peer) -> Peer | None:
        """Put a peer in. The older connection of the same peer, which this ends, if there is one."""
        older = self._peers.get(peer.id)
        if older is not None:
            older.end(Replaced("the same peer connected again; this older connection is closed"))
            self._round.discard(older)
        self._peers[peer.id] = peer
        self._round.add(peer)
        return older

    def remove(self, peer: Peer) -> bool:
        """Take a peer out. False when another connection of the same peer has its place already."""
        if self._peers.get(peer.id) is not peer:
            return False
        del self._peers[peer.id]
        self._round.discard(peer)
        return True

    def add_page(self, page: Page) -> None:
        self._pages.add(page)

    def remove_page(self, page: Page) -> None:
        self._pages.discard(page)

    def end_revoked(self, token_ids: Collection[str]) -> None:
        """End the connections of these tokens."""
        for connection in (*self, *self._pages):
            if connection.token_id in token_ids:
                connection.end(
                    Unauthorized(
                        "the token has been revoked or has expired: ask the relay's operator for a new one"
                    )
                )

    def send_elsewhere(self, within_seconds: float) -> None:
        """Have all peers and pages go to another replica."""
        for peer in self:
            if peer.can_move:
                peer.send_message(GoElsewhere(within_seconds=within_seconds))
        for page in list(self._pages):
            page.send_elsewhere(within_seconds)

    def answer(self, peer: Peer, now: float) -> None:
        """Answer a peer's heartbeat with one of the relay's, however many it sends. `now`: loop time.

        Nobody else needs one: a peer that sends none for long is ended.
        """
        if now - peer.greeted >= SOON * self._interval:
            peer.greet(now)

    def look_at_some(self, now: float) -> None:
        """End those that are silent or do not read, among the next few: all have their turn in a part of an
        interval. `now`: loop time."""
        share = min(1.0, (now - self._looked_at) * LOOKS_PER_HEARTBEAT / self._interval)
        self._looked_at = now
        for peer in self._round.take(math.ceil(share * len(self._round))):
            self._look_at(peer, now)

    def _look_at(self, peer: Peer, now: float) -> None:
        if now - peer.heard > self._patience:
            peer.end(Unresponsive(f"nothing was heard for {self._patience:g} s"))
        elif peer.is_stuck(now, self._patience):
            peer.end(Unresponsive(f"nothing was read for {self._patience:g} s"))
        elif now - peer.greeted > LATE * self._interval:
            peer.greet(now)  # it says other things than heartbeats, or waits for the relay's work
