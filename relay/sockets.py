"""`/ws/peer`: one connection of a volunteer or client, from the upgrade to the close.

Authenticates before the upgrade, shakes hands, then runs the read loop here and the peer's send
loop beside it. Frames go to the forwarder, control messages to joining, routing and replies.
Written against raw ASGI, since this is every token's path.
Does not know what frames carry, nor how anything is decided.
"""

import asyncio
import logging
import time
from collections.abc import Coroutine, MutableMapping
from contextlib import suppress
from functools import partial
from typing import Any

from msgspec import UNSET
from starlette.types import Receive, Scope

from relay.blame import Departure, of_departure
from relay.http import bearer_token, count_server_refusal, deny_upgrade
from relay.peer import MAX_REASON_CHARS, Identity, Peer, Send, say_goodbye
from relay.refusals import is_refusal
from relay.replies import owner_of
from relay.reply import HeadEvent, goes_on
from relay.services import Services, services_of
from relay.store import TokenRecord
from relay.websocket import FRAME_SOCKET, FrameSocket
from schema import messages
from schema.errors import (
    CorollaError,
    Forbidden,
    MalformedMessage,
    Moved,
    Unavailable,
    UnexpectedMessage,
    Unresponsive,
)
from schema.ids import SessionId, derive_peer_id
from schema.protocol import RelayConnection
from schema.swarm import EvidenceKind

HANDSHAKE_SECONDS = 10.0
ARRIVAL_SECONDS = 15.0
"""How long a peer that moves may be welcome here before it has arrived; it tries to for far less
(`MOVE_SECONDS`, corolla/carrier.py)."""
RETRY_SECONDS = 1.0
"""After which a peer whose move has failed may try to connect anew."""
GOODBYE_SECONDS = 2.0
"""How long a peer whose socket is full may take to accept its goodbye."""

_HEARTBEAT, _DELTA = b'{"type":"heartbeat"', b'{"type":"delta"'
"""How this project's peers write them; others' may begin differently, and take the longer way."""
_IDLE_SECONDS = 0.01
"""Without a message; see `_on_text`."""

log = logging.getLogger(__name__)


class Disconnected(Exception):
    """The socket is gone."""


async def peer_endpoint(scope: Scope, receive: Receive, send: Send) -> None:
    """The ASGI application behind `/ws/peer`."""
    services = services_of(scope)
    try:
        token = await services.store.authenticate(bearer_token(scope))
        await _require_peer(services, token)
    except CorollaError as error:
        services.metrics.refuse(error.code)
        await deny_upgrade(receive, send, error)
        return
    await receive()  # websocket.connect
    await send({"type": "websocket.accept"})
    session = _PeerSession(services, token, receive, send, scope.get("extensions", {}).get(FRAME_SOCKET))
    try:
        peer = await session.handshake()
    except Disconnected:
        return
    except CorollaError as error:
        services.metrics.refuse(error.code)
        if token.kind == "volunteer":
            services.refusals.note(token.id, "", messages.ErrorInfo.of(error), time.time())
        with suppress(OSError):
            await say_goodbye(send, error)
        return
    await session.run(peer)


async def _require_peer(services: Services, token: TokenRecord) -> None:
    """Raises Forbidden: a token that is not for peers, or whose limits do not hold for what a peer drives."""
    if token.kind == "admin":
        raise Forbidden("an admin's token neither serves nor drives: ask for a volunteer's or a client's")
    await _require_no_limits(services, token.kind, token.id)


async def _require_no_limits(services: Services, kind: str, token_id: str) -> None:
    """Raises Forbidden: a client's token that has limits, which whoever drives replies need not keep."""
    if kind == "client" and (await services.allowances.of(token_id)).is_limited:
        raise Forbidden("this token has limits, which cannot be kept here: use the API, or a token without")


class _PeerSession:
    """One connection. Belongs to the connection's task; reading and sending are tasks of their own."""

    def __init__(
        self,
        services: Services,
        token: TokenRecord,
        receive: Receive,
        send: Send,
        frame_socket: FrameSocket | None,
    ) -> None:
        self._services = services
        self._token = token
        self._receive = receive
        self._send = send
        self._frame_socket = frame_socket
        self._connection = RelayConnection()
        self._tasks: set[asyncio.Task[None]] = set()
        self._broke_websocket = False
        """Whether the server ended it for bytes that are no message."""
        self._moves = False
        """Whether the peer comes from another connection of its own; until it has, that one is it."""

    async def handshake(self) -> Peer:
        """Wait for the hello.

        Raises:
            CorollaError: why there will be no connection. Disconnected: the other side has left.
        """
        try:
            async with asyncio.timeout(HANDSHAKE_SECONDS):
                event = await self._receive()
        except TimeoutError:
            raise Unresponsive(f"no hello within {HANDSHAKE_SECONDS:g} s") from None
        if event["type"] == "websocket.disconnect":
            count_server_refusal(event, self._services.metrics)
            raise Disconnected
        hello = self._connection.receive_text(_text_of(event))
        if not isinstance(hello, messages.Hello):
            raise UnexpectedMessage("the first message is a hello")
        self._moves = hello.moves is True
        identity = Identity(
            id=derive_peer_id(self._token.id, hello.instance),
            name=hello.name,
            token_id=self._token.id,
            role=self._token.kind,
            can_move=hello.can_move is True,
            hears_operators=hello.hears_operators is True,
        )
        now = asyncio.get_running_loop().time()
        return Peer(identity, self._connection, self._services.settings.queue_bytes, now)

    async def run(self, peer: Peer) -> None:
        """Serve a peer until either side is done."""
        self._welcome(peer)
        if self._frame_socket is not None:
            peer.use(self._frame_socket)
            self._frame_socket.deliver_frames_to(partial(self._on_frame, peer))
            self._frame_socket.offer_texts_to(partial(self._on_text, peer))
            peer.ping(asyncio.get_running_loop().time())
        reading = self._start(self._read_loop(peer))
        sending = self._start(peer.send_loop(self._send))
        if self._moves:
            self._start(self._expect_arrival(peer))
        try:
            await asyncio.wait({reading, sending, peer.ended}, return_when=asyncio.FIRST_COMPLETED)
            reading.cancel()
            self._stop_frames()
            self._leave(peer)  # before the goodbye, which a stuck peer may not take
            if peer.ending is not None:
                await asyncio.wait({sending}, timeout=GOODBYE_SECONDS)
        finally:
            self._stop_frames()
            tasks = list(self._tasks)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self._leave(peer)
            self._services.metrics.connections[peer.role] -= 1
            await self._free_span(peer)

    def _welcome(self, peer: Peer) -> None:
        services = self._services
        services.metrics.connections[peer.role] += 1
        self._moves = self._moves and services.replicas.knows(peer.id)
        if not self._moves:
            self._enter(peer, moved=False)
        peer.tell(
            messages.Welcome(
                peer=peer.id,
                heartbeat_seconds=services.settings.heartbeat_seconds,
                models=services.swarm.priority,
                software=services.software,
                moves=True if self._moves else UNSET,
            )
        )

    def _enter(self, peer: Peer, *, moved: bool) -> None:
        services = self._services
        older = services.hub.add(peer)
        if older is not None:
            self._forget(older)
        services.replicas.came(peer, moved=moved)
        services.joining.adopt(peer, asyncio.get_running_loop().time())
        log.info(
            "%s %s",
            peer.name,
            "moved here" if moved else "connected",
            extra={"peer": peer.id, "role": peer.role},
        )

    def _arrive(self, peer: Peer) -> None:
        """A peer goes on here with all that it holds.

        Raises Unavailable when it has been given up meanwhile, and what it holds with it: as somebody new it
        is to connect, and to offer what it has, which nobody would tell it here.
        """
        if not self._services.replicas.knows(peer.id):
            raise Unavailable("the move took too long: connect again", retry_after=RETRY_SECONDS)
        self._moves = False
        self._enter(peer, moved=True)

    async def _expect_arrival(self, peer: Peer) -> None:
        """Nobody else would end a connection of which the hub does not know."""
        await asyncio.sleep(ARRIVAL_SECONDS)
        if self._moves and peer.ending is None:
            self._give_up(peer, Unresponsive(f"it has not arrived within {ARRIVAL_SECONDS:g} s"))

    def _leave(self, peer: Peer) -> None:
        """Take a peer out, so that nobody can find it any more; only the first call does something."""
        if self._services.hub.remove(peer):
            self._forget(peer)

    def _forget(self, peer: Peer) -> None:
        """Tell everybody who counts on a peer, at once, that its connection and what it carried are gone."""
        services = self._services
        reason = peer.ending.code if peer.ending else "disconnected"
        if peer.ending is not None:
            services.metrics.refuse(reason)
        log.info("%s left: %s", peer.name, reason, extra={"peer": peer.id, "reason": reason})
        volunteer = services.swarm.get(peer.id)
        state = None if volunteer is None else volunteer.state
        if peer.ending is not None and is_refusal(peer.ending, state):
            self._note_refusal(peer, messages.ErrorInfo.of(peer.ending))
        services.replicas.left(peer.id)
        services.joining.drop(peer)
        broken = services.forwarder.peer_left(peer.id) + services.replies.peer_left(peer.id)
        departure = Departure(
            ending=peer.ending,
            broken=broken,
            was_probing=state == "probing",
            was_draining=state == "draining",
            relay_stops=self._frame_socket is not None and self._frame_socket.is_shut_down,
            broke_websocket=self._broke_websocket,
        )
        self._note(peer, of_departure(departure), broken)

    def _note_refusal(self, peer: Peer, error: messages.ErrorInfo) -> None:
        """Keep for its owner why a volunteer does not serve; clients have nothing to join."""
        if peer.role == "volunteer":
            self._services.refusals.note(peer.token_id, peer.name, error, time.time())

    def _note(self, peer: Peer, seen: EvidenceKind | None, worst: float = 0.0) -> None:
        """Count what was seen of a volunteer; clients have no score."""
        if seen is not None and peer.role == "volunteer":
            self._services.outcomes.note(peer.id, seen, worst)

    async def _free_span(self, peer: Peer) -> None:
        if self._services.hub.find(peer.id) is not None:
            return  # a newer connection of the same peer goes on with the row
        try:
            await self._services.joining.remove_row(peer)
        except CorollaError as error:
            log.warning("its row stays for now: %s", error.message, extra={"peer": peer.id})

    def _start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._finish)
        return task

    def _finish(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        # What the server raises once the other side is gone, or once it has closed by itself.
        if error is not None and not isinstance(error, OSError | RuntimeError):
            log.error("a connection's task failed", exc_info=error)

    async def _read_loop(self, peer: Peer) -> None:
        """Everything that comes through ASGI: texts, and frames that are not delivered the short way."""
        receive = self._receive
        try:
            while True:
                event = await receive()
                if peer.ending is not None:
                    return
                frame = event.get("bytes")
                if frame is not None:
                    self._on_frame(peer, frame)
                elif event["type"] == "websocket.disconnect":
                    self._broke_websocket = count_server_refusal(event, self._services.metrics)
                    return
                else:
                    peer.heard = asyncio.get_running_loop().time()
                    await self._control(peer, _text_of(event))
        except Exception as error:  # noqa: BLE001 - the peer's connection ends with it, and it is logged
            self._give_up(peer, error)

    def _on_frame(self, peer: Peer, frame: bytes) -> None:
        if peer.ending is not None:
            return
        peer.heard = max(peer.heard, asyncio.get_running_loop().time())
        try:
            self._services.forwarder.forward(peer, frame)
        except Exception as error:  # noqa: BLE001 - as above
            self._give_up(peer, error)

    def _on_text(self, peer: Peer, text: bytes) -> bool:
        """Spare what peers say most the queue and a turn of the read loop: heartbeats, and pieces of replies.

        Not one heartbeat right after another, or beside a message that is being worked on: whoever sends
        that much takes the way on which it has to wait.
        """
        now = asyncio.get_running_loop().time()
        is_idle = now - peer.heard >= _IDLE_SECONDS
        is_piece = peer.role == "volunteer" and text.startswith(_DELTA)
        is_short = is_piece or (is_idle and text.startswith(_HEARTBEAT))
        if not is_short or self._moves or peer.ending is not None:
            return False
        peer.heard = now
        try:
            message = self._connection.receive_text(text)
            if isinstance(message, messages.Delta):
                self._on_reply(peer, message, text.decode())
            elif isinstance(message, messages.Heartbeat):
                self._on_heartbeat(peer, message, now)
            else:
                return False
        except Exception as error:  # noqa: BLE001 - as above
            self._give_up(peer, error)
        return True

    def _on_heartbeat(self, peer: Peer, message: messages.Heartbeat, now: float) -> None:
        self._services.joining.heartbeat(peer, message)
        self._services.hub.answer(peer, now)

    def _give_up(self, peer: Peer, error: Exception) -> None:
        """End the connection of a peer whose message was refused, or could not be handled."""
        self._stop_frames()
        if isinstance(error, CorollaError):
            log.warning("%s: %s", error.code, error.message[:MAX_REASON_CHARS], extra={"peer": peer.id})
            if self._moves:  # it has never been in, and so `_forget` will not count it
                self._services.metrics.refuse(error.code)
            peer.end(error)
        else:
            log.error("a message could not be handled", exc_info=error, extra={"peer": peer.id})
            peer.end(CorollaError("the relay made a mistake here: its log says more"))

    def _stop_frames(self) -> None:
        if self._frame_socket is not None:
            self._frame_socket.deliver_frames_to(None)
            self._frame_socket.offer_texts_to(None)

    async def _control(self, peer: Peer, text: str) -> None:
        message = self._connection.receive_text(text)
        match message:
            case messages.Arrived() if self._moves:
                self._arrive(peer)
            case _ if self._moves:
                raise UnexpectedMessage("a peer that moves says nothing before it has arrived")
            case messages.Moving():
                await self._hand_over(peer)
            case messages.Heartbeat():
                self._on_heartbeat(peer, message, peer.heard)
            case messages.RouteRequest():
                await self._grant(peer, message)
            case _ if peer.role != "volunteer":
                raise Forbidden("a client's token cannot serve blocks: ask for a volunteer's token")
            case (
                messages.Delta() | messages.Embedded() | messages.Finished() | messages.Failed(request=str())
            ):
                self._on_reply(peer, message, text)
            case _:
                with peer.excused():
                    await self._membership(peer, message)

    def _on_reply(self, peer: Peer, message: HeadEvent, text: str) -> None:
        """What a head says of a reply, which another replica may run."""
        services, request = self._services, message.request or ""
        owner = owner_of(request)
        if owner == services.replicas.neighbours.key or not owner:
            services.replies.deliver(peer.id, message)
        elif not services.replicas.pass_on(peer.id, owner, text) and goes_on(message):
            peer.tell(messages.Cancel(request=request))  # whoever has asked is gone

    async def _hand_over(self, peer: Peer) -> None:
        """Let a peer go that goes on elsewhere, once all that was said on either side has been passed on."""
        services = self._services
        services.joining.release(peer)
        services.forwarder.peer_moved(peer.id)
        await services.replicas.release(peer)
        peer.finish(Moved("go on over the other connection"))

    async def _membership(self, peer: Peer, message: messages.FromPeer) -> None:
        joining = self._services.joining
        match message:
            case messages.Offer():
                await joining.offer(peer, message)
            case messages.Progress():
                joining.progress(peer, message)
            case messages.Loaded():
                await joining.loaded(peer, message)
            case messages.Ready():
                await self._ready(peer, message)
            case messages.Draining():
                if joining.draining(peer):
                    self._start(self._save_draining(peer))
            case messages.Failed():
                reason = message.error.message[:MAX_REASON_CHARS]
                log.warning("%s cannot serve: %s", peer.name, reason, extra={"peer": peer.id})
                self._note_refusal(peer, message.error)
                self._note_failed_probe(peer)
                joining.drop(peer)
                await joining.remove_row(peer)
            case _:
                raise UnexpectedMessage(f"{type(message).__name__} is not expected now")

    async def _ready(self, peer: Peer, message: messages.Ready) -> None:
        """Only a probe that was asked for speaks for a volunteer: whoever repeats himself proves nothing."""
        probing = self._services.probing
        if not probing.asks(peer.id):
            await self._services.joining.ready(peer, message)
            self._services.refusals.joined(peer.token_id, peer.name)
        elif not probing.take(peer.id, SessionId(bytes.fromhex(message.session))):
            return
        self._note(peer, "probe_passed")

    def _note_failed_probe(self, peer: Peer) -> None:
        volunteer = self._services.swarm.get(peer.id)
        if volunteer is not None and volunteer.state == "probing":
            self._note(peer, "probe_failed")

    async def _save_draining(self, peer: Peer) -> None:
        """Beside the read loop: the sessions of a volunteer that leaves go on, database or not."""
        try:
            await self._services.joining.save_draining(peer)
        except CorollaError as error:
            log.warning("its span stays taken until it has left: %s", error.message, extra={"peer": peer.id})

    async def _grant(self, peer: Peer, request: messages.RouteRequest) -> None:
        try:
            await _require_no_limits(self._services, peer.role, peer.token_id)  # given since it connected
            peer.tell(self._services.routing.grant(peer.id, request))
            self._services.metrics.sessions += 1
            if isinstance(request.repairs, str):
                self._services.metrics.count_repair(request.repairs)
                self._services.history.repaired(peer.id)
        except CorollaError as error:
            self._services.metrics.refuse(error.code)
            peer.tell(messages.Refused(request=request.request, error=messages.ErrorInfo.of(error)))


def _text_of(event: MutableMapping[str, Any]) -> str:
    text = event.get("text")
    if not isinstance(text, str):
        raise MalformedMessage("a JSON text message was expected here")
    return text
