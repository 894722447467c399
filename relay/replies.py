"""Replies in the making: which head makes each, and what heads say of them.

Owned by the event loop's thread. A reply belongs to the request handler that started it: leaving
its `async with` before the end cancels it on the head, and so on every hop.
Does not know HTTP, pages or what a token is; what becomes of an event is in relay/reply.py.
"""

import asyncio
import logging
import secrets
import time
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

from msgspec import UNSET
from msgspec.structs import replace

from relay.blame import of_reply
from relay.history import HistoryOfSwarm
from relay.hub import Hub
from relay.metrics import Metrics
from relay.outcomes import Outcomes
from relay.prices import PREFERRED_SESSIONS
from relay.reply import HeadEvent, Reply, TextReply, VectorReply
from relay.swarm import Swarm, Volunteer
from relay.usage import UsageAccount
from schema.errors import (
    CorollaError,
    GenerationFailed,
    ModelUnavailable,
    NotServing,
    QueueFull,
    Unauthorized,
)
from schema.generation import GenerationRequest
from schema.ids import PeerId
from schema.messages import Cancel, Delta, Embedded, ErrorInfo, Failed, Finished

AnyReply = Reply[Any]

RETRY_SECONDS = 2.0
"""When asking again for heads that are too busy to be asked makes sense."""
NAME_SECONDS = 86_400
"""How long a head knows an asker by the same name."""
MOST_HEADS = 8
"""Of one reply, one after the other."""
WAIT_SECONDS = 20.0
"""For a head, and whole model, to go on with a reply: a little longer than heads wait for their hops."""

OWNER_END = "."
"""In the name of a request, behind the key of the replica that runs it."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Accounts:
    """Where it is noted what becomes of replies."""

    metrics: Metrics
    usage: UsageAccount
    """Each asker's tokens."""
    history: HistoryOfSwarm
    """How replies have ended."""
    outcomes: Outcomes
    """What that says of their heads."""


class Replies:
    """All replies of this replica that heads are writing."""

    def __init__(self, hub: Hub, swarm: Swarm, secret: bytes, replica: str, accounts: Accounts) -> None:
        """`secret`: the relays' own. `replica`: this one's key, which its requests begin with."""
        self._hub = hub
        self._replica = replica
        self._secret = secret
        self._swarm = swarm
        self._metrics = accounts.metrics
        self._usage = accounts.usage
        self._history = accounts.history
        self._outcomes = accounts.outcomes
        self._running: dict[str, AnyReply] = {}

    def __len__(self) -> int:
        return len(self._running)

    def of(self, asker: str) -> list[AnyReply]:
        """Those that an asker waits for."""
        return [reply for reply in self._running.values() if reply.asker == asker]

    def start(self, body: GenerationRequest, asker: str = "") -> TextReply:
        """Hand a request to the head that writes the fewest replies now.

        Among equals the same `asker`'s requests go to the same one, which may still know how they begin.
        Empty where it is not known who asks.

        Raises:
            NotFound, ModelUnavailable: no such model, or it cannot answer now.
            QueueFull: no head reads fast enough. TooLarge: more than a control message may hold.
        """
        facts = self._swarm.facts(body.model)
        reply = TextReply(self, _repeatable(body), asker, 0 if facts is None else facts.context)
        self._hand_over(reply)
        return reply

    def embed(self, model: str, inputs: list[str | list[int]], asker: str = "") -> VectorReply:
        """Have vectors made of texts, or lists of token ids; at most `MAX_EMBEDDING_INPUTS` of them.

        `asker` and errors as `start`.
        """
        facts = self._swarm.facts(model)
        self._swarm.require_heads(model)
        width, context = (0, 0) if facts is None else (facts.hidden_size, facts.context)
        reply = VectorReply(self, model, inputs, asker, width=width, context=context)
        self._hand_over(reply)
        return reply

    async def go_on(self, reply: AnyReply) -> None:
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
                if reply.head is not None:
                    self._history.repaired(reply.head)
                log.warning("another head goes on with a reply", extra={"request": reply.request})
                return
        raise left

    def _hand_over(self, reply: AnyReply) -> None:
        """Errors as `start`."""
        asker = reply.asker
        busy = Counter(other.head for other in self._running.values())
        heads = self._swarm.require_heads(reply.model)
        names = {head.peer.id: self._name_of(asker, head.peer.id) for head in heads}
        heads.sort(key=lambda head: (busy[head.peer.id], _load(head), names[head.peer.id]))
        request = f"{self._replica}{OWNER_END}{secrets.token_hex(12)}"
        for head in heads:
            known = names[head.peer.id] if asker else UNSET
            if head.peer.send_message(reply.message(request, known)):
                self._running[request] = reply
                reply.begin(request, head.peer.id)
                return
        raise QueueFull(f"no head of {reply.model!r} reads fast enough: try again", retry_after=RETRY_SECONDS)

    def _name_of(self, asker: str, head: PeerId) -> str:
        return made_up_name(self._secret, asker, head, int(time.time() // NAME_SECONDS))

    def deliver(self, sender: PeerId, event: HeadEvent) -> bool:
        """Pass a head's event on. False when the reply is not (any more) this head's to make."""
        reply = self._running.get(event.request or "")
        if reply is None or reply.head != sender:
            return False
        try:
            if isinstance(event, Failed) and event.error.code == NotServing.code:
                del self._running[reply.request]
                reply.lose_head()  # it has left its place, and was asked before that was known here
            elif isinstance(event, Delta | Embedded):
                reply.take(event)
            else:
                reply.put(event)
                del self._running[reply.request]  # it ends once
        except GenerationFailed as error:
            self.forget(reply, cancel=True)
            failed = Failed(request=reply.request, error=ErrorInfo.of(error))
            reply.put(failed)
            self._blame(reply, sender, failed)
            return False
        self._blame(reply, sender, event)
        self._measure(reply, event)
        return True

    def _blame(self, reply: AnyReply, head: PeerId, event: HeadEvent) -> None:
        seen = of_reply(event, was_begun=reply.was_begun)
        if seen is not None:
            self._outcomes.note(head, seen)

    def _measure(self, reply: AnyReply, event: HeadEvent) -> None:
        """Count and time a reply as it passes here, once its reader is sure to get it.

        What its head says of its time is not for the operator's figures.
        """
        if isinstance(event, Failed) or (isinstance(event, Delta) and event.is_repairing is True):
            return
        if isinstance(event, Finished):
            self._usage.count(reply.asker, reply.model, event.usage, time.time())
        if isinstance(reply, VectorReply):
            return
        seconds = asyncio.get_running_loop().time() - reply.started
        if reply.first_token is None:
            reply.first_token = seconds
        if isinstance(event, Finished):
            self._metrics.observe_reply(reply.first_token, seconds, event.usage)
            self._history.finished(event.usage.completion_tokens, reply.first_token, seconds, time.time())

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

    def end_revoked(self, owners: Collection[str]) -> None:
        """End what these have asked for."""
        for reply in self._running.values():
            if reply.asker in owners:
                reply.end(Unauthorized("the token of whoever asked was revoked or has expired"))

    def left(self, reply: AnyReply, error: BaseException | None) -> None:
        """Its reader has left. `error`: why, where that was not its end."""
        if isinstance(error, CorollaError) and error.http_status >= 500 and isinstance(reply, TextReply):
            self._history.failed(time.time())
        self.forget(reply, cancel=not reply.has_ended)

    def forget(self, reply: AnyReply, *, cancel: bool) -> None:
        """Nobody waits for it. `cancel`: its head is told, and its tokens are counted, unless it is over."""
        self._running.pop(reply.request, None)
        cancel = cancel and not reply.is_over
        head = None if reply.head is None else self._hub.find(reply.head)
        if cancel and reply.made.total_tokens:
            self._usage.count(reply.asker, reply.model, reply.made, time.time())
            self._history.stopped(reply.made.completion_tokens, time.time())
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


def _load(head: Volunteer) -> int:
    """Sessions beyond those that may well be over: what a head tells of itself is some seconds old."""
    return max(0, head.sessions - PREFERRED_SESSIONS)
