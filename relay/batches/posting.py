"""Telling webhooks: an HTTP request to an address that somebody with a token has chosen.

Since anybody may choose any address, the request goes only to public ones, unless the operator allows others:
the name is looked up here, once, and the connection goes to what was found, so that no second look-up can
give another answer. Redirects are not followed. Does not know what is told, nor whether it is tried again.
"""

import asyncio
import ipaddress
import socket
import ssl
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from types import TracebackType
from typing import Self
from urllib.parse import SplitResult, urlsplit

from schema.errors import InvalidRequest

SECONDS = 15.0
"""That the other side may take."""
MAX_URL_CHARS = 512
MAX_ANSWER_BYTES = 1024
"""Of an answer that are read: its first line."""
LOOK_UPS = 8
"""Names that are looked up at once."""

_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_WAYS_TO_IPV4 = (
    ipaddress.IPv6Network("64:ff9b:1::/48"),  # a network's own translation: RFC 8215
    ipaddress.IPv6Network("::/96"),  # IPv4-compatible: RFC 4291, section 2.5.5.1
    ipaddress.IPv6Network("::ffff:0:0:0/96"),  # IPv4-translated: RFC 2765
)
"""Where they lead depends on the network that the relay is in."""


class NotTold(Exception):
    """The other side cannot be reached, does not take it, or may not be reached."""


@dataclass(frozen=True, slots=True)
class Target:
    """Where a request goes."""

    scheme: str
    host: str
    port: int
    path: str

    @property
    def shown_host(self) -> str:
        """For the `Host` header."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == (443 if self.scheme == "https" else 80) else f"{host}:{self.port}"


def read_url(url: str) -> Target:
    """Raises InvalidRequest: it is no address that can be told anything."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise _bad_url() from error
    if not _is_plain(url, parts):
        raise _bad_url()
    path = f"{parts.path or '/'}{'?' + parts.query if parts.query else ''}"
    standard = 443 if parts.scheme == "https" else 80
    return Target(parts.scheme, parts.hostname or "", standard if port is None else port, path)


def _is_plain(url: str, parts: SplitResult) -> bool:
    """ASCII without spaces and line ends, which could begin another header."""
    is_clean = url.isascii() and url.isprintable() and " " not in url and len(url) <= MAX_URL_CHARS
    return is_clean and parts.scheme in ("http", "https") and bool(parts.hostname) and "@" not in parts.netloc


def _bad_url() -> InvalidRequest:
    return InvalidRequest(
        "a webhook is an address that begins with https:// or http://, without a user name", param="metadata"
    )


def is_public(address: str) -> bool:
    """Whether an IP address is one of the public internet."""
    found = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(found, ipaddress.IPv6Address):
        inner = found.ipv4_mapped or found.sixtofour or _translated(found)
        if inner is not None:
            return is_public(str(inner))
        if found.is_site_local or any(found in network for network in _WAYS_TO_IPV4):
            return False
    return found.is_global and not found.is_multicast


def _translated(found: ipaddress.IPv6Address) -> ipaddress.IPv4Address | None:
    """What a translator of the network (RFC 6052) makes of an address, if it is one for it."""
    return ipaddress.IPv4Address(int(found) & 0xFFFF_FFFF) if found in _NAT64 else None


class Poster:
    """Sends requests, as long as its `with` lasts."""

    def __init__(self) -> None:
        # A name server that does not answer holds a thread up for long. Files have other threads.
        self._threads = ThreadPoolExecutor(LOOK_UPS, thread_name_prefix="webhooks")
        self._secure: ssl.SSLContext | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def post(self, url: str, headers: dict[str, str], body: bytes, allow_private: bool) -> None:
        """Send a request; nothing, if it was answered with 2xx.

        Raises:
            NotTold: says why.
        """
        try:
            target = read_url(url)
            async with asyncio.timeout(SECONDS):
                address = await self._look_up(target, allow_private)
                secure = await self._security() if target.scheme == "https" else None
                status = await _send(target, address, secure, headers, body)
        except (OSError, ValueError, asyncio.IncompleteReadError, InvalidRequest) as error:
            raise NotTold(f"{type(error).__name__}: {error}") from error
        if not 200 <= status < 300:
            raise NotTold(f"it was answered with status {status}")

    async def _look_up(self, target: Target, allow_private: bool) -> str:
        def look_up() -> list[str]:
            found = socket.getaddrinfo(target.host, target.port, type=socket.SOCK_STREAM)
            return [str(entry[4][0]) for entry in found]

        addresses = await asyncio.get_running_loop().run_in_executor(self._threads, look_up)
        if not allow_private:
            private = [address for address in addresses if not is_public(address)]
            if private:
                raise NotTold(f"{target.host} is {private[0]}, which is not on the public internet")
        return addresses[0]

    async def _security(self) -> ssl.SSLContext:
        """Whom to believe: read once, since that takes tens of milliseconds."""
        secure = self._secure
        if secure is None:
            loop = asyncio.get_running_loop()
            secure = await loop.run_in_executor(self._threads, lambda: ssl.create_default_context())
            self._secure = secure
        return secure


async def _send(
    target: Target, address: str, secure: ssl.SSLContext | None, headers: dict[str, str], body: bytes
) -> int:
    """The status of the answer."""
    name = target.host if secure else None
    reader, writer = await asyncio.open_connection(
        address, target.port, ssl=secure, server_hostname=name, limit=MAX_ANSWER_BYTES
    )
    try:
        every = {
            "Host": target.shown_host,
            "Content-Type": "application/json",
            "Content-Length": str(len(body)),
            "Connection": "close",
            "User-Agent": "corolla",
            **headers,
        }
        lines = [f"POST {target.path} HTTP/1.1", *(f"{key}: {value}" for key, value in every.items())]
        writer.write("\r\n".join(lines).encode("ascii") + b"\r\n\r\n" + body)
        await writer.drain()
        words = (await reader.readuntil(b"\n")).split()
    except asyncio.LimitOverrunError as error:
        raise NotTold("it does not answer with HTTP") from error
    finally:
        writer.close()
    if len(words) < 2 or not words[0].startswith(b"HTTP/1.") or not words[1].isdigit():
        raise NotTold("it does not answer with HTTP")
    return int(words[1])
