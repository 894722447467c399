"""What replicas of the relay know of each other's peers, and do for them.

    a peer comes, moves or goes ──> every replica is told at once (`Present`, `Left`), and so where to send
    a volunteer changes ──────────> every replica's swarm has it (`Serves`); rows in SQL say the same, later
    a message for a peer there ───> hub -> RemotePeer -> lane -> there: hub -> Peer
    what a head there says of a reply that is run here ──> TOLD -> replies

A peer that moves is held nowhere for a moment: what comes for it then waits in its `RemotePeer`, here, and
goes after it. What a replica takes with it when it dies is told to those here who count on it, as if each of
its peers had left. So every replica tells its own drivers and closes sessions on its own hops, nobody else's.

Owned by the event loop's thread; the one writer of `Hub.elsewhere` and of other replicas' volunteers in the
swarm. Does not know the bus (relay/neighbours.py), sockets or SQL.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Collection, Iterable
from operator import attrgetter

from relay.elsewhere import RemotePeer
from relay.forwarding import Forwarder
from relay.hub import Hub
from relay.lanes import Lost
from relay.neighbours import Neighbour, Neighbours
from relay.parcels import (
    Kind,
    Leaving,
    Left,
    Missed,
    Notice,
    Opened,
    PeerNews,
    Present,
    Received,
    Refused,
    Serves,
    VolunteerNews,
    decode_notice,
)
from relay.peer import Peer
from relay.placement import Placement
from relay.records import VolunteerRecord
from relay.refusals import Refusals
from relay.replies import Replies
from relay.reply import HeadEvent, goes_on
from relay.swarm import Swarm, Volunteer
from relay.turns import in_turns
from schema.errors import PeerGone, Replaced
from schema.ids import PeerId, Span
from schema.messages import Cancel, decode_from_peer
from schema.outbox import Urgency

TRANSIT_SECONDS = 15.0
"""How long a peer may be on its way from one replica to another before it is taken for gone.
Far longer than it tries to (`MOVE_SECONDS`, corolla/carrier.py): who arrives is still to be known."""
TICK_SECONDS = 0.001
"""By how much a peer is later at a replica whose clock is behind that of the one that it comes from."""
LEASE_SECONDS = 10.0
"""How long another replica's volunteer is believed in without news of it, or a fresh row in SQL."""
ANNOUNCE_SECONDS = 0.05
"""What changes in this time is told together."""
LOOKED_AT = 500
"""Volunteers at a time: a look at ten thousand would hold up frames for tens of milliseconds."""

log = logging.getLogger(__name__)


class Replicas:
    """The peers of the other replicas, as this one sees them."""

    def __init__(
        self,
        hub: Hub,
        swarm: Swarm,
        forwarder: Forwarder,
        refusals: Refusals,
        queue_bytes: int,
    ) -> None:
        self._hub = hub
        self._swarm = swarm
        self._forwarder = forwarder
        self._refusals = refusals
        self._queue_bytes = queue_bytes
        self._here: dict[PeerId, PeerNews] = {}
        """This replica's peers."""
        self._told: dict[PeerId, tuple[object, ...]] = {}
        """This replica's volunteers as the others have been told of them (`_what_is_told`)."""
        self._neighbours: Neighbours | None = None
        self._used_replies: Replies | None = None
        self._blind = -LEASE_SECONDS
        """Loop time at which the database has last not answered."""
        self._met = asyncio.Event()
        """Set, and replaced, whenever another replica has said who is there."""

    def use(self, neighbours: Neighbours, replies: Replies) -> None:
        """Both know this one too, and so come after it."""
        self._neighbours, self._used_replies = neighbours, replies

    @property
    def _replies(self) -> Replies:
        if self._used_replies is None:
            raise RuntimeError("the replicas have no replies yet")
        return self._used_replies

    @property
    def neighbours(self) -> Neighbours:
        if self._neighbours is None:
            raise RuntimeError("the replicas have no bus yet")
        return self._neighbours

    @property
    def can_move_peers(self) -> bool:
        """Whether there is another replica that peers could go to."""
        return any(neighbour.has_told for neighbour in self.neighbours)

    async def meet(self, names: Collection[str], seconds: float) -> None:
        """Return when the replicas of these names have said who is there, or the time is over."""
        try:
            async with asyncio.timeout(seconds):
                while not {one.name for one in self.neighbours if one.has_told}.issuperset(names):
                    await self._met.wait()
        except TimeoutError:
            log.warning("not every replica that the database names has answered")

    # ---- this replica's peers (relay/sockets.py) ----

    def came(self, peer: Peer, *, moved: bool) -> None:
        """A peer is in the hub. `moved`: with all that was on its way to it elsewhere."""
        before = self._hub.elsewhere.get(peer.id)
        since = time.time() if before is None else max(time.time(), before.since + TICK_SECONDS)
        if before is not None and not moved:
            self._lose(peer.id)
        self._hub.elsewhere.pop(peer.id, None)
        for neighbour in self.neighbours:
            neighbour.peers.discard(peer.id)
        news = PeerNews(peer.id, peer.name, since, moved)
        self._here[peer.id] = news
        self._tell_all(Present([news]))
        if before is not None:
            for message, urgency in before.take_waiting():
                peer.enqueue(message, urgency)

    def left(self, peer: PeerId) -> None:
        """A peer is in the hub no more."""
        if self._here.pop(peer, None) is not None:
            self._tell_all(Left(peer))

    def knows(self, peer: PeerId) -> bool:
        """Whether another replica holds a peer, which may so move here."""
        return peer in self._hub.elsewhere

    async def release(self, peer: Peer) -> None:
        """A peer goes on elsewhere: what comes for it waits. Returns when what it said is on its way."""
        self._announce_one(peer.id)  # nobody can tell what has changed last once it is here no more
        if self._hub.remove(peer):
            news = self._here.pop(peer.id, None)
            since = time.time() if news is None else news.since
            moving = RemotePeer(peer.id, peer.name, since, None, self._queue_bytes)
            moving.rtt = peer.rtt
            self._hub.elsewhere[peer.id] = moving
            volunteer = self._swarm.get(peer.id)
            if volunteer is not None:
                volunteer.peer = moving
                self._swarm.refresh(volunteer)
        await self.neighbours.flush()

    def pass_on(self, peer: PeerId, owner: str, text: str) -> bool:
        """Send on what a head has said of a reply, to the replica that runs it. False if that is gone."""
        neighbour = next((one for one in self.neighbours if one.key == owner), None)
        return neighbour is not None and neighbour.send(Kind.TOLD, peer, text.encode(), Urgency.CONTROL)

    # ---- again and again ----

    async def beat(self) -> None:
        """Tell the others that this replica lives, and what has changed; give up who is lost."""
        await self.announce()
        now = asyncio.get_running_loop().time()
        for peer in list(self._hub.elsewhere.values()):
            if peer.way is None and now - peer.left > TRANSIT_SECONDS:
                self._lose(peer.id)
        await self.neighbours.beat()

    async def announce_changes(self) -> None:
        """For ever: tell the others what changes about volunteers, as soon as it does."""
        while True:
            seen = self._swarm.version
            try:
                await self.announce()
            except Exception:
                log.exception("what has changed could not be told, and is told later")
            await self._swarm.wait_for_change(seen)
            await asyncio.sleep(ANNOUNCE_SECONDS)

    async def announce(self) -> None:
        """Tell the others what they have not been told yet, with pauses for whoever else wants to work."""
        if not len(self.neighbours):
            self._told.clear()  # whoever comes is told all
            return
        everyone = self._swarm.volunteers_here()
        for start in range(0, len(everyone), LOOKED_AT):
            self._announce_some(everyone[start : start + LOOKED_AT])
            await asyncio.sleep(0)
        absent = self._told.keys() - {one.peer.id for one in self._swarm.volunteers_here()}
        for peer in absent:
            del self._told[peer]
        gone = [peer for peer in absent if peer not in self._hub.elsewhere]
        if gone:
            self._tell_all(Serves([], gone))

    def _announce_some(self, volunteers: list[Volunteer]) -> None:
        """As `announce`, of those that are here still."""
        changed: dict[PeerId, tuple[object, ...]] = {}
        news: list[VolunteerNews] = []
        for one in volunteers:
            facts, peer = _what_is_told(one), one.peer.id
            if self._told.get(peer) == facts or self._swarm.get(peer) is not one:
                continue
            if isinstance(one.peer, Peer):
                changed[peer] = facts
                news.append(_news_of(one))
        if news:
            self._tell_all(Serves(news, []))
            self._told |= changed

    def _announce_one(self, peer: PeerId) -> None:
        """As `announce`, of one peer: all of them may go, one after the other."""
        if not len(self.neighbours):
            return
        volunteer, told = self._swarm.get(peer), self._told.pop(peer, None)
        if volunteer is None or not isinstance(volunteer.peer, Peer):
            if told is not None:
                self._tell_all(Serves([], [peer]))
            return
        if _what_is_told(volunteer) != told:
            self._tell_all(Serves([_news_of(volunteer)], []))

    async def renew(self, records: Iterable[VolunteerRecord], now: float) -> None:
        """What SQL says of other replicas' volunteers. `now`: the clock that `Volunteer.renewed` is of."""
        async for record in in_turns(records):
            remote = self._hub.elsewhere.get(record.peer)
            if remote is None:
                continue
            known = self._swarm.get(record.peer)
            if known is not None:
                known.renewed = now
                if known.granted:
                    known.granted = 0  # by now its own replica knows more of them
                    self._swarm.refresh(known)
            elif record.model is not None and record.start is not None and record.end is not None:
                self._swarm.put(_volunteer_of(record, remote, now))
        async for volunteer in in_turns(self._swarm.volunteers()):
            if isinstance(volunteer.peer, Peer) or self._swarm.get(volunteer.peer.id) is not volunteer:
                continue
            if now - max(volunteer.renewed, self._blind) > LEASE_SECONDS:
                log.warning("%s has no lease any more", volunteer.peer.name)
                self._swarm.drop(volunteer.peer.id)

    def be_blind(self, now: float) -> None:
        """The database does not answer: nobody could renew a lease, and so none ends for a while."""
        self._blind = now

    # ---- called by the neighbours ----

    def on_opened(self, neighbour: Neighbour) -> None:
        log.info("another replica is here", extra={"replica": neighbour.key})

    def on_closed(self, neighbour: Neighbour, lost: list[Lost]) -> None:
        log.warning("replica %s is gone, with %d peers", neighbour.name, len(neighbour.peers))
        for one in lost:
            if one.kind == Kind.FRAME:
                self._forwarder.frame_lost(one.body)
        for peer in list(neighbour.peers):
            self._lose(peer)

    def on_gap(self, neighbour: Neighbour) -> None:
        for peer in neighbour.peers:
            self._replies.head_missed(peer)

    def on_lost(self, neighbour: Neighbour, lost: list[Lost]) -> None:
        must_tell = False
        for one in lost:
            if one.kind == Kind.FRAME and one.urgency is not Urgency.CONTROL:
                self._forwarder.frame_lost(one.body)
            elif one.kind in (Kind.FRAME, Kind.TEXT) or isinstance(_notice_of(one), Missed | Opened):
                neighbour.send(Kind(one.kind), one.peer, one.body, one.urgency)
            elif one.kind == Kind.NOTICE:
                must_tell = True
        if must_tell:
            self._tell_everything(neighbour)

    def on_body(self, neighbour: Neighbour, kind: int, peer: PeerId, body: bytes) -> None:
        if kind == Kind.FRAME:
            self._forwarder.arrive(peer, body)
        elif kind == Kind.TEXT:
            receiver = self._hub.find(peer)
            if receiver is not None:
                receiver.enqueue(body.decode(), Urgency.CONTROL)
        else:
            self._on_told(peer, decode_from_peer(body))

    def _on_told(self, peer: PeerId, message: object) -> None:
        if not isinstance(message, HeadEvent) or message.request is None:
            return
        head = self._hub.elsewhere.get(peer)
        is_taken = self._replies.deliver(peer, message)
        if not is_taken and goes_on(message) and head is not None:
            head.send_message(Cancel(request=message.request))

    def on_notice(self, neighbour: Neighbour, notice: Notice) -> None:
        match notice:
            case Opened():
                self._tell_everything(neighbour)
            case Present():
                self._on_present(neighbour, notice)
            case Left():
                if notice.peer in neighbour.peers:
                    self._lose(notice.peer)
            case Serves():
                self._on_serves(neighbour, notice)
            case Leaving():
                self.neighbours.give_up(neighbour)
            case Refused():
                self._refusals.take(notice)
            case Received() | Missed():
                pass  # the neighbours' own

    # ---- what notices say ----

    def _on_present(self, neighbour: Neighbour, notice: Present) -> None:
        for news in notice.peers:
            self._on_peer(neighbour, news)
        if notice.is_all:
            for peer in neighbour.peers - {news.peer for news in notice.peers}:
                self._lose(peer)
            neighbour.has_told = True
            self._met.set()
            self._met = asyncio.Event()

    def _on_peer(self, neighbour: Neighbour, news: PeerNews) -> None:
        mine = self._here.get(news.peer)
        known = self._hub.elsewhere.get(news.peer)
        if (mine is not None and mine.since > news.since) or _is_old(known, neighbour, news):
            return
        local = self._hub.get(news.peer)
        if local is not None:
            self._here.pop(news.peer, None)
            local.end(Replaced("the same peer connected to another replica; this connection is closed"))
        moved = news.moved and known is not None and local is None
        if known is None or not moved:
            if known is not None and (known.way is not neighbour or known.since != news.since):
                self._lose(news.peer)
            known = self._hub.elsewhere.get(news.peer) or RemotePeer(
                news.peer, news.name, news.since, neighbour, self._queue_bytes
            )
            self._hub.elsewhere[news.peer] = known
        for other in self.neighbours:
            other.peers.discard(news.peer)
        neighbour.peers.add(news.peer)
        known.since, known.way = news.since, neighbour
        for message, urgency in known.take_waiting():
            known.enqueue(message, urgency)

    def _on_serves(self, neighbour: Neighbour, notice: Serves) -> None:
        now = asyncio.get_running_loop().time()
        for news in notice.volunteers:
            remote = self._hub.elsewhere.get(news.peer)
            if remote is not None and remote.way is neighbour:
                self._put(remote, news, now)
        for peer in notice.no_more:
            remote = self._hub.elsewhere.get(peer)
            if remote is not None and remote.way is neighbour:
                self._swarm.drop(peer)

    def _put(self, remote: RemotePeer, news: VolunteerNews, now: float) -> None:
        known = self._swarm.get(news.peer)
        remote.rtt = news.rtt
        fresh = _volunteer_from(news, remote, now)
        if known is None or known.peer is not remote or _what_people_see(known) != _what_people_see(fresh):
            self._swarm.put(fresh)
        else:
            known.sessions, known.granted, known.score = fresh.sessions, fresh.granted, fresh.score
            known.placement, known.settled_at, known.renewed = fresh.placement, fresh.settled_at, now
            self._swarm.refresh(known)

    def _lose(self, peer: PeerId) -> None:
        """A peer that was elsewhere is gone: those here who count on it are told."""
        lost = self._hub.elsewhere.pop(peer, None)
        if lost is None:
            return
        for neighbour in self.neighbours:
            neighbour.peers.discard(peer)
        volunteer = self._swarm.get(peer)
        if volunteer is not None and volunteer.peer is lost:
            self._swarm.drop(peer)
        for message, _ in lost.take_waiting():
            if isinstance(message, bytes):
                self._forwarder.frame_lost(message, PeerGone("the next stop on the route has not come back"))
        if lost.way is None:
            self._tell_all(Left(peer))
        self._forwarder.peer_left(peer)
        self._replies.peer_left(peer)

    # ---- what is told ----

    def _tell_all(self, notice: Notice) -> None:
        for neighbour in self.neighbours:
            neighbour.notify(notice)

    def _tell_everything(self, neighbour: Neighbour) -> None:
        neighbour.notify(Present(list(self._here.values()), is_all=True))
        neighbour.notify(Serves(list(map(_news_of, self._swarm.volunteers_here())), []))


def _is_old(known: RemotePeer | None, neighbour: Neighbour, news: PeerNews) -> bool:
    """Whether what is known of where a peer is is younger than this."""
    return known is not None and known.way not in (None, neighbour) and known.since > news.since


def _notice_of(lost: Lost) -> Notice | None:
    return decode_notice(lost.body) if lost.kind == Kind.NOTICE else None


_what_is_told: Callable[[Volunteer], tuple[object, ...]] = attrgetter(
    "device",
    "memory",
    "joined_at",
    "blocks_per_second",
    "placement.model",
    "placement.span",
    "placement.head",
    "placement.room",
    "placement.cached",
    "state",
    "dtype",
    "quantization",
    "done",
    "total",
    "sessions",
    "granted",
    "is_paused",
    "is_in_doubt",
    "score",
    "peer.rtt",
    "settled_at",
)
"""All that `_news_of` tells, to be compared: ten thousand are looked at for one that has changed."""


def _news_of(volunteer: Volunteer) -> VolunteerNews:
    place = volunteer.placement
    return VolunteerNews(
        peer=volunteer.peer.id,
        device=volunteer.device,
        memory=volunteer.memory,
        joined_at=volunteer.joined_at,
        blocks_per_second=volunteer.blocks_per_second,
        model=place.model,
        start=place.span.start,
        end=place.span.end,
        head=place.head,
        state=volunteer.state,
        dtype=volunteer.dtype,
        quantization=volunteer.quantization,
        done=volunteer.done,
        total=volunteer.total,
        sessions=volunteer.sessions,
        granted=volunteer.granted,
        is_paused=volunteer.is_paused,
        is_in_doubt=volunteer.is_in_doubt,
        score=volunteer.score,
        rtt=volunteer.peer.rtt,
        room=place.room,
        cached=list(place.cached),
        settled_at=volunteer.settled_at,
    )


def _volunteer_from(news: VolunteerNews, remote: RemotePeer, now: float) -> Volunteer:
    return Volunteer(
        peer=remote,
        device=news.device,
        blocks_per_second=news.blocks_per_second,
        placement=Placement(news.model, Span(news.start, news.end), news.head, news.room, tuple(news.cached)),
        state=news.state,
        dtype=news.dtype,
        quantization=news.quantization,
        done=news.done,
        total=news.total,
        sessions=news.sessions,
        granted=news.granted,
        is_paused=news.is_paused,
        is_in_doubt=news.is_in_doubt,
        score=news.score,
        memory=news.memory,
        joined_at=news.joined_at,
        settled_at=news.settled_at,
        renewed=now,
    )


def _volunteer_of(record: VolunteerRecord, remote: RemotePeer, now: float) -> Volunteer:
    return Volunteer(
        peer=remote,
        device=record.device,
        blocks_per_second=record.blocks_per_second,
        placement=Placement(
            record.model or "",
            Span(record.start or 0, record.end or 0),
            record.head,
            record.room,
            record.cached,
        ),
        state=record.state,
        dtype=record.dtype or "",
        quantization=record.quantization or "none",
        memory=record.memory,
        joined_at=record.joined_at,
        settled_at=record.settled_at,
        renewed=now,
    )


def _what_people_see(volunteer: Volunteer) -> tuple[object, ...]:
    """All that is shown and planned with, but for load, score and distance, which change all the time."""
    return (
        volunteer.state,
        volunteer.is_paused,
        volunteer.is_in_doubt,
        volunteer.placement,
        volunteer.done,
        volunteer.total,
        volunteer.blocks_per_second,
        volunteer.dtype,
        volunteer.quantization,
        volunteer.device,
    )
