"""A volunteer from its first dial to its last goodbye.

    dial -> offer -> assignment -> load -> probe through the relay -> serve, until the link breaks,
    then dial again with the same span, until it is told to stop or cannot go on;
    another assignment -> finish what it has -> let go of the span -> load -> probe -> serve

Everything here belongs to the event loop's thread; the device thread owns the device. Does not know
how blocks are computed (volunteer/stage.py) or text is made (corolla/generation.py).
"""

import asyncio
import logging
import random
from collections.abc import Coroutine, Sequence
from contextlib import suppress
from typing import Any, TypeVar

from msgspec import UNSET

from corolla.carrier import Carrier
from corolla.exchange import Exchange
from corolla.link import LinkOptions, RelayLink
from schema import messages
from schema.errors import CorollaError, JoinRefused, NotServing, Unavailable
from schema.frames import Header
from schema.ids import Span
from schema.messages import ErrorInfo, FromRelay, Heartbeat
from volunteer import probing
from volunteer.config import Config
from volunteer.device import DeviceThread
from volunteer.gauge import Gauge
from volunteer.head_service import HeadService
from volunteer.loading import Candidate, LoadedPart, Loader
from volunteer.progress import ReportProgress, at_most_every, to_relay
from volunteer.retrying import backoff, is_hopeless
from volunteer.span_service import SpanService

DRAIN_SECONDS = 20.0
"""How long a leaving volunteer goes on with the replies that it drives and the sessions that it serves."""
MOVE_SECONDS = 120.0
"""How long a volunteer that is moved goes on with them. Those that are left then go on over others."""
PROGRESS_SECONDS = 0.25
"""How often the relay is told how far the loading is."""
CLOSE_SECONDS = 5.0
"""How long what is queued for the relay may take to be sent when the link is closed."""

log = logging.getLogger(__name__)
_M = TypeVar("_M", bound=FromRelay)
_T = TypeVar("_T")


class Node:
    """One volunteer process."""

    def __init__(self, config: Config, software: str, loader: Loader, device: DeviceThread) -> None:
        self._config = config
        self._loader = loader
        self._device = device
        self._options = LinkOptions(
            config.relay_url, config.token, config.name, software, can_move=True, hears_operators=True
        )
        self._exchange = Exchange()
        self._spans = SpanService(self._exchange, device)
        self._exchange.serve(self._spans)
        self._heads = HeadService(self._exchange, self._tell)
        self._prover = probing.Prover(self._exchange, self._tell)
        self._loading: asyncio.Task[LoadedPart] | None = None
        """Puts the span into memory, and holds it; outlives links."""
        self._letting_go: asyncio.Task[None] | None = None
        """Frees the memory of the span before; outlives links too."""
        self._gauge: Gauge | None = None
        self._gauging: asyncio.Task[None] | None = None
        """Measures how fast that is, while nothing is served."""
        self._mail: asyncio.Queue[FromRelay] = asyncio.Queue()
        """Control messages of the way into the swarm, in order."""
        self._failures = 0
        """Since it last served."""
        self._pause: str | None = None
        """Why no new sessions are taken now; outlives links."""
        self._stopping = asyncio.Event()

    def stop(self) -> None:
        """Leave gracefully; `run` returns when that is done."""
        self._stopping.set()

    def set_pause(self, reason: str | None) -> None:
        """Take no new sessions, for a reason, or take them again (None). Those that it has are finished."""
        was_paused = self._pause is not None
        self._pause = reason
        if was_paused == (reason is not None):
            return
        if reason is None:
            log.info("resumed: new sessions are taken again")
        else:
            self._log_pause()
        self._tell_state()

    async def run(self) -> None:
        """Serve until `stop`.

        Raises:
            CorollaError: why this volunteer cannot go on; dialling again would not help.
        """
        try:
            while not self._stopping.is_set():
                try:
                    await self._serve_once()
                except CorollaError as error:
                    if self._stopping.is_set():
                        log.info("left without the relay: %s", error.message)
                        break
                    if is_hopeless(error):
                        raise
                    self._failures += 1
                    delay = backoff(self._failures, error.retry_after, random.random())
                    log.warning("%s; trying again in %.1f s", error.message, delay)
                    await self._unless_stopping(asyncio.sleep(delay))
        finally:
            tasks: list[asyncio.Task[Any]] = [task for task in (self._loading, self._gauging) if task]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    # ---- one connection -----------------------------------------------------------------------

    async def _serve_once(self) -> None:
        """Dial, join, and serve until the link ends."""
        carrier = await self._unless_stopping(Carrier.dial(self._options, self._exchange, self))
        if carrier is None:
            return
        log.info("relay reached: %s; token accepted", carrier.link.url)
        self._mail = asyncio.Queue()
        running = asyncio.create_task(carrier.run(self._heartbeat))
        living = asyncio.create_task(self._live(carrier))
        try:
            await asyncio.wait({running, living}, return_when=asyncio.FIRST_COMPLETED)
            for task in (running, living):  # the relay's reason goes first
                if task.done():
                    task.result()
        finally:
            living.cancel()
            await asyncio.gather(living, return_exceptions=True)
            await self._prover.close()
            await self._heads.close()  # while the other hops can still be told
            carrier.close()
            with suppress(CorollaError, TimeoutError):
                await asyncio.wait_for(running, CLOSE_SECONDS)
            self._exchange.detach(Unavailable("the connection to the relay was lost", retry_after=1.0))
            self._spans.close_all()

    async def _live(self, carrier: Carrier) -> None:
        """Join, and serve what the relay says until `stop`; then drain."""
        carrier.can_move = False  # what has begun here cannot be gone on with elsewhere before it serves
        try:
            await self._unless_stopping(self._join(carrier.link))
            carrier.can_move = True
            await self._unless_stopping(self._follow_moves(carrier))
        except CorollaError as error:
            with suppress(CorollaError):
                carrier.link.send_message(messages.Failed(error=ErrorInfo.of(error)))
            raise
        await self._drain()

    async def _join(self, link: RelayLink) -> None:
        if self._letting_go is not None:
            await asyncio.shield(self._letting_go)
        held = None if self._loading is None else await self._in_memory(self._loading)
        candidates = (
            await asyncio.to_thread(self._loader.consider, link.welcome.models)
            if held is None
            else [held.candidate]
        )
        link.send_message(self._loader.offer(candidates, held))
        assigned = await self._expect(messages.Assignment)
        span = Span(assigned.start, assigned.end)
        log.info(
            "span given: blocks %s of %s%s", span, assigned.model, " and the head" if assigned.head else ""
        )
        part = held
        if part is None or not part.is_for(assigned):
            part = await self._load(candidates, assigned)
        await self._prove(part, assigned)

    async def _prove(self, part: LoadedPart, assigned: messages.Assignment) -> None:
        """Tell that the span is loaded, pass the probe, and serve."""
        self._tell(part.report(assigned))
        probe = await self._expect(messages.Probe)
        hidden_size, dtype = part.candidate.facts.hidden_size, part.candidate.options.dtype
        await probing.pass_probe(self._exchange, probe, hidden_size, dtype)
        if self._pause is not None:
            self._tell(self._heartbeat())  # before the relay could plan a route over it
        self._tell(messages.Ready(session=probe.session))
        log.info("probe passed")
        await self._expect(messages.Serving)
        self._prover.serve(hidden_size, dtype)
        log.info("serving blocks %s of %s", part.span, assigned.model)
        self._log_pause()
        self._failures = 0

    async def _follow_moves(self, carrier: Carrier) -> None:
        """Serve other blocks whenever the relay says so."""
        while True:
            message = await self._mail.get()
            if isinstance(message, messages.Assignment) and self._loading is not None:
                carrier.can_move = False  # as while it joins
                await self._move(await self._in_memory(self._loading), message)
                carrier.can_move = True

    async def _move(self, part: LoadedPart, assigned: messages.Assignment) -> None:
        log.info("other blocks given: %s:%s of %s", assigned.start, assigned.end, assigned.model)
        await self._prover.close()
        await self._heads.finish()  # what writes a reply holds the head's memory; the relay ends long ones
        with suppress(TimeoutError):
            async with asyncio.timeout(MOVE_SECONDS):
                await self._spans.finish()
        self._spans.close_all()
        candidate = part.candidate
        del part
        await self._let_go()
        await self._prove(await self._load([candidate], assigned), assigned)

    async def _let_go(self) -> None:
        """Free the memory of what is served: there is none for a second span.

        Also if the link breaks meanwhile: what is measured and loaded next counts on it.
        """
        if self._gauging is not None:
            self._gauging.cancel()
        self._loading = self._gauge = self._gauging = None
        self._heads.uninstall()
        self._letting_go = asyncio.create_task(self._empty_device())
        await asyncio.shield(self._letting_go)

    async def _empty_device(self) -> None:
        with suppress(NotServing):  # the volunteer leaves, and its memory goes with it
            await self._device.uninstall()
            await self._loader.release(self._device)

    async def _load(self, candidates: Sequence[Candidate], assigned: messages.Assignment) -> LoadedPart:
        candidate = next((one for one in candidates if one.name == assigned.model), None)
        if candidate is None:
            raise JoinRefused(f"the relay assigned {assigned.model!r}, which was not offered")
        link = self._exchange.link

        def tell(message: messages.FromPeer) -> None:
            if self._exchange.link is link:  # over another one it would come before the offer
                link.send_message(message)

        report = at_most_every(PROGRESS_SECONDS, to_relay(tell))

        def progress(done: int, total: int) -> None:
            if self._stopping.is_set():  # a large span takes minutes, and a thread cannot be cancelled
                raise NotServing("this volunteer left while it was loading its span")
            report(done, total)

        self._loading = asyncio.create_task(self._fill_memory(candidate, assigned, progress))
        return await self._in_memory(self._loading)

    async def _fill_memory(
        self, candidate: Candidate, assigned: messages.Assignment, progress: ReportProgress
    ) -> LoadedPart:
        part = await self._loader.load(self._device, candidate, assigned, progress)
        log.info("weights loaded: %s", part)
        head = part.driver(self._device.call, self._device.call_at_once, reuses=self._config.prefix_cache > 0)
        if head is not None:
            self._heads.install(head, candidate.name)
        self._keep_measured(part.gauge)
        return part

    async def _in_memory(self, loading: asyncio.Task[LoadedPart]) -> LoadedPart:
        """The part when it is loaded; a broken link does not undo what was loaded so far."""
        try:
            return await asyncio.shield(loading)
        except CorollaError:
            self._loading = None
            raise

    async def _expect(self, kind: type[_M]) -> _M:
        message = await self._mail.get()
        if not isinstance(message, kind):
            raise JoinRefused(f"the relay sent {type(message).__name__} where {kind.__name__} was due")
        return message

    async def _drain(self) -> None:
        """Take nothing new; finish the replies that are driven here and the sessions that others drive."""
        log.info("leaving: %d replies to finish, %d sessions to serve", len(self._heads), len(self._spans))
        self._tell(messages.Draining())
        await self._finish(DRAIN_SECONDS)

    async def _finish(self, seconds: float) -> None:
        """Wait for the end of all that goes on here, but not longer."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._heads.finish()
                await self._spans.finish()

    async def _unless_stopping(self, work: Coroutine[Any, Any, _T]) -> _T | None:
        """The result of `work`, or None when it was cut short by `stop`."""
        working = asyncio.create_task(work)
        stopping = asyncio.create_task(self._stopping.wait())
        try:
            await asyncio.wait({working, stopping}, return_when=asyncio.FIRST_COMPLETED)
            return working.result() if working.done() else None
        finally:
            for task in (working, stopping):
                task.cancel()
            await asyncio.gather(working, stopping, return_exceptions=True)

    def _heartbeat(self) -> Heartbeat:
        stats = self._device.stats()
        return Heartbeat(
            sessions=stats.sessions,
            queued=stats.queued,
            kv_used=stats.kv_used,
            paused=UNSET if self._pause is None else True,
            blocks_per_second=(
                UNSET if self._gauge is None else self._gauge.table.throughput.blocks_per_second
            ),
        )

    def _keep_measured(self, gauge: Gauge) -> None:
        if self._gauging is not None:
            self._gauging.cancel()
        self._gauge = gauge
        self._gauging = asyncio.create_task(gauge.keep(self._is_idle, self._tell_state))

    def _is_idle(self) -> bool:
        """Whether nobody waits for this machine: no session, no reply, and its owner neither."""
        return self._pause is None and not len(self._spans) and not len(self._heads)

    def _log_pause(self) -> None:
        if self._pause is not None:
            log.info(
                "paused (%s): no new sessions; %d replies to finish, %d sessions to serve",
                self._pause,
                len(self._heads),
                len(self._spans),
            )

    def _tell_state(self) -> None:
        with suppress(CorollaError):  # without a link the relay is told on the way back in
            self._tell(self._heartbeat())

    def _tell(self, message: messages.FromPeer) -> None:
        self._exchange.link.send_message(message)

    # ---- what arrives over the link -----------------------------------------------------------

    def on_frame(self, header: Header, message: bytes) -> None:
        self._exchange.on_frame(header, message)

    def on_message(self, message: FromRelay) -> None:
        if self._exchange.on_message(message):
            return
        match message:
            case messages.Generate() | messages.Embed():
                self._heads.start(message)
            case messages.Cancel():
                self._heads.cancel(message.request)
            case messages.Quarantined():
                log.warning("the relay's operator keeps this volunteer out of new routes: %s", message.reason)
            case messages.Restored():
                log.info("the relay's operator lets this volunteer be in routes again: %s", message.reason)
            case _ if not self._prover.take(message):
                self._mail.put_nowait(message)
