"""A peer's connection to the relay, which may become another one while sessions go on.

    go_elsewhere ─> a second connection, welcomed ─> `moving`, the last word on the first one
                 ─> the relay has passed on all that was said, and closes it ─> `arrived` on the second one

What is sent in between waits in the second one's outbox, so nothing overtakes and nothing is lost. Where that
cannot be done, the connection is lost as any other: `run` raises, and whoever owns the carrier dials again.

Owned by the event loop's thread. Does not know what the peer does.
"""

import asyncio
import logging
import random

from corolla.exchange import Exchange
from corolla.link import LinkOptions, Receiver, RelayLink, StatusSource, dial
from schema.errors import CorollaError, Moved, Unavailable
from schema.frames import Header
from schema.messages import FromRelay, GoElsewhere

MOVE_SECONDS = 5.0
"""How long the relay may take to let go of the first connection."""
RETRY_SECONDS = 0.5
"""Before another replica is dialled once more."""

log = logging.getLogger(__name__)


class Carrier:
    """The present connection of a peer. Made by `dial`, used until `run` returns or raises."""

    def __init__(self, options: LinkOptions, exchange: Exchange, receiver: Receiver, link: RelayLink) -> None:
        self.link = link
        self.can_move = True
        """Whether what the peer is to the relay can be gone on with elsewhere; if not, it connects anew."""
        self._options = options
        self._exchange = exchange
        self._receiver = receiver
        self._status: StatusSource | None = None
        self._asked = asyncio.Event()
        self._within_seconds = 0.0
        self._is_closing = False

    @classmethod
    async def dial(cls, options: LinkOptions, exchange: Exchange, receiver: Receiver) -> "Carrier":
        """Connect, and have the exchange use it. Errors as `corolla.link.dial`."""
        link = await dial(options)
        exchange.attach(link)
        return cls(options, exchange, receiver, link)

    def close(self) -> None:
        """Send what is queued, then close; `run` returns."""
        self._is_closing = True
        self.link.close()

    async def run(self, status: StatusSource | None = None) -> None:
        """Serve the connection, and those that take its place, until `close`. Raises as `RelayLink.run`."""
        self._status = status
        running = self._start(self.link)
        asked = asyncio.create_task(self._asked.wait())
        try:
            while True:
                await asyncio.wait({running, asked}, return_when=asyncio.FIRST_COMPLETED)
                if running.done():
                    return running.result()
                self._asked.clear()
                running = await self._go_elsewhere(running)
                asked = asyncio.create_task(self._asked.wait())
        finally:
            for task in (running, asked):
                task.cancel()
            await asyncio.gather(running, asked, return_exceptions=True)

    # ---- what arrives (`corolla.link.Receiver`) ----

    def on_frame(self, header: Header, message: bytes) -> None:
        self._receiver.on_frame(header, message)

    def on_message(self, message: FromRelay) -> None:
        if isinstance(message, GoElsewhere):
            self._within_seconds = message.within_seconds
            self._asked.set()
        else:
            self._receiver.on_message(message)

    # ---- moving ----

    def _start(self, link: RelayLink) -> "asyncio.Task[None]":
        return asyncio.create_task(link.run(self, self._status))

    async def _go_elsewhere(self, running: "asyncio.Task[None]") -> "asyncio.Task[None]":
        """The connection that the peer has from now on, running. If none answers, it stays the one it was."""
        await asyncio.wait({running}, timeout=random.uniform(0.0, self._within_seconds))
        while not running.done() and not self._is_closing:
            link = await self._dial_another(running) if self.can_move else None
            if not self.can_move:
                if link is not None:
                    await link.abandon()
                running.cancel()
                await asyncio.gather(running, return_exceptions=True)
                raise Unavailable("the relay stops here, and others go on", retry_after=RETRY_SECONDS)
            if link is not None:
                return await self._move(running, link)
            await asyncio.wait({running}, timeout=RETRY_SECONDS * random.uniform(0.5, 1.5))
        return running

    async def _dial_another(self, running: "asyncio.Task[None]") -> RelayLink | None:
        """Another connection over which the peer may go on."""
        try:
            link = await dial(self._options, moves=True, after=self.link.url)
        except CorollaError as error:
            log.info("no other relay yet: %s", error.message)
            return None
        if link.welcome.moves is True and not running.done():
            return link
        await link.abandon()
        return None

    async def _move(self, running: "asyncio.Task[None]", link: RelayLink) -> "asyncio.Task[None]":
        link.hold()
        new = self._start(link)
        old, self.link = self.link, link
        self._exchange.attach(link)
        has_moved = False
        try:
            old.send_last()
            if self._is_closing:
                link.close()
            await asyncio.wait_for(running, MOVE_SECONDS)
        except Moved:
            link.release()
            log.info("moved to another relay: %s", link.url)
            has_moved = True
            return new
        except (CorollaError, TimeoutError) as error:
            log.info("the move has failed: %s", error)
        finally:
            if not has_moved:
                new.cancel()
                await asyncio.gather(new, return_exceptions=True)
        raise Unavailable("the connection to the relay was lost", retry_after=RETRY_SECONDS)
