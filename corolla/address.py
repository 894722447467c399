"""From the address of a relay as people write it to what is dialled, and through which proxy.

Pure, but for the environment variables that the WebSocket library reads a proxy's address from.
Does not dial.
"""

from ipaddress import ip_address
from typing import Literal
from urllib.parse import SplitResult, urlsplit, urlunsplit

from schema.errors import InvalidRequest

_SCHEMES = {"http": "ws", "https": "wss", "ws": "ws", "wss": "wss"}


def peer_url(relay_url: str) -> str:
    """The WebSocket address of a relay's base URL.

    Raises:
        InvalidRequest: it is not an http(s) or ws(s) URL, or has a user name in it.
    """
    parts = _split(relay_url)
    if parts is None or parts.scheme not in _SCHEMES or not parts.hostname:
        raise InvalidRequest(f"{relay_url!r} is not a relay's address: give one like https://relay.example")
    if "@" in parts.netloc:
        raise InvalidRequest("a relay's address has no user name or password in it: leave them out")
    return urlunsplit((_SCHEMES[parts.scheme], parts.netloc, parts.path.rstrip("/") + "/ws/peer", "", ""))


def proxy_for(url: str) -> Literal[True] | None:
    """Whether the environment's proxy may be used (True): not for this very machine, which it cannot find."""
    host = urlsplit(url).hostname or ""
    try:
        is_here = ip_address(host).is_loopback
    except ValueError:
        is_here = host == "localhost"
    return None if is_here else True


def _split(url: str) -> SplitResult | None:
    """The URL's parts; None where brackets or a port cannot be."""
    try:
        parts = urlsplit(url)
        return None if parts.port == 0 else parts
    except ValueError:
        return None
