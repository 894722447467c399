"""Replies in the making: from a request, through the head that drives it, to whoever reads it.

Owned by the event loop's thread. A reply belongs to the request handler that started it: leaving
its `async with` before the end cancels it on the head, and so on every hop.
Does not know HTTP, pages or what a token is.
"""

import asyncio
import logging
import secrets
import time
from collections import Counter
from collections.abc import AsyncIterator
from enum import Enum
from hashlib import blake2b
from types import TracebackType
from typing import TypeVar

from msgspec import UNSET
from msgspec.structs import replace

from relay.hub import Hub
from relay.metrics import Metrics
from relay.prices import PREFERRED_SESSIONS
from relay.swarm import Swarm, Volunteer
from schema.errors import GenerationFailed, ModelUnavailable, NotServing, QueueFull
from schema.generation import GenerationRequest
from schema.ids import PeerId
from schema.messages import Cancel, Delta, ErrorInfo, Failed, Finished, Generate

ReplyEvent = Delta | Finished
_Items = TypeVar("_Items", str, list[int])

RETRY_SECONDS = 2.0
"""When asking again for heads that are too busy to be asked makes sense."""
MAX_REPLY_CHARS = 32 * 1024 * 1024
NAME_SECONDS = 86_400
"""How long a head knows an asker by the same name."""
DELTA_CHARS, ID_CHARS = 100, 8
"""How long one reply may get, and what each of its deltas and tokens counts besides its text: a head is a
stranger, and what it writes waits here for a reader who may be slow."""
MOST_HEADS = 8
"""Of one reply, one after the other."""
WAIT_SECONDS = 20.0
"""For a head, and whole model, to go on with a reply: a little longer than heads wait for their hops."""

OWNER_END = "."
"""In the name of a request, behind the key of the replica that runs it."""

log = logging.getLogger(__name__)


class _HeadLeft(Enum):
    """In the place of a head's event: there will be no more of them."""

    HEAD_LEFT = "head left"


class Reply:
    """One reply: iterate over its deltas; the last event is `Finished`, or an error is raised.

    When its head leaves, another one goes on with it. That one tells the text from the beginning, since it
    alone knows how much of it the tokens make; what has been told before is left out here.
    """

    def __init__(self, replies: "Replies", body: GenerationRequest, asker: str) -> None:
        self.body = body
        self.asker = asker
        self.request = ""
        """What its present head knows it by."""
        self.head: PeerId | None = None
        self.heads = 0
        """How many have written it, the present one included."""
        self.started = asyncio.get_running_loop().time()
        self.first_token: float | None = None
        """Seconds from the start to the first delta."""
        self.ids: list[int] = []
        """The tokens that heads have told of."""
        self._told = 0
        """Characters that have been told."""
        self._told_by_head = 0
        self._ids_by_head = 0
        self._replies = replies
        self._events: asyncio.Queue[Delta | Finished | Failed | _HeadLeft] = asyncio.Queue()
        self._chars = 0
        self._ended = False

    def begin(self, request: str, head: PeerId) -> None:
        """A head writes it from now on."""
        self.request, self.head = request, head
        self.heads += 1
        self._told_by_head = self._ids_by_head = 0

    def put(self, event: Finished | Failed) -> None:
        self._events.put_nowait(event)

    def lose_head(self) -> None:
        self.head = None
        self._events.put_nowait(_HeadLeft.HEAD_LEFT)

    def put_delta(self, delta: Delta) -> bool:
        """Whether the reply may still get longer by this."""
        ids = [] if delta.ids is UNSET else delta.ids
        self._chars += len(delta.text) + len(ids) * ID_CHARS + DELTA_CHARS
        if self._chars > MAX_REPLY_CHARS:
            return False
        self._ids_by_head += len(ids)
        self.ids += _last(ids, self._ids_by_head - len(self.ids))
        self._told_by_head += len(delta.text)
        text = _last(delta.text, self._told_by_head - self._told)
        if text:
            self._told += len(text)
            self._events.put_nowait(replace(delta, text=text))
        return True

    async def __aenter__(self) -> "Reply":
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._replies.forget(self, cancel=not self._ended)

    async def events(self, deadline_seconds: float) -> AsyncIterator[ReplyEvent]:
        """Deltas, then `Finished`.

        Raises:
            CorollaError: what the head said, or GenerationFailed when no head finishes it in time.
        """
        now = asyncio.get_running_loop().time
        deadline = now() + deadline_seconds
        too_late = GenerationFailed(f"the reply was not finished within {deadline_seconds:g} s")
        while not self._ended:
            if now() >= deadline:
                raise too_late  # however fast the events come
            try:
                async with asyncio.timeout_at(deadline):
                    event = await self._events.get()
                    if isinstance(event, _HeadLeft):
                        await self._replies.go_on(self)
                        continue
            except TimeoutError:
                raise too_late from None
            self._ended = not isinstance(event, Delta)
            if isinstance(event, Failed):
                raise event.error.to_error()
            yield event


class Replies:
    """All replies of this replica that heads are writing."""

    def __init__(self, hub: Hub, swarm: Swarm, metrics: Metrics, secret: bytes, replica: str = "") -> None:
        """`secret`: the relays' own. `replica`: this one's key, which its requests begin with."""
        self._hub = hub
        self._replica = replica
        self._secret = secret
        self._swarm = swarm
        self._metrics = metrics
        self._running: dict[str, Reply] = {}

    def __len__(self) -> int:
        return len(self._running)

    def start(self, body: GenerationRequest, asker: str = "") -> Reply:
        """Hand a request to the head that writes the fewest replies now.

        Among equals the same `asker`'s requests go to the same one, which may still know how they begin.
        Empty where it is not known who asks.

        Raises:
            NotFound, ModelUnavailable: no such model, or it cannot answer now.
            QueueFull: no head reads fast enough. TooLarge: more than a control message may hold.
        """
        reply = Reply(self, _repeatable(body), asker)
        self._hand_over(reply)
        return reply

    async def go_on(self, reply: Reply) -> None:
        """Have another head write the rest of a reply.

        Raises:
            GenerationFailed: none could for a while, or too many have left.
        """
        left = GenerationFailed("the volunteer that was writing this reply has left: send it again")
        until = asyncio.get_running_loop().time() + WAIT_SECONDS
        seen = self._swarm.version
        while reply.heads < MOST_HEADS:
            try:
                self._hand_over(reply)
            except (ModelUnavailable, QueueFull):
                try:
                    async with asyncio.timeout_at(until):
                        seen = await self._swarm.wait_for_change(seen)
                except TimeoutError:
                    break
            else:
                self._metrics.continued_replies += 1
                log.warning("another head goes on with a reply", extra={"request": reply.request})
                return
        raise left

    def _hand_over(self, reply: Reply) -> None:
        """Errors as `start`."""
        body, asker = reply.body, reply.asker
        busy = Counter(other.head for other in self._running.values())
        heads = self._swarm.require_heads(body.model)
        names = {head.peer.id: self._name_of(asker, head.peer.id) for head in heads}
        heads.sort(key=lambda head: (busy[head.peer.id], _load(head), names[head.peer.id]))
        request = f"{self._replica}{OWNER_END}{secrets.token_hex(12)}"
        generated = reply.ids or UNSET
        for head in heads:
            known = names[head.peer.id] if asker else UNSET
            if head.peer.send_message(Generate(request=request, body=body, asker=known, generated=generated)):
                self._running[request] = reply
                reply.begin(request, head.peer.id)
                return
        raise QueueFull(f"no head of {body.model!r} reads fast enough: try again", retry_after=RETRY_SECONDS)

    def _name_of(self, asker: str, head: PeerId) -> str:
        return made_up_name(self._secret, asker, head, int(time.time() // NAME_SECONDS))

    def deliver(self, sender: PeerId, event: Delta | Finished | Failed) -> bool:
        """Pass a head's event on. False when the reply is not (any more) this head's to write."""
        reply = self._running.get(event.request or "")
        if reply is None or reply.head != sender:
            return False
        self._measure(reply, event)
        if isinstance(event, Failed) and event.error.code == NotServing.code:
            del self._running[reply.request]
            reply.lose_head()  # it has left its place, and was asked before that was known here
        elif not isinstance(event, Delta):
            del self._running[reply.request]  # it ends once
            reply.put(event)
        elif not reply.put_delta(event):
            error = GenerationFailed("the volunteer writes more than any reply may hold")
            reply.put(Failed(request=reply.request, error=ErrorInfo.of(error)))
            self.forget(reply, cancel=True)
            return False
        return True

    def _measure(self, reply: Reply, event: Delta | Finished | Failed) -> None:
        """Time a reply as it passes here: what its head says of itself is not for the operator's figures."""
        if isinstance(event, Failed):
            return
        seconds = asyncio.get_running_loop().time() - reply.started
        if reply.first_token is None:
            reply.first_token = seconds
        if isinstance(event, Finished):
            self._metrics.observe_reply(reply.first_token, seconds, event.usage)

    def head_missed(self, peer: PeerId) -> None:
        """Something that a head has said may be lost: others go on with its replies, or it does once more."""
        head = self._hub.find(peer)
        requests = [reply.request for reply in self._running.values() if reply.head == peer]
        self.peer_left(peer)
        for request in requests:
            if head is not None:
                head.tell(Cancel(request=request))

    def peer_left(self, peer: PeerId) -> int:
        """The replies that a departed head was writing are for others to go on with. How many there were."""
        lost = 0
        for reply in list(self._running.values()):
            if reply.head == peer:
                del self._running[reply.request]
                reply.lose_head()
                lost += 1
        return lost

    def forget(self, reply: Reply, *, cancel: bool) -> None:
        self._running.pop(reply.request, None)
        head = None if reply.head is None else self._hub.find(reply.head)
        if cancel and head is not None:
            head.tell(Cancel(request=reply.request))


def owner_of(request: str) -> str:
    """The key of the replica that runs a request; empty when it names none."""
    return request.rpartition(OWNER_END)[0]


def made_up_name(secret: bytes, asker: str, head: PeerId, period: int) -> str:
    """What a head knows an asker by: another head, or the same one later, gets another name.

    As random as a hash, so that the least of an asker's names also chooses among heads (rendezvous hashing).
    """
    said = f"{asker}\0{head}\0{period}".encode()
    return blake2b(said, digest_size=8, key=secret, person=b"corolla-asker-01").hexdigest()


def _repeatable(body: GenerationRequest) -> GenerationRequest:
    """With a seed, so that the next head draws the tokens that this one would have drawn."""
    sampling = body.sampling
    if sampling.seed is not None or sampling.temperature == 0:
        return body
    return replace(body, sampling=replace(sampling, seed=secrets.randbits(63)))


def _last(items: _Items, count: int) -> _Items:
    """The last `count` of them; none for a count below 1."""
    return items[-count:] if count > 0 else items[:0]


def _load(head: Volunteer) -> int:
    """Sessions beyond those that may well be over: what a head tells of itself is some seconds old."""
    return max(0, head.sessions - PREFERRED_SESSIONS)
