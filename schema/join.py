"""The bodies of `/api/join`: what the page makes its commands of, and says is wrong. Knows shapes only."""

from msgspec import Struct


class JoinGuide(Struct, frozen=True, kw_only=True):
    """What a machine that is to join needs beside a token."""

    relay: str
    """The address under which volunteers reach the relay."""
    repository: str | None = None
    """The Git repository that Corolla is installed from; null: the relay's operator has not told."""


class Refusal(Struct, frozen=True, kw_only=True):
    """Why a machine could not join, or cannot serve."""

    at: float
    """Unix seconds."""
    name: str
    """The machine's; empty where it was refused before it had said one."""
    code: str
    """As in an error's body."""
    message: str
    """The cause, and the remedy."""


class LastRefusal(Struct, frozen=True, kw_only=True):
    """The last refusal of a volunteer's token."""

    refusal: Refusal | None
    """null: none of its machines was refused in the last ten minutes, or that machine serves now."""
