"""How a reply begins: a session that holds its prompt, as much of it as possible from an earlier session.

The hops of an earlier reply may still hold its keys and values (see corolla/prefixes.py). Then the new
session begins as a fork of that one, and only the rest of the prompt is computed. Where a hop holds it no
more, the prompt is computed as a whole, which costs the reply nothing but time. Does not know sampling or
text.
"""

import logging
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from corolla.exchange import Exchange
from corolla.prefixes import KeptSession, Match, PrefixIndex, Wanted
from corolla.session import RemoteSession, open_session
from schema.errors import StepFailed
from schema.ids import PeerId
from schema.tensors import WireTensor

Embed = Callable[[int, int], Awaitable[list[WireTensor]]]
"""The prompt from a position on, in slices for a route of so many hops."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Prompt:
    """What a session is to hold."""

    model: str
    asker: str
    """Only what the same one has asked before is used again."""
    tokens: list[int]
    embed: Embed


@dataclass(slots=True)
class Begun:
    """A session that holds its prompt."""

    session: RemoteSession
    hidden: WireTensor
    """Of the prompt's last position."""
    cached: int
    """Tokens of the prompt that were not computed again."""
    fed: list[int] | None = None
    """Set at a reply's end: all tokens of the session, in order; others may then begin like it."""


class Beginner:
    """Begins the sessions of one driver."""

    def __init__(self, exchange: Exchange, prefixes: PrefixIndex | None) -> None:
        """Without `prefixes` every prompt is computed as a whole, and no session is kept."""
        self._exchange = exchange
        self._prefixes = prefixes

    @asynccontextmanager
    async def begin(self, prompt: Prompt) -> AsyncGenerator[Begun]:
        """A session inside of the `with` block; after it, freed on every hop, or kept if `fed` is set.

        Errors as `open_session` and `RemoteSession.prefill`.
        """
        begun = await self._begin(prompt)
        session = begun.session
        try:
            async with session:
                yield begun
                if begun.fed is not None and self._can_keep(session):
                    session.keep()
        finally:
            self._forget_lost(session)
        if session.is_kept and begun.fed is not None:
            self._note(session, prompt, begun.fed)

    async def _begin(self, prompt: Prompt) -> Begun:
        session, match = await self._open(prompt)
        if match is not None:
            try:
                return await self._prefill(session, prompt, match)
            except StepFailed as error:
                log.info("a kept session could not be used: %s", error.message)
                self._forget(match.kept)
                session = await open_session(self._exchange, prompt.model)
        return await self._prefill(session, prompt)

    async def _open(self, prompt: Prompt) -> tuple[RemoteSession, Match | None]:
        """A session, and what it may begin with: that depends on its route, and its route on that."""
        prefixes = self._prefixes
        if prefixes is None:
            return await open_session(self._exchange, prompt.model), None
        wanted = Wanted(prompt.model, prompt.asker, prompt.tokens)
        found = prefixes.find(wanted, time.monotonic())
        prefer = frozenset(hop.peer for hop in found.kept.hops) if found else frozenset[PeerId]()
        session = await open_session(self._exchange, prompt.model, prefer)
        return session, prefixes.find(wanted._replace(hops=session.hops), time.monotonic())

    async def _prefill(self, session: RemoteSession, prompt: Prompt, match: Match | None = None) -> Begun:
        """Opens the session. If that fails it is over, and freed on every hop."""
        try:
            await session.__aenter__()
            if match is not None:
                session.fork(match.kept.id, match.tokens)
            cached = session.position
            slices = await prompt.embed(cached, len(session.hops))
            return Begun(session, await session.prefill(slices), cached)
        except BaseException as error:
            await session.__aexit__(type(error), error, error.__traceback__)
            self._forget_lost(session)
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
