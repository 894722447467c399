"""Tokens: handing out, checking, changing, revoking.

Keeps hashes only. A token that another one has made belongs to that one, its parent, and ends with it; those
that make others belong to nobody, so that no token is further down than one step. Does not know what a
token's holder may do.
"""

import hmac
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, replace
from hashlib import sha256
from typing import Any

from sqlalchemy import ColumnElement, bindparam, func, or_, select, true, tuple_, update
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from relay.database import reading, reading_once, writing
from relay.queries.base import Queries, checked_name, insert_into
from relay.queries.quotas import lock_token
from relay.records import Page, TokenLimits, TokenRecord
from relay.sharing import SharedLookups
from relay.tables import Token
from schema.credentials import Credential, TokenKind, new_credential, parse_credential
from schema.errors import InvalidRequest, NotFound, QuotaExceeded, Unauthorized, Unavailable
from schema.messages import Name

LAST_USED_GRAIN = 3600.0
"""Seconds; how exactly a token's last use is kept, so that signing in is not a write each time."""
NO_LIMITS = TokenLimits()

_NO_HASH = sha256(b"").hexdigest()
_FIELDS = (
    Token.id,
    Token.kind,
    Token.name,
    Token.created_at,
    Token.revoked_at,
    Token.last_used_at,
    Token.parent,
    Token.expires_at,
    Token.replies_at_once,
    Token.tokens_a_day,
)
"""In the order of TokenRecord."""
_SHOWN = select(Token.secret_hash, *_FIELDS).where(Token.id == bindparam("shown"))
"""Made once: every request needs it."""


class TokenQueries(Queries):
    """The table `tokens`."""

    def __init__(self, engine: AsyncEngine, replica: str) -> None:
        super().__init__(engine, replica)
        self._shown = SharedLookups(self._authenticate)

    async def create_token(
        self,
        kind: TokenKind,
        name: str,
        relay_url: str,
        limits: TokenLimits = NO_LIMITS,
        *,
        parent: str | None = None,
        most: int | None = None,
    ) -> Credential:
        """A new token, as `make_token`; its secret is nowhere but in the result."""
        return (await self.make_token(kind, name, relay_url, limits, parent=parent, most=most))[1]

    async def make_token(
        self,
        kind: TokenKind,
        name: str,
        relay_url: str,
        limits: TokenLimits = NO_LIMITS,
        *,
        parent: str | None = None,
        most: int | None = None,
    ) -> tuple[TokenRecord, Credential]:
        """A new token as it is kept, and its secret, which is nowhere but in this result.

        So nothing is read back: where that failed the secret would be lost, and the token would be there.
        `parent`: the token that makes it. `most`: good ones of the kind that this one may have made.

        Raises:
            InvalidRequest: a name that is empty, too long or not printable; or it would outlive its parent.
            QuotaExceeded: its parent has made so many. Unauthorized: that is good no more.
        """
        credential, now = new_credential(kind, relay_url), time.time()
        made = TokenRecord(
            id=credential.id,
            kind=kind,
            name=checked_token_name(name),
            created_at=now,
            revoked_at=None,
            last_used_at=None,
            parent=parent,
            **asdict(limits),
        )
        async with writing(self._engine) as connection:
            if parent is not None:
                made = replace(made, expires_at=await _end_below(connection, parent, made.expires_at, now))
                if most is not None:
                    await _require_room(connection, parent, kind, most, now)
            row = asdict(made) | {"secret_hash": credential.secret_hash}
            await connection.execute(insert_into(connection, Token).values(row))
        return made, credential

    async def authenticate(self, credential_text: str) -> TokenRecord:
        """The token that somebody showed.

        Raises:
            Unauthorized: it is not a token, unknown, wrong, revoked or expired.
        """
        return await self._shown.find(credential_text)

    async def _authenticate(self, credential_text: str) -> TokenRecord:
        token = await self.recognize(credential_text)
        await self._note_use(token)
        return token

    async def recognize(self, credential_text: str) -> TokenRecord:
        """As `authenticate`, for what is no use of a token: its machine has not come by that."""
        shown = parse_credential(credential_text)
        async with reading_once(self._engine) as connection:
            row = (await connection.execute(_SHOWN, {"shown": shown.id})).one_or_none()
        expected = _NO_HASH if row is None else row.secret_hash
        matches = hmac.compare_digest(expected, shown.secret_hash)
        token = None if row is None else TokenRecord(*row[1:])
        if token is None or not matches or token.kind != shown.kind:
            raise Unauthorized(
                "this relay does not know this token: ask the relay's operator for a new one, "
                "made with this relay's database"
            )
        if token.revoked_at is not None:
            raise Unauthorized("this token was revoked: ask the relay's operator for a new one")
        if not token.is_good(time.time()):
            raise Unauthorized("this token has expired: ask whoever has made it for a new one")
        return token

    async def _note_use(self, token: TokenRecord) -> None:
        now = time.time()
        if token.last_used_at is not None and now - token.last_used_at < LAST_USED_GRAIN:
            return
        with suppress(Unavailable):  # a busy database is no reason to turn a good token away
            async with writing(self._engine) as connection:
                await connection.execute(update(Token).where(Token.id == token.id).values(last_used_at=now))

    async def find_token(self, token_id: str) -> TokenRecord | None:
        """The token with this id, revoked or not; None if there is none."""
        async with reading_once(self._engine) as connection:
            row = (await connection.execute(_SHOWN, {"shown": token_id})).one_or_none()
        return None if row is None else TokenRecord(*row[1:])

    async def list_tokens(self) -> list[TokenRecord]:
        """All tokens, revoked ones too, oldest first."""
        async with reading(self._engine) as connection:
            rows = await connection.execute(select(*_FIELDS).order_by(Token.created_at, Token.id))
            return [TokenRecord(*row) for row in rows]

    async def tokens(
        self,
        page: Page,
        *,
        parent: str | None = None,
        kind: TokenKind | None = None,
        good_at: float | None = None,
    ) -> list[TokenRecord]:
        """One page, the newest first, and one more where there are more.

        `parent`: only those that it has made. `good_at`: only those that are good then.

        Raises:
            NotFound: there is no token to begin after.
        """
        query = select(*_FIELDS).where(_made_by(parent))
        if kind is not None:
            query = query.where(Token.kind == kind)
        if good_at is not None:
            query = query.where(_is_good(good_at))
        async with reading(self._engine) as connection:
            if page.after is not None:
                last = await _find(connection, page.after, parent)
                here = tuple_(Token.created_at, Token.id)
                query = query.where(here < tuple_(last.created_at, last.id))
            rows = await connection.execute(
                query.order_by(Token.created_at.desc(), Token.id.desc()).limit(page.limit + 1)
            )
            return [TokenRecord(*row) for row in rows]

    async def token(self, token_id: str, parent: str | None = None) -> TokenRecord:
        """A token, without its secret. `parent`: that has to have made it.

        Raises:
            NotFound: there is none of this id, or another one has made it.
        """
        async with reading_once(self._engine) as connection:
            return await _find(connection, token_id, parent)

    async def token_and_parent(self, token_id: str) -> list[TokenRecord]:
        """A token, and after it the one that has made it, if one has. Empty: there is none of this id."""
        parent = select(Token.parent).where(Token.id == token_id).scalar_subquery()
        query = select(*_FIELDS).where(or_(Token.id == token_id, Token.id == parent))
        async with reading_once(self._engine) as connection:
            found = [TokenRecord(*row) for row in await connection.execute(query)]
        return sorted(found, key=lambda one: one.id != token_id)

    async def family_of(self, owner: str, since: float) -> list[str]:
        """The ids of a token and of all that it has made, but for those that have ended before then."""
        query = select(Token.id).where(_family(owner), or_(_is_good(since), Token.revoked_at >= since))
        async with reading_once(self._engine) as connection:
            return list(await connection.scalars(query))

    async def change_token(
        self, token_id: str, changes: Mapping[str, Any], *, parent: str | None = None
    ) -> TokenRecord:
        """Change some fields of a token: `name`, and those of TokenLimits.

        What it has made does not outlive it. `parent`: that has to have made it.

        Raises:
            NotFound: as `token`, or it is revoked. InvalidRequest: a bad name, or it would outlive its
            parent. Unauthorized: its parent is good no more.
        """
        values = dict(changes)
        if "name" in values:
            values["name"] = checked_token_name(values["name"])
        async with writing(self._engine) as connection:
            token = await _find(connection, token_id, parent)
            if token.revoked_at is not None:
                raise NotFound(f"the token {token_id!r} was revoked: make a new one")
            if "expires_at" in values and token.parent is not None:
                end = values["expires_at"]
                values["expires_at"] = await _end_below(connection, token.parent, end, time.time())
            if values:
                mine = Token.id == token_id
                await connection.execute(update(Token).where(mine).values(values))
            if values.get("expires_at") is not None:
                later = or_(Token.expires_at.is_(None), Token.expires_at > values["expires_at"])
                end_with_it = update(Token).where(Token.parent == token_id, later)
                await connection.execute(end_with_it.values(expires_at=values["expires_at"]))
            return await _find(connection, token_id, parent)

    async def revoke_token(self, token_id: str) -> TokenRecord:
        """Refuse a token and all that it has made from now on; nothing changes for those revoked before.

        Raises:
            NotFound: no such token.
        """
        when = func.coalesce(Token.revoked_at, time.time())
        async with writing(self._engine) as connection:
            await lock_token(connection, token_id)  # whoever makes one with it meanwhile is seen, or refused
            await connection.execute(update(Token).where(_family(token_id)).values(revoked_at=when))
            row = (await connection.execute(select(*_FIELDS).where(Token.id == token_id))).one_or_none()
        if row is None:
            raise NotFound(f"there is no token {token_id!r}: `python -m relay token list` shows all")
        return TokenRecord(*row)

    async def good_token(self, token_id: str, now: float) -> TokenRecord | None:
        """A token that is neither revoked nor expired; None: there is none of this id."""
        query = select(*_FIELDS).where(Token.id == token_id, _is_good(now))
        async with reading_once(self._engine) as connection:
            row = (await connection.execute(query)).one_or_none()
        return None if row is None else TokenRecord(*row)

    async def ended_since(self, when: float, now: float) -> set[str]:
        """The tokens that were revoked or have expired then or later."""
        revoked = select(Token.id).where(Token.revoked_at >= when)
        expired = select(Token.id).where(Token.expires_at >= when, Token.expires_at <= now)
        async with reading(self._engine) as connection:
            return {*await connection.scalars(revoked), *await connection.scalars(expired)}


def checked_token_name(name: str) -> str:
    """Raises InvalidRequest: it is empty, too long, or cannot be shown."""
    if not name.isprintable():
        raise InvalidRequest("a token's name cannot hold characters that cannot be shown", param="name")
    return checked_name(name, Name, "a token's name")


def _is_good(now: float) -> ColumnElement[bool]:
    return Token.revoked_at.is_(None) & or_(Token.expires_at.is_(None), Token.expires_at > now)


def _made_by(parent: str | None) -> ColumnElement[bool]:
    return true() if parent is None else Token.parent == parent


def _family(owner: str) -> ColumnElement[bool]:
    return or_(Token.id == owner, Token.parent == owner)


async def _find(connection: AsyncConnection, token_id: str, parent: str | None = None) -> TokenRecord:
    if not token_id.isprintable():  # PostgreSQL takes no NUL, not even to look for it
        raise NotFound("there is no such token")
    query = select(*_FIELDS).where(Token.id == token_id, _made_by(parent))
    row = (await connection.execute(query)).one_or_none()
    if row is None:
        raise NotFound(f"there is no token {token_id!r}")
    return TokenRecord(*row)


async def _end_below(connection: AsyncConnection, parent: str, end: float | None, now: float) -> float | None:
    """When a token of `parent` ends that is to end at `end`; the parent's row is locked.

    Raises:
        NotFound, Unauthorized: the parent is not there, or good no more. InvalidRequest: that ends before.
    """
    await lock_token(connection, parent)
    owner = await _find(connection, parent)
    if not owner.is_good(now):
        raise Unauthorized("the token that this one belongs to was revoked or has expired")
    if owner.expires_at is not None and end is not None and end > owner.expires_at:
        raise InvalidRequest(
            f"a token cannot outlive the one that makes it, which ends at {owner.expires_at:g}",
            param="expires_at",
        )
    return owner.expires_at if end is None else end


async def _require_room(
    connection: AsyncConnection, parent: str, kind: TokenKind, most: int, now: float
) -> None:
    theirs = (Token.parent == parent) & (Token.kind == kind) & _is_good(now)
    count = int(await connection.scalar(select(func.count()).select_from(Token).where(theirs)) or 0)
    if count >= most:
        raise QuotaExceeded(f"this token has made {count} {kind}s' tokens that are good: revoke one first")
