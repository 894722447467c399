"""Who may have which tokens made, and how many.

    an admin's token      any, without end; they are the operator's, and end with nobody
    a client's            clients' keys of its own, with limits; volunteers' tokens where OPEN_JOIN lets it
    one that such a token has made    none
    nobody who is signed in           volunteers' tokens, where the relay is open to chat and to join

Decides, and counts how often each asks; that is in memory, of one replica. Does not know HTTP or SQL.
"""

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from relay.rates import Rate
from relay.records import TokenRecord
from relay.settings import Settings
from schema.credentials import TokenKind
from schema.errors import Forbidden, InvalidRequest, TooManyRequests
from schema.tokens import NewToken

MOST_KEYS = 100
"""Clients' keys that are good, of one token."""
MOST_VOLUNTEERS = 50
"""The same of volunteers' tokens: a machine needs one."""
HOUR = 3600.0
TIMES_OF_TOKEN, TIMES_OF_ADDRESS, TIMES_OF_ALL = 60, 5, 120
"""An hour: how often one token, one address that is not signed in, and all such together have tokens made."""
_EVERYBODY = "*"


@dataclass(frozen=True, slots=True)
class Grant:
    """That a token may be made."""

    parent: str | None
    """Whose it is; None: the operator's."""
    most: int | None
    """Of this kind that its parent may have; None: any number."""


class _Limit(NamedTuple):
    """That somebody may do something only so often."""

    rate: Rate
    key: str
    words: str
    """Why not now."""


class HandingOut:
    """The rules, and who has asked how often."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._of_tokens = Rate(TIMES_OF_TOKEN, HOUR)
        self._of_addresses = Rate(TIMES_OF_ADDRESS, HOUR)
        self._of_all = Rate(TIMES_OF_ALL, HOUR)

    def grant(self, asker: TokenRecord | None, address: str, asked: NewToken, now: float) -> Grant:
        """Let a token be made, and count it. `asker`: None where nobody is signed in. `now`: Unix time.

        Raises:
            Forbidden: not by this asker. TooManyRequests: not so soon.
            InvalidRequest: with limits that tokens of its kind do not have, or that are over already.
        """
        _check_limits(asked, now)
        grant = decide(asker, asked.kind, lets_join=self._settings.lets_join)
        _count(self._limits(asker, address), now)
        return grant

    def not_made(self, asker: TokenRecord | None, address: str, now: float) -> None:
        """The database was away: whoever asks again, as he is told to, shall not have used up his hour."""
        for limit in self._limits(asker, address):
            limit.rate.give_back(limit.key, now)

    def _limits(self, asker: TokenRecord | None, address: str) -> tuple[_Limit, ...]:
        if asker is None:
            mine = _Limit(self._of_addresses, network_of(address), "you have had tokens made lately")
            all_ = _Limit(self._of_all, _EVERYBODY, "too many have had tokens made here lately")
            return mine, all_
        if asker.kind == "admin":
            return ()
        return (_Limit(self._of_tokens, asker.id, "this token has made others lately"),)


def _count(limits: Sequence[_Limit], now: float) -> None:
    """Take a time of each; none of any where one of them refuses, or one address could use up everybody's.

    Raises:
        TooManyRequests: not so soon.
    """
    for limit in limits:
        wait = limit.rate.wait(limit.key, now)
        if wait:
            raise TooManyRequests(f"{limit.words}: come back in {wait / 60:.0f} min", retry_after=wait)
    for limit in limits:
        limit.rate.take(limit.key, now)


def decide(asker: TokenRecord | None, kind: TokenKind, *, lets_join: bool) -> Grant:
    """Whether an asker may have a token of a kind made. Raises Forbidden as `HandingOut.grant`."""
    if asker is not None and asker.kind == "admin":
        return Grant(None, None)
    if kind == "admin":
        raise Forbidden("only an admin's token makes admins' tokens")
    if asker is not None and asker.parent is not None:
        raise Forbidden("a token that another one has made makes none: sign in with that one")
    if kind == "volunteer" and not lets_join:
        raise Forbidden("here only operators make tokens of volunteers: ask the relay's operator for one")
    if asker is None:
        if kind != "volunteer":
            raise Forbidden("sign in first: a key belongs to the token that makes it")
        return Grant(None, None)
    return Grant(asker.id, MOST_VOLUNTEERS if kind == "volunteer" else MOST_KEYS)


def check_limits_of(kind: TokenKind, *, is_limited: bool) -> None:
    """Raises InvalidRequest: tokens of this kind have no such limits."""
    if is_limited and kind != "client":
        raise InvalidRequest(f"'replies_at_once' and 'tokens_a_day' are for clients' tokens, not {kind}s'")


def check_end(end: float | None, now: float) -> None:
    """Raises InvalidRequest: it is over already."""
    if end is not None and end <= now:
        raise InvalidRequest("'expires_at' is in the past: give Unix seconds", param="expires_at")


def _check_limits(asked: NewToken, now: float) -> None:
    limits = asked.replies_at_once, asked.tokens_a_day
    check_limits_of(asked.kind, is_limited=any(limit is not None for limit in limits))
    check_end(asked.expires_at, now)


def network_of(address: str) -> str:
    """Whom an address stands for: of IPv6, where everybody has billions, its network."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address
    if parsed.version == 4:
        return str(parsed)
    return str(ipaddress.ip_network((int(parsed), 64), strict=False))
