"""Who is connected: the one mutable registry of this replica's peers and pages, and of the others' peers.

Owned by the event loop's thread; what is elsewhere is written by relay/replicas.py alone. A second
connection of the same peer replaces the first, since after a network change the old socket can stay open long
after it is dead. Does not know what the peers do.
"""

from collections.abc import Collection, Iterable, Iterator
from typing import Protocol

from relay.elsewhere import RemotePeer
from relay.peer import Peer
from schema.errors import CorollaError, Replaced, Unauthorized, Unresponsive
from schema.ids import PeerId
from schema.messages import GoElsewhere, Heartbeat, encode_message
from schema.outbox import Urgency

_HEARTBEAT = encode_message(Heartbeat())

MISSED_HEARTBEATS = 3
"""Heartbeats that may be missed before a peer counts as gone."""


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
        self._patience = MISSED_HEARTBEATS * heartbeat_seconds
        self._peers: dict[PeerId, Peer] = {}
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
        self._peers[peer.id] = peer
        return older

    def remove(self, peer: Peer) -> bool:
        """Take a peer out. False when another connection of the same peer has its place already."""
        if self._peers.get(peer.id) is not peer:
            return False
        del self._peers[peer.id]
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

    def send_heartbeats(self, peers: Iterable[Peer]) -> None:
        for peer in peers:
            peer.enqueue(_HEARTBEAT, Urgency.CONTROL)

    def end_unresponsive(self, peers: Iterable[Peer], now: float) -> None:
        """End those of the peers that are silent, or that do not read. `now`: loop time."""
        for peer in peers:
            if now - peer.heard > self._patience:
                peer.end(Unresponsive(f"nothing was heard for {self._patience:g} s"))
            elif peer.is_stuck(now, self._patience):
                peer.end(Unresponsive(f"nothing was read for {self._patience:g} s"))
