"""Tokens as people paste them: who may join, chat or operate, and where the relay is.

    corolla-volunteer.<id>.<secret>.<relay URL, base64url>
    corolla-client.<id>.<secret>.<relay URL, base64url>
    corolla-admin.<id>.<secret>.<relay URL, base64url>

The URL is there so that `python -m volunteer --token T` needs nothing else; it is not a secret and
not trusted by the relay. The secret is 256 random bits, so a plain SHA-256 of it is safe to store.
This module knows the text form. It does not know which tokens exist.
"""

import binascii
import secrets
from base64 import b64decode, urlsafe_b64encode
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Literal, get_args

from schema.errors import Unauthorized

TokenKind = Literal["volunteer", "client", "admin"]
_KINDS: Mapping[str, TokenKind] = {kind: kind for kind in get_args(TokenKind)}
_PREFIX = "corolla-"
MAX_TOKEN_CHARS = 2048


@dataclass(frozen=True, slots=True)
class Credential:
    """A token taken apart."""

    kind: TokenKind
    id: str
    secret: str
    relay_url: str
    """Base URL of the relay, e.g. `https://relay.example`; empty when the token carries none."""

    def __str__(self) -> str:
        url = urlsafe_b64encode(self.relay_url.encode()).decode().rstrip("=")
        return f"{_PREFIX}{self.kind}.{self.id}.{self.secret}.{url}"

    def __repr__(self) -> str:
        return f"Credential({self.kind}, {self.id}, secret hidden)"

    @property
    def secret_hash(self) -> str:
        """What the relay stores: SHA-256 of the secret, hex."""
        return sha256(self.secret.encode()).hexdigest()


def new_credential(kind: TokenKind, relay_url: str) -> Credential:
    return Credential(kind, secrets.token_hex(6), secrets.token_urlsafe(32), relay_url)


def parse_credential(text: str) -> Credential:
    """A pasted token taken apart.

    Raises:
        Unauthorized: it is not of a token's form.
    """
    parts = text.strip().split(".") if len(text) <= MAX_TOKEN_CHARS else [""]
    kind = _KINDS.get(parts[0].removeprefix(_PREFIX))
    well_formed = len(parts) == 4 and parts[0].startswith(_PREFIX) and all(parts[1:3])
    if kind is not None and not well_formed:
        raise Unauthorized("this token is cut short or damaged: paste it whole")
    if not well_formed or kind is None:
        raise Unauthorized(
            "this is not a Corolla token: it should begin with 'corolla-volunteer.' or 'corolla-client.'; "
            "paste it whole, or ask the relay's operator for a new one"
        )
    try:
        padding = "=" * (-len(parts[3]) % 4)
        url = b64decode(parts[3] + padding, altchars=b"-_", validate=True).decode()
    except (binascii.Error, ValueError) as error:
        raise Unauthorized("the token's last part is damaged: paste it whole") from error
    return Credential(kind, parts[1], parts[2], url)
