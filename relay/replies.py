"""Replies in the making: from a request, through the head that drives it, to whoever reads it.

Owned by the event loop's thread. A reply belongs to the request handler that started it: leaving
its `async with` before the end cancels it on the head, and so on every hop.
Does not know HTTP, pages or what a token is.
"""

import asyncio
import secrets
import time
from collections import Counter
from collections.abc import AsyncIterator
from hashlib import blake2b
from types import TracebackType

from msgspec import UNSET

from relay.hub import Hub
from relay.metrics import Metrics
from relay.planner import PREFERRED_SESSIONS
from relay.swarm import Swarm, Volunteer
from schema.errors import GenerationFailed, QueueFull
from schema.generation import GenerationRequest
from schema.ids import PeerId
from schema.messages import Cancel, Delta, ErrorInfo, Failed, Finished, Generate

ReplyEvent = Delta | Finished

RETRY_SECONDS = 2.0
"""When asking again for heads that are too busy to be asked makes sense."""
MAX_REPLY_CHARS = 32 * 1024 * 1024
NAME_SECONDS = 86_400
"""How long a head knows an asker by the same name."""
DELTA_CHARS = 100
"""How long one reply may get, and what each of its deltas counts besides its text: a head is a stranger,
and what it writes waits here for a reader who may be slow."""


class Reply:
    """One reply: iterate over its deltas; the last event is `Finished`, or an error is raised."""

    def __init__(self, replies: "Replies", request: str, head: PeerId) -> None:
        self.request = request
        self.head = head
        self.started = asyncio.get_running_loop().time()
        self.first_token: float | None = None
        """Seconds from the start to the first delta."""
        self._replies = replies
        self._events: asyncio.Queue[Delta | Finished | Failed] = asyncio.Queue()
        self._chars = 0
        self._ended = False

    def put(self, event: Delta | Finished | Failed) -> None:
        self._events.put_nowait(event)

    def has_room(self, delta: Delta) -> bool:
        """Whether the reply may still get longer by this."""
        self._chars += len(delta.text) + DELTA_CHARS
        return self._chars <= MAX_REPLY_CHARS

    async def __aenter__(self) -> "Reply":
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._replies.forget(self, cancel=not self._ended)

    async def events(self, deadline_seconds: float) -> AsyncIterator[ReplyEvent]:
        """Deltas, then `Finished`.

        Raises:
            CorollaError: what the head said, or GenerationFailed when it is gone or too slow.
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
            except TimeoutError:
                raise too_late from None
            self._ended = not isinstance(event, Delta)
            if isinstance(event, Failed):
                raise event.error.to_error()
            yield event


class Replies:
    """All replies of this replica that heads are writing."""

    def __init__(self, hub: Hub, swarm: Swarm, metrics: Metrics, secret: bytes) -> None:
        """`secret`: the relays' own."""
        self._hub = hub
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
        busy = Counter(reply.head for reply in self._running.values())
        heads = self._swarm.require_heads(body.model)
        names = {head.peer.id: self._name_of(asker, head.peer.id) for head in heads}
        heads.sort(key=lambda head: (busy[head.peer.id], _load(head), names[head.peer.id]))
        request = secrets.token_hex(12)
        for head in heads:
            known = names[head.peer.id] if asker else UNSET
            if head.peer.send_message(Generate(request=request, body=body, asker=known)):
                reply = self._running[request] = Reply(self, request, head.peer.id)
                return reply
        raise QueueFull(f"no head of {body.model!r} reads fast enough: try again", retry_after=RETRY_SECONDS)

    def _name_of(self, asker: str, head: PeerId) -> str:
        return made_up_name(self._secret, asker, head, int(time.time() // NAME_SECONDS))

    def deliver(self, sender: PeerId, event: Delta | Finished | Failed) -> bool:
        """Pass a head's event on. False when the reply is not (any more) this head's to write."""
        reply = self._running.get(event.request or "")
        if reply is None or reply.head != sender:
            return False
        if isinstance(event, Delta) and not reply.has_room(event):
            self._fail(reply, GenerationFailed("the volunteer writes more than any reply may hold"))
            self.forget(reply, cancel=True)
            return False
        if not isinstance(event, Delta):
            del self._running[reply.request]  # it ends once
        self._measure(reply, event)
        reply.put(event)
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

    def _fail(self, reply: Reply, error: GenerationFailed) -> None:
        reply.put(Failed(request=reply.request, error=ErrorInfo.of(error)))

    def peer_left(self, peer: PeerId) -> None:
        """Fail the replies that a departed head was driving."""
        error = GenerationFailed("the volunteer that was writing this reply has left: send it again")
        for reply in list(self._running.values()):
            if reply.head == peer:
                self._fail(reply, error)

    def forget(self, reply: Reply, *, cancel: bool) -> None:
        self._running.pop(reply.request, None)
        head = self._hub.get(reply.head)
        if cancel and head is not None:
            head.tell(Cancel(request=reply.request))


def made_up_name(secret: bytes, asker: str, head: PeerId, period: int) -> str:
    """What a head knows an asker by: another head, or the same one later, gets another name.

    As random as a hash, so that the least of an asker's names also chooses among heads (rendezvous hashing).
    """
    said = f"{asker}\0{head}\0{period}".encode()
    return blake2b(said, digest_size=8, key=secret, person=b"corolla-asker-01").hexdigest()


def _load(head: Volunteer) -> int:
    """Sessions beyond those that may well be over: what a head tells of itself is some seconds old."""
    return max(0, head.sessions - PREFERRED_SESSIONS)
