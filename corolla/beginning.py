"""How a reply begins, and begins again: a session that holds its tokens, whatever becomes of its hops.

The hops of an earlier reply may still hold its keys and values (see corolla/prefixes.py). Then the new
session begins as a fork of that one, and only the rest of the prompt is computed. Where a hop holds it no
more, the prompt is computed as a whole, which costs the reply nothing but time.

A session that breaks off is replaced by one over another route (see corolla/repair.py), into which all
tokens go that were in it, the prompt's and the reply's. Does not know sampling or text.
"""

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial

from corolla.exchange import Exchange
from corolla.prefixes import KeptSession, Match, PrefixIndex, Wanted
from corolla.repair import Repairs
from corolla.session import PreparedStep, RemoteSession, Step, failed_step, open_session
from schema.errors import CorollaError, ModelUnavailable, StepFailed, Unavailable
from schema.frames import Flags, FrameType
from schema.ids import PeerId
from schema.tensors import WireTensor

Embed = Callable[[list[int], int, int], Awaitable[list[WireTensor]]]
"""Tokens from a position on, in slices for a route of so many hops."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Prompt:
    """What a session is to hold."""

    model: str
    asker: str
    """Only what the same one has asked before is used again."""
    tokens: list[int]
    embed: Embed


@dataclass(frozen=True, slots=True)
class _Held:
    """A session that holds a prompt."""

    session: RemoteSession
    hidden: WireTensor
    """Of the prompt's last position."""
    cached: int
    """Tokens of the prompt that were not computed again."""


class LastingSession:
    """A reply's session. Its steps are those of the `RemoteSession` that it has at the moment."""

    def __init__(self, beginner: "Beginner", prompt: Prompt, repairs: Repairs, held: _Held) -> None:
        self.hidden = held.hidden
        """Of the prompt's last position."""
        self.cached = held.cached
        """Tokens of the prompt that were not computed again."""
        self.fed: list[int] | None = None
        """Set at a reply's end: all tokens of the session, in order; others may then begin like it."""
        self.remote = held.session
        self._beginner = beginner
        self._prompt = prompt
        self._repairs = repairs

    @property
    def position(self) -> int:
        """Tokens sent so far."""
        return self.remote.position

    def prepare(self) -> PreparedStep | None:
        """As `RemoteSession.prepare`. None too when the session has broken, which `receive` sees to."""
        return None if self.remote.broken else self.remote.prepare()

    def withdraw(self, prepared: PreparedStep) -> None:
        self.remote.withdraw(prepared)

    def send(self, hidden: WireTensor) -> Step:
        """A decode step of one token. Where it cannot be sent, `receive` says so or mends it."""
        try:
            return self.remote.send([hidden], kind=FrameType.STEP, want=Flags.LAST_ONLY)
        except CorollaError as error:
            return failed_step(error)

    async def receive(self, step: Step, fed: Callable[[], list[int]]) -> WireTensor:
        """The hidden states after the last of the tokens `fed`, which the step has brought.

        Raises what has broken the session, if it cannot be begun again.
        """
        try:
            return await self.remote.receive(step)
        except CorollaError as error:
            return await self._begin_again(error, fed())

    async def replace(self, error: CorollaError, fed: Callable[[], list[int]]) -> WireTensor:
        """What came back is of no use, as `error` says: the same from others. Raises as `receive`."""
        self.remote.blame_last_hop(error)
        return await self._begin_again(error, fed())

    async def _begin_again(self, error: CorollaError, fed: list[int]) -> WireTensor:
        broken = self.remote.broken
        await self._beginner.end(self.remote)
        if not self._repairs.broke(broken, time.monotonic()):
            raise error
        log.warning(
            "the reply goes on over another route: %s", error.message, extra={"session": self.remote.id.hex()}
        )
        held = await self._beginner.hold(replace(self._prompt, tokens=fed), self._repairs)
        self.remote = held.session
        return held.hidden


class Beginner:
    """Begins the sessions of one driver."""

    def __init__(self, exchange: Exchange, prefixes: PrefixIndex | None) -> None:
        """Without `prefixes` every prompt is computed as a whole, and no session is kept."""
        self._exchange = exchange
        self._prefixes = prefixes

    @asynccontextmanager
    async def begin(self, prompt: Prompt) -> AsyncGenerator[LastingSession]:
        """A session inside of the `with` block; after it, freed on every hop, or kept if `fed` is set.

        Errors as `open_session` and `RemoteSession.prefill`.
        """
        repairs = Repairs()
        lasting = LastingSession(self, prompt, repairs, await self.hold(prompt, repairs))
        try:
            yield lasting
            if lasting.fed is not None and self._can_keep(lasting.remote):
                lasting.remote.keep()
        finally:
            await self.end(lasting.remote)
        if lasting.remote.is_kept and lasting.fed is not None:
            self._note(lasting.remote, prompt, lasting.fed)

    async def end(self, session: RemoteSession) -> None:
        """Free a session on every hop, or have them keep it."""
        await session.__aexit__(None, None, None)
        self._forget_lost(session)

    async def hold(self, prompt: Prompt, repairs: Repairs) -> _Held:
        """A session that holds the prompt, at the first attempt that `repairs` allows and that succeeds."""
        is_whole = False
        while True:
            try:
                session, match = await self._open(prompt, repairs, is_whole)
            except (ModelUnavailable, Unavailable) as error:
                if not repairs.count:
                    raise
                is_cut_off = not isinstance(error, ModelUnavailable)
                await asyncio.sleep(repairs.wait(time.monotonic(), is_cut_off))
                continue
            try:
                return await self._prefill(session, prompt, match)
            except StepFailed as error:
                if match is not None:
                    log.info("a kept session could not be used: %s", error.message)
                    self._forget(match.kept)
                    is_whole = True
                elif not repairs.broke(session.broken, time.monotonic()):
                    raise
            except CorollaError:
                if not repairs.broke(session.broken, time.monotonic()):
                    raise

    async def _open(
        self, prompt: Prompt, repairs: Repairs, is_whole: bool
    ) -> tuple[RemoteSession, Match | None]:
        """A session, and what it may begin with: that depends on its route, and its route on that."""
        prefixes = self._prefixes
        open_with = partial(
            open_session, self._exchange, prompt.model, exclude=repairs.excluded, repairs=repairs.reason
        )
        if prefixes is None or is_whole:
            return await open_with(), None
        wanted = Wanted(prompt.model, prompt.asker, prompt.tokens)
        found = prefixes.find(wanted, time.monotonic())
        prefer = frozenset(hop.peer for hop in found.kept.hops) if found else frozenset[PeerId]()
        session = await open_with(prefer=prefer)
        return session, prefixes.find(wanted._replace(hops=session.hops), time.monotonic())

    async def _prefill(self, session: RemoteSession, prompt: Prompt, match: Match | None) -> _Held:
        """Opens the session. If that fails it is over, and freed on every hop."""
        try:
            await session.__aenter__()
            if match is not None:
                session.fork(match.kept.id, match.tokens)
            cached = session.position
            slices = await prompt.embed(prompt.tokens, cached, len(session.hops))
            return _Held(session, await session.prefill(slices), cached)
        except BaseException:
            await self.end(session)
            raise

    def _can_keep(self, session: RemoteSession) -> bool:
        """Whether what the hops hold can be cut to what they surely hold; a step may be under way."""
        return self._prefixes is not None and self._prefixes.can_cut(session.position, session.held)

    def _note(self, session: RemoteSession, prompt: Prompt, fed: list[int]) -> None:
        if self._prefixes is None:
            return
        kept = KeptSession(
            id=session.id,
            model=prompt.model,
            asker=prompt.asker,
            hops=session.hops,
            route=session.grant.route,
            tokens=tuple(fed[: session.held]),
        )
        self._release(self._prefixes.note(kept, time.monotonic()))

    def _forget_lost(self, session: RemoteSession) -> None:
        if self._prefixes is not None and session.lost:
            self._release(self._prefixes.forget_hops(session.lost))

    def _forget(self, kept: KeptSession) -> None:
        if self._prefixes is not None:
            self._prefixes.forget(kept.id)
            self._release([kept])

    def _release(self, dropped: list[KeptSession]) -> None:
        for kept in dropped:
            self._exchange.release(kept.id, kept.route)
