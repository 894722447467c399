"""Why machines could not join lately, for the page of whoever has started one.

    a join is refused, or a volunteer says that it cannot serve ─> kept by its token, the last one alone
    a machine of that name serves ─────────────────────────────> forgotten; so is what is older than 10 min

Whoever shows the token may read it (relay/joining_guide.py). In memory, and told to the other replicas,
since a page asks whichever it reaches. Owned by the event loop's thread. Does not know sockets or volunteers.
"""

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from relay.parcels import Notice, Refused
from relay.peer import MAX_REASON_CHARS
from schema.errors import CorollaError, Moved, Replaced
from schema.join import Refusal
from schema.messages import ErrorInfo
from schema.swarm import VolunteerState

KEEP_SECONDS = 600.0
MOST_KEPT = 2000
"""Tokens of which one is kept."""
REPEAT_SECONDS = 15.0
"""How soon the others are told the same again: some machines try without end."""


class Other(Protocol):
    """Another replica."""

    def notify(self, notice: Notice) -> None: ...


@dataclass(frozen=True, slots=True)
class _Kept:
    refusal: Refusal
    told: float
    """Unix time at which the others were told of it last, or told this one."""


class Refusals:
    """The last refusal of each volunteers' token."""

    def __init__(self) -> None:
        self._kept: OrderedDict[str, _Kept] = OrderedDict()
        """By the token's id; the oldest comes first."""
        self._others: Iterable[Other] = ()

    def use(self, others: Iterable[Other]) -> None:
        """The replicas that are told; they know this one too, and so come after it."""
        self._others = others

    def note(self, token: str, name: str, error: ErrorInfo, now: float) -> None:
        """A machine could not join, or cannot serve. `name`: "" where it has said none. `now`: Unix time."""
        refusal = Refusal(at=now, name=name, code=error.code, message=error.message[:MAX_REASON_CHARS])
        before = self._kept.get(token)
        if before is None or now - before.told >= REPEAT_SECONDS or _what(before.refusal) != _what(refusal):
            self._keep(token, _Kept(refusal, now))
            self._tell(Refused(token, refusal))
        else:
            self._keep(token, _Kept(refusal, before.told))

    def joined(self, token: str, name: str) -> None:
        """A machine serves: what was wrong with it is mended."""
        kept = self._kept.get(token)
        if kept is not None and kept.refusal.name in ("", name):
            del self._kept[token]
            self._tell(Refused(token, None))

    def take(self, notice: Refused) -> None:
        """What another replica has noted, or forgotten."""
        if notice.refusal is None:
            self._kept.pop(notice.token, None)
        else:
            self._keep(notice.token, _Kept(notice.refusal, notice.refusal.at))

    def last(self, token: str, now: float) -> Refusal | None:
        """Of the machines of a token; None: there was none lately. `now`: Unix time."""
        kept = self._kept.get(token)
        return None if kept is None or now - kept.refusal.at > KEEP_SECONDS else kept.refusal

    def _keep(self, token: str, kept: _Kept) -> None:
        self._kept[token] = kept
        self._kept.move_to_end(token)
        if len(self._kept) > MOST_KEPT:
            self._kept.popitem(last=False)

    def _tell(self, notice: Refused) -> None:
        for other in self._others:
            other.notify(notice)


def is_refusal(ending: CorollaError | None, state: VolunteerState | None) -> bool:
    """Whether a connection that the relay has ended was a join that it refused. `state`: of its volunteer."""
    is_away = ending is None or isinstance(ending, Moved | Replaced)
    return not is_away and state in (None, "connected", "loading", "probing")


def _what(refusal: Refusal) -> tuple[str, str, str]:
    return refusal.name, refusal.code, refusal.message
