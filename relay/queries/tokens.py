"""Tokens: handing out, checking, revoking.

Keeps hashes only. Does not know what a token's holder may do.
"""

import hmac
import time
from contextlib import suppress
from hashlib import sha256

from sqlalchemy import func, select, update

from relay.database import reading, writing
from relay.queries.base import Queries, checked_name, insert_into
from relay.records import TokenRecord
from relay.tables import Token
from schema.credentials import Credential, TokenKind, new_credential, parse_credential
from schema.errors import NotFound, Unauthorized, Unavailable
from schema.messages import Name

LAST_USED_GRAIN = 3600.0
"""Seconds; how exactly a token's last use is kept, so that signing in is not a write each time."""

_NO_HASH = sha256(b"").hexdigest()
_FIELDS = (Token.id, Token.kind, Token.name, Token.created_at, Token.revoked_at, Token.last_used_at)
"""In the order of TokenRecord."""


class TokenQueries(Queries):
    """The table `tokens`."""

    async def create_token(self, kind: TokenKind, name: str, relay_url: str) -> Credential:
        """A new token; its secret is nowhere but in the result.

        Raises:
            InvalidRequest: a name that is empty or too long.
        """
        credential = new_credential(kind, relay_url)
        row = {
            "id": credential.id,
            "kind": kind,
            "name": checked_name(name, Name, "a token's name"),
            "secret_hash": credential.secret_hash,
            "created_at": time.time(),
        }
        async with writing(self._engine) as connection:
            await connection.execute(insert_into(connection, Token).values(row))
        return credential

    async def authenticate(self, credential_text: str) -> TokenRecord:
        """The token that somebody showed.

        Raises:
            Unauthorized: it is not a token, unknown, wrong or revoked.
        """
        shown = parse_credential(credential_text)
        async with reading(self._engine) as connection:
            query = select(Token.secret_hash, *_FIELDS).where(Token.id == shown.id)
            row = (await connection.execute(query)).one_or_none()
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
        await self._note_use(token)
        return token

    async def _note_use(self, token: TokenRecord) -> None:
        now = time.time()
        if token.last_used_at is not None and now - token.last_used_at < LAST_USED_GRAIN:
            return
        with suppress(Unavailable):  # a busy database is no reason to turn a good token away
            async with writing(self._engine) as connection:
                await connection.execute(update(Token).where(Token.id == token.id).values(last_used_at=now))

    async def list_tokens(self) -> list[TokenRecord]:
        """All tokens, revoked ones too, oldest first."""
        async with reading(self._engine) as connection:
            rows = await connection.execute(select(*_FIELDS).order_by(Token.created_at, Token.id))
            return [TokenRecord(*row) for row in rows]

    async def revoke_token(self, token_id: str) -> TokenRecord:
        """Refuse a token from now on; nothing changes when it was revoked before.

        Raises:
            NotFound: no such token.
        """
        when = func.coalesce(Token.revoked_at, time.time())
        change = update(Token).where(Token.id == token_id).values(revoked_at=when).returning(*_FIELDS)
        async with writing(self._engine) as connection:
            row = (await connection.execute(change)).one_or_none()
        if row is None:
            raise NotFound(f"there is no token {token_id!r}: `python -m relay token list` shows all")
        return TokenRecord(*row)

    async def is_revoked(self, token_id: str) -> bool:
        """Whether this token was revoked."""
        query = select(Token.revoked_at).where(Token.id == token_id, Token.revoked_at.is_not(None))
        async with reading(self._engine) as connection:
            return (await connection.execute(query)).first() is not None

    async def revoked_since(self, when: float) -> set[str]:
        """The tokens that were revoked then or later."""
        query = select(Token.id).where(Token.revoked_at >= when)
        async with reading(self._engine) as connection:
            return set(await connection.scalars(query))
