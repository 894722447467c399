"""The replies that pages have asked for: each belongs to nobody's connection, and can be come back to.

A reply is written as its head tells it, whoever listens. Any number of listeners may follow it, from any
of its characters on, each as fast as it reads: what it has not read yet is taken from the text that is kept,
so a slow one costs nothing more and holds up nobody. When nobody listens, the reply is kept for a while,
under way or finished; then it is forgotten, and ends on its head if it has not ended. Of what nobody listens
to there is room for so many replies and so many bytes: beyond that whoever takes the most of it loses what he
left first, so that nobody ends what others may come back for.

Owned by the event loop's thread. Does not know sockets, nor where a reply's text comes from.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, Collection
from contextlib import aclosing
from dataclasses import dataclass
from typing import NamedTuple

import msgspec

from relay.metrics import Metrics
from relay.reply import ReplyEvent
from schema.browser import PageError, ReplyDelta, ReplyDone, ReplyRepairing
from schema.errors import CorollaError, InvalidRequest, NotFound, Unauthorized
from schema.messages import Delta, ErrorInfo

UNIT_BYTES = 2
"""Texts are kept in UTF-16, in whose units pages count."""
_TRAILING = range(0xDC00, 0xE000)
"""Units that are the second half of a character."""

log = logging.getLogger(__name__)

Said = ReplyDelta | ReplyRepairing | ReplyDone | PageError


class ReplyKey(NamedTuple):
    """Whose reply it is."""

    owner: str
    id: str
    can_come_back: bool
    """Whether there is somebody who could ask for it again; else it ends with its last listener."""


@dataclass(frozen=True, slots=True)
class KeepLimits:
    """What is kept of replies that nobody listens to."""

    seconds: float
    replies: int
    bytes: int
    """Of their texts."""


@dataclass(slots=True)
class _Room:
    """What one owner's replies take that nobody listens to."""

    replies: int = 0
    bytes: int = 0

    def part_of(self, limits: KeepLimits) -> float:
        """Of what there is room for."""
        return self.replies / max(1, limits.replies) + self.bytes / max(1, limits.bytes)


class KeptReply:
    """One reply: its text so far, and how it has ended."""

    def __init__(self, key: ReplyKey) -> None:
        self.key = key
        self.end: ReplyDone | PageError | None = None
        self.text = bytearray()
        """UTF-16, little endian."""
        self.repairs = 0
        """How often it has stopped as a volunteer dropped out."""
        self.is_repairing = False
        """Whether it stands still for that."""
        self._bells: set[asyncio.Event] = set()

    @property
    def listeners(self) -> int:
        return len(self._bells)

    @property
    def was_refused(self) -> bool:
        """Whether it failed before its first word: whoever has heard so has heard all of it."""
        return isinstance(self.end, PageError) and not self.text

    def add(self, text: str) -> int:
        """More of it. How many bytes that are."""
        before = len(self.text)
        self.text += text.encode("utf-16-le")
        self.is_repairing = False
        self._ring()
        return len(self.text) - before

    def repair(self) -> None:
        """It goes on as soon as others have taken the place of a volunteer."""
        self.repairs += 1
        self.is_repairing = True
        self._ring()

    def finish(self, end: ReplyDone | PageError) -> None:
        """It has ended, once."""
        self.end = self.end or end
        self._ring()

    def require_place(self, received: int) -> None:
        """Raises InvalidRequest: a text that begins after `received` units of this one would be none."""
        at = received * UNIT_BYTES
        if at > len(self.text):
            units = len(self.text) // UNIT_BYTES
            raise InvalidRequest(f"this reply has {units} characters so far, not {received}: ask for it anew")
        if int.from_bytes(self.text[at : at + UNIT_BYTES], "little") in _TRAILING:
            raise InvalidRequest(f"{received} is in the middle of a character: count UTF-16 code units")

    async def since(self, received: int) -> AsyncGenerator[Said, None]:
        """What there is after so many units, and what comes; what has gathered meanwhile comes as one."""
        bell, at, repairs = asyncio.Event(), received * UNIT_BYTES, 0
        self._bells.add(bell)
        try:
            while True:
                bell.clear()
                if at < len(self.text):
                    text = self.text[at:].decode("utf-16-le")
                    at = len(self.text)
                    yield ReplyDelta(id=self.key.id, text=text)
                elif self.end is not None:
                    yield self.end
                    return
                elif self.is_repairing and self.repairs > repairs:
                    repairs = self.repairs
                    yield ReplyRepairing(id=self.key.id)
                else:
                    await bell.wait()
        finally:
            self._bells.discard(bell)

    def _ring(self) -> None:
        for bell in self._bells:
            bell.set()


class KeptReplies:
    """The pages' replies of this replica."""

    def __init__(self, limits: KeepLimits, metrics: Metrics) -> None:
        self._limits = limits
        self._metrics = metrics
        self._replies: dict[ReplyKey, KeptReply] = {}
        self._writing: dict[KeptReply, asyncio.Task[None]] = {}
        self._left: dict[KeptReply, asyncio.TimerHandle] = {}
        """Those that nobody listens to, in the order in which they were left, and when each is forgotten."""
        self._left_bytes = 0
        self._rooms: dict[str, _Room] = {}
        """What they take, by owner."""

    def __len__(self) -> int:
        return len(self._replies)

    def begin(self, key: ReplyKey, events: AsyncGenerator[ReplyEvent, None]) -> KeptReply:
        """Have a reply written. `events`: of this one alone; they are closed when it ends.

        Raises:
            InvalidRequest: one of this id is under way. An id whose reply has ended may be used again.
        """
        former = self._replies.get(key)
        if former is not None:
            if former.end is None:
                raise InvalidRequest("a reply with this id is under way already: choose another id")
            self._forget(former)
        reply = self._replies[key] = KeptReply(key)
        self._writing[reply] = task = asyncio.create_task(self._write(reply, events))
        task.add_done_callback(lambda _: self._writing.pop(reply))
        self._set_aside(reply)
        return reply

    def find(self, key: ReplyKey, received: int) -> KeptReply:
        """A reply of which somebody has so many units already.

        Raises:
            NotFound: it is not here, or not any more. InvalidRequest: it has no such place.
        """
        reply = self._replies.get(key)
        if reply is None:
            raise _gone()
        reply.require_place(received)
        self._metrics.kept_replies["resumed"] += 1
        return reply

    async def listen(self, reply: KeptReply, received: int = 0) -> AsyncGenerator[Said, None]:
        """Its text from there on, and how it ends."""
        self._take_back(reply)
        try:
            async with aclosing(reply.since(received)) as said:
                async for one in said:
                    yield one
        finally:
            if self._replies.get(reply.key) is reply and not reply.listeners:
                self._leave(reply)

    async def stop(self, key: ReplyKey) -> None:
        """End a reply on its head. Its listeners are told, unless it had ended already."""
        reply = self._replies.get(key)
        task = None if reply is None else self._writing.get(reply)
        if reply is None or task is None or reply.end is not None:
            return
        task.cancel()
        await asyncio.wait({task})
        self._finish(reply, ReplyDone(id=key.id, reason=None))

    def end_revoked(self, owners: Collection[str]) -> None:
        """End all replies of these owners, and keep nothing of them."""
        for reply in [one for key, one in self._replies.items() if key.owner in owners]:
            self._forget(reply, Unauthorized("the token of whoever asked has been revoked"))

    async def close(self) -> None:
        """End all that are under way, and wait until they are over."""
        for reply in list(self._replies.values()):
            self._forget(reply)
        await asyncio.gather(*self._writing.values(), return_exceptions=True)

    async def _write(self, reply: KeptReply, events: AsyncGenerator[ReplyEvent, None]) -> None:
        end = ReplyDone(id=reply.key.id, reason=None)
        try:
            async with aclosing(events):
                async for event in events:
                    if isinstance(event, Delta) and event.is_repairing is True:
                        reply.repair()
                    elif isinstance(event, Delta):
                        self._add(reply, event.text)
                    else:
                        end = msgspec.structs.replace(
                            end, reason=event.reason, usage=event.usage, timing=event.timing
                        )
        except CorollaError as error:
            self._fail(reply, error)
        except Exception:
            log.exception("a reply could not be written")
            self._fail(reply, CorollaError("the relay made a mistake here"))
        else:
            self._finish(reply, end)  # when nothing is left of it: its id may be used again at once

    def _add(self, reply: KeptReply, text: str) -> None:
        more = reply.add(text)
        if reply in self._left:
            self._take_room(reply.key.owner, 0, more)
            self._make_room()

    def _fail(self, reply: KeptReply, error: CorollaError) -> None:
        self._metrics.refuse(error.code)
        self._finish(reply, _failure(reply, error))

    def _finish(self, reply: KeptReply, end: ReplyDone | PageError) -> None:
        reply.finish(end)
        if reply in self._left:
            self._take_back(reply)
            self._set_aside(reply)  # for as long again

    def _leave(self, reply: KeptReply) -> None:
        """Its last listener has gone."""
        if reply.key.can_come_back and not reply.was_refused:
            self._set_aside(reply)
            self._make_room()
        else:
            self._forget(reply)

    def _set_aside(self, reply: KeptReply) -> None:
        self._left[reply] = asyncio.get_running_loop().call_later(self._limits.seconds, self._expire, reply)
        self._take_room(reply.key.owner, 1, len(reply.text))

    def _take_back(self, reply: KeptReply) -> None:
        timer = self._left.pop(reply, None)
        if timer is not None:
            timer.cancel()
            self._take_room(reply.key.owner, -1, -len(reply.text))

    def _take_room(self, owner: str, replies: int, size: int) -> None:
        room = self._rooms.setdefault(owner, _Room())
        room.replies += replies
        room.bytes += size
        self._left_bytes += size
        if not room.replies:
            del self._rooms[owner]

    def _make_room(self) -> None:
        while len(self._left) > self._limits.replies or self._left_bytes > self._limits.bytes:
            self._metrics.kept_replies["crowded_out"] += 1
            most = max(self._rooms, key=lambda owner: self._rooms[owner].part_of(self._limits))
            self._forget(next(reply for reply in self._left if reply.key.owner == most))

    def _expire(self, reply: KeptReply) -> None:
        self._metrics.kept_replies["given_up"] += reply.end is None
        self._forget(reply)

    def _forget(self, reply: KeptReply, why: CorollaError | None = None) -> None:
        """Keep nothing of it; if it is under way, that is its end."""
        self._take_back(reply)
        del self._replies[reply.key]
        if reply.end is None:
            reply.finish(_failure(reply, why or _gone()))
            self._writing[reply].cancel()


def _gone() -> NotFound:
    return NotFound("the rest of this reply is not here any more: ask again")


def _failure(reply: KeptReply, error: CorollaError) -> PageError:
    return PageError(id=reply.key.id, error=ErrorInfo.of(error))
