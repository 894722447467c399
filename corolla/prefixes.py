"""Which sessions the hops may still hold, so that a prompt that begins like one need not be computed again.

A driver notes here what was fed to a session that its hops keep. The tokens stay in this process: hops are
told the random id of a session and a number of tokens, and so learn only that two sessions begin alike.
Whether a hop really holds it still, only the hop knows.

Pure: `now` is given, in seconds on any steady clock; nothing is sent. Owner: whoever drives the model's head.
"""

from collections import OrderedDict
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from schema.ids import PeerId, SessionId
from schema.routes import Hop

LEAST_TOKENS = 32
"""A shorter prefix is computed as fast as it is forked."""
MOST_SESSIONS = 256
MOST_TOKENS = 1 << 20
"""Of all noted sessions together: some tens of megabytes."""
NOTED_SECONDS = 600.0
"""How long a session is noted after its last use: as long as hops keep it."""

Tokens = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class KeptSession:
    """A session that is over and that its hops keep."""

    id: SessionId
    model: str
    asker: str
    """Whose it was: how another's prompts begin is not found out by asking the same."""
    hops: tuple[Hop, ...]
    route: bytes
    """As it was signed, to tell the hops that nobody needs it any more."""
    tokens: Tokens
    """That were fed to it, in order."""


class Match(NamedTuple):
    """A kept session that begins like a prompt, and how many tokens they share."""

    kept: KeptSession
    tokens: int


class Wanted(NamedTuple):
    """What is to be begun, and for whom. `hops` is None as long as no route is known."""

    model: str
    asker: str
    prompt: Sequence[int]
    hops: tuple[Hop, ...] | None = None


class PrefixIndex:
    """The kept sessions of one driver, by last use."""

    def __init__(
        self,
        tokens_to_roll_back: Callable[[int], int],
        most_sessions: int = MOST_SESSIONS,
        most_tokens: int = MOST_TOKENS,
    ) -> None:
        """`tokens_to_roll_back`: how many of so many held tokens the model's caches can forget again."""
        self._tokens_to_roll_back = tokens_to_roll_back
        self._most_sessions = most_sessions
        self._most_tokens = most_tokens
        self._kept: OrderedDict[SessionId, KeptSession] = OrderedDict()
        self._used_at: dict[SessionId, float] = {}
        self.tokens = 0
        """Of all noted sessions."""

    def __len__(self) -> int:
        return len(self._kept)

    def note(self, kept: KeptSession, now: float) -> list[KeptSession]:
        """A session is kept from now on. Forgets, and returns, those that need not be kept any more."""
        dropped = self._expired(now) + self._replaced_by(kept)
        for one in dropped:
            self.forget(one.id)
        self._kept[kept.id] = kept
        self._used_at[kept.id] = now
        self.tokens += len(kept.tokens)
        while len(self._kept) > self._most_sessions or self.tokens > self._most_tokens:
            oldest = next(iter(self._kept.values()))
            self.forget(oldest.id)
            dropped.append(oldest)
        return dropped

    def find(self, wanted: Wanted, now: float) -> Match | None:
        """The session that shares most with the prompt and can be cut to that; counts as its use.

        At least one token of the prompt is left, since its output is needed.
        """
        for expired in self._expired(now):
            self.forget(expired.id)
        prompt = tuple(wanted.prompt)
        best: Match | None = None
        for kept in self._kept.values():
            if not _fits(kept, wanted):
                continue
            least = LEAST_TOKENS if best is None else best.tokens + 1
            shared = self._shared(kept.tokens, prompt, least)
            if shared >= least:
                best = Match(kept, shared)
        if best is not None:
            self._used_at[best.kept.id] = now
            self._kept.move_to_end(best.kept.id)
        return best

    def can_cut(self, held: int, tokens: int) -> bool:
        """Whether a session of `held` tokens is worth keeping for its first `tokens` tokens."""
        return tokens >= LEAST_TOKENS and self._tokens_to_roll_back(held) >= held - tokens

    def forget(self, session: SessionId) -> None:
        """A hop does not hold it, or nobody needs it."""
        kept = self._kept.pop(session, None)
        if kept is not None:
            del self._used_at[session]
            self.tokens -= len(kept.tokens)

    def forget_hops(self, peers: Collection[PeerId]) -> list[KeptSession]:
        """These volunteers are gone, and what they held. Returns what others hold in vain now."""
        lost = [kept for kept in self._kept.values() if any(hop.peer in peers for hop in kept.hops)]
        for kept in lost:
            self.forget(kept.id)
        return lost

    def _expired(self, now: float) -> list[KeptSession]:
        return [kept for kept in self._kept.values() if now - self._used_at[kept.id] > NOTED_SECONDS]

    def _replaced_by(self, new: KeptSession) -> list[KeptSession]:
        """What a cut of the new session gives as well: the same chat, some turns earlier."""
        return [
            kept
            for kept in self._kept.values()
            if (kept.model, kept.asker, kept.hops) == (new.model, new.asker, new.hops)
            and self._shared(new.tokens, kept.tokens, len(kept.tokens), leaves=0) == len(kept.tokens)
        ]

    def _shared(self, held: Tokens, prompt: Tokens, least: int, leaves: int = 1) -> int:
        """How many tokens of a session that `held` these a prompt can begin with; 0 below `least`."""
        most = min(len(held), len(prompt) - leaves)
        least = max(least, len(held) - self._tokens_to_roll_back(len(held)))
        if most < least or held[:least] != prompt[:least]:
            return 0
        return least + _common(held[least:most], prompt[least:most])


def _fits(kept: KeptSession, wanted: Wanted) -> bool:
    is_theirs = (kept.model, kept.asker) == (wanted.model, wanted.asker)
    return is_theirs and wanted.hops in (None, kept.hops)


def _common(one: Tokens, other: Tokens) -> int:
    """How long two sequences are equal."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((index for index, (a, b) in pairs if a != b), min(len(one), len(other)))
