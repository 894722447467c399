"""How a reply begins, and begins again: a session that holds its tokens, whatever becomes of its hops.

The hops of an earlier reply may still hold its keys and values (see corolla/prefixes.py). Then the new
session begins as a fork of that one, and only the rest of the prompt is computed. Where a hop holds it no
more, the prompt is computed as a whole, which costs the reply nothing but time.

A session that breaks off is replaced by one over another route (see corolla/repair.py). That one goes on with
what the hops that are left hold (see corolla/resuming.py); where that cannot be, all tokens go into it that
were in the other, the prompt's and the reply's. Does not know sampling or text.
"""

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial

from corolla.all_positions import States, prefill_all
from corolla.exchange import Exchange
from corolla.prefixes import KeptSession, Match, PrefixIndex, Wanted
from corolla.repair import PASSING, Break, Repairs
from corolla.replaying import resume
from corolla.resuming import plan_resumption
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
    states: States | None = None
    """Is given the hidden states of all positions: nothing is used again, and a session that breaks off while
    they come is begun anew, from the first position on."""


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
    def repairs(self) -> int:
        """How often it was begun again over another route."""
        return self._repairs.count

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
        if not self._beginner.goes_on(self.remote.broken, self._repairs):
            await self._beginner.end(self.remote)
            raise error
        log.warning(
            "the reply goes on over another route: %s", error.message, extra={"session": self.remote.id.hex()}
        )
        held = await self._beginner.hold(
            replace(self._prompt, tokens=fed, states=None), self._repairs, self.remote
        )
        self.remote = held.session
        return held.hidden


class Beginner:
    """Begins the sessions of one driver."""

    def __init__(
        self, exchange: Exchange, prefixes: PrefixIndex | None, on_break: Callable[[], None] | None = None
    ) -> None:
        """Without `prefixes` every prompt is computed as a whole, and no session is kept.

        `on_break` is called when a session has broken and another one is sought; it raises nothing.
        """
        self._exchange = exchange
        self._prefixes = prefixes
        self._on_break = on_break

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

    def goes_on(self, broken: Break | None, repairs: Repairs) -> bool:
        """Whether to begin again after this."""
        goes_on = repairs.broke(broken, time.monotonic())
        if goes_on and self._on_break is not None:
            self._on_break()
        return goes_on

    async def end(self, session: RemoteSession) -> None:
        """Free a session on every hop, or have them keep it."""
        await session.__aexit__(None, None, None)
        self._forget_lost(session)

    async def hold(self, prompt: Prompt, repairs: Repairs, broken: RemoteSession | None = None) -> _Held:
        """A session that holds the prompt, at the first attempt that `repairs` allows and that succeeds.

        `broken`: one that broke off. What its hops hold is gone on with where that can be; then it is over.
        """
        is_whole = needs_all = prompt.states is not None
        try:
            while True:
                if broken is not None:
                    self._forget_lost(broken)
                    if needs_all or not repairs.may_resume or broken.remains() is None:
                        await self.end(broken)  # nobody needs what it holds while others are waited for
                        broken = None
                try:
                    session, match = await self._open(prompt, repairs, is_whole, broken)
                except (ModelUnavailable, Unavailable) as error:
                    if not repairs.count:
                        raise
                    is_cut_off = not isinstance(error, ModelUnavailable)
                    await asyncio.sleep(repairs.wait(time.monotonic(), is_cut_off))
                    continue
                if broken is not None:
                    held = await self._resume(session, broken, prompt, repairs)
                    broken = None
                    if held is not None:
                        return held
                    if session.broken is not None:
                        continue
                try:
                    return await self._prefill(session, prompt, match)
                except CorollaError as error:
                    broken = session
                    if match is not None and isinstance(error, StepFailed):
                        log.info("a kept session could not be used: %s", error.message)
                        self._forget(match.kept)
                        is_whole = True
                        await self.end(session)
                        broken = None
                    elif not self.goes_on(session.broken, repairs):
                        raise
        finally:
            if broken is not None:
                await self.end(broken)

    async def _open(
        self, prompt: Prompt, repairs: Repairs, is_whole: bool, broken: RemoteSession | None
    ) -> tuple[RemoteSession, Match | None]:
        """A session, and what it may begin with: that depends on its route, and its route on that."""
        remains = None if broken is None else broken.remains()
        prefer = frozenset(hop.peer for hop in remains.hops) if remains else frozenset[PeerId]()
        open_with = partial(
            open_session, self._exchange, prompt.model, exclude=repairs.excluded, repairs=repairs.reason
        )
        prefixes = self._prefixes
        if prefixes is None or is_whole:
            return await open_with(prefer=prefer), None
        wanted = Wanted(prompt.model, prompt.asker, prompt.tokens)
        found = prefixes.find(wanted, time.monotonic())
        if found and not prefer:
            prefer = frozenset(hop.peer for hop in found.kept.hops)
        session = await open_with(prefer=prefer)
        return session, prefixes.find(wanted._replace(hops=session.hops), time.monotonic())

    async def _resume(
        self, session: RemoteSession, broken: RemoteSession, prompt: Prompt, repairs: Repairs
    ) -> _Held | None:
        """Goes on in a session as what a broken one was, and ends that one.

        None where it cannot be: either the session is untouched, or it has broken too, and is over.
        """
        remains, tokens = broken.remains(), prompt.tokens
        plan = None if remains is None else plan_resumption(remains, session.hops, len(tokens))
        try:
            if plan is None:
                return None
            await session.__aenter__()
            session.forked = broken.forked
            hops = len(session.hops)
            missed = await prompt.embed(tokens[: plan.position], 0, hops) if plan.new else []
            rest = await prompt.embed(tokens, plan.position, hops)
            return _Held(session, await resume(session, plan, missed, rest), session.forked)
        except CorollaError as error:
            log.info("what the hops hold cannot be gone on with: %s", error.message)
            reason = session.broken
            await self.end(session)
            if reason is None or not (reason.is_gone or isinstance(reason.error, PASSING)):
                repairs.may_resume = False
            elif not self.goes_on(reason, repairs):
                raise
            return None
        except BaseException:
            await self.end(session)
            raise
        finally:
            await self.end(broken)

    async def _prefill(self, session: RemoteSession, prompt: Prompt, match: Match | None) -> _Held:
        """Opens the session, and sends it the prompt."""
        await session.__aenter__()
        try:
            if match is not None:
                session.fork(match.kept.id, match.tokens)
            slices = await prompt.embed(prompt.tokens, session.forked, len(session.hops))
            if prompt.states is not None:
                return _Held(session, await prefill_all(session, slices, prompt.states), 0)
            return _Held(session, await session.prefill(slices), session.forked)
        except CorollaError:
            raise
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
