"""The body of `GET /api/join`: what the page Join makes its commands of. Knows shapes only."""

from msgspec import Struct


class JoinGuide(Struct, frozen=True, kw_only=True):
    """What a machine that is to join needs beside a token."""

    relay: str
    """The address under which volunteers reach the relay."""
    repository: str | None = None
    """The Git repository that Corolla is installed from; null: the relay's operator has not told."""
