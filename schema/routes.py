"""Signed source routes: what lets any relay replica forward any frame without a session table.

A route names, in order, the volunteers that a session's frames visit, and carries a MAC by the
relays' shared secret over the session and all of its fields. Little endian:

    version u8 | hops u8 | reserved u16 (0) | expires u32, Unix seconds | model key 8 bytes
    origin peer 8 bytes | hops x (peer 8 bytes, start u16, end u16) | MAC 16 bytes

The MAC is keyed BLAKE2b (RFC 7693), 16 bytes, over session id + everything before the MAC, with the
personalization `corolla-route-01` (16 ASCII bytes).
This module knows bytes and keys. It does not know the time (callers pass it) nor who is connected.
"""

import hmac
import struct
from dataclasses import dataclass
from hashlib import blake2b

from schema.errors import MalformedFrame, RouteForged
from schema.ids import (
    PEER_ID_BYTES,
    SESSION_ID_BYTES,
    PeerId,
    SessionId,
    Span,
    peer_id_from_bytes,
    peer_id_to_bytes,
)
from schema.limits import MAX_BLOCKS, MAX_HOPS

ROUTE_VERSION = 1
MAC_BYTES = 16
SECRET_BYTES = 32
MODEL_KEY_BYTES = 8

_FIXED = struct.Struct(f"<BBHI{MODEL_KEY_BYTES}s{PEER_ID_BYTES}s")
_HOP = struct.Struct(f"<{PEER_ID_BYTES}sHH")
_PERSON = b"corolla-route-01"
_U32 = 0xFFFF_FFFF


@dataclass(frozen=True, slots=True)
class Hop:
    """One stop: a volunteer and the blocks of its span that this route uses."""

    peer: PeerId
    span: Span


@dataclass(frozen=True, slots=True)
class Route:
    """An ordered list of hops that covers the blocks a session needs."""

    origin: PeerId
    """The driver: where the last hop's output, and every failure, goes."""
    hops: tuple[Hop, ...]
    model_key: bytes
    expires: int
    """Unix seconds after which no replica forwards for it."""

    def stop(self, index: int) -> PeerId:
        """The peer at stop `index`; the stop after the last hop is the origin.

        Raises:
            MalformedFrame: there is no such stop.
        """
        if 0 <= index < len(self.hops):
            return self.hops[index].peer
        if index == len(self.hops):
            return self.origin
        raise MalformedFrame(f"stop {index} of a route with {len(self.hops)} hops")


def _mac(secret: bytes, session: SessionId, body: bytes) -> bytes:
    if len(secret) != SECRET_BYTES:
        # An empty key would make BLAKE2b a plain hash, which anybody can compute.
        raise ValueError(f"the relays' secret has {SECRET_BYTES} bytes, not {len(secret)}")
    return blake2b(session + body, key=secret, digest_size=MAC_BYTES, person=_PERSON).digest()


def sign_route(route: Route, session: SessionId, secret: bytes) -> bytes:
    """The route's bytes with their MAC.

    Raises:
        MalformedFrame: no hop, more than the limit, or a field outside its width.
        ValueError: a secret that is not `SECRET_BYTES` long.
    """
    if not 1 <= len(route.hops) <= MAX_HOPS:
        raise MalformedFrame(f"a route has 1 to {MAX_HOPS} hops, not {len(route.hops)}")
    if len(session) != SESSION_ID_BYTES or len(route.model_key) != MODEL_KEY_BYTES:
        raise MalformedFrame(
            f"a session id has {SESSION_ID_BYTES} bytes and a model key {MODEL_KEY_BYTES}, "
            f"not {len(session)} and {len(route.model_key)}"
        )
    if not 0 <= route.expires <= _U32:
        raise MalformedFrame(f"a route expires at a Unix time of 32 bits, not {route.expires}")
    origin = peer_id_to_bytes(route.origin)
    parts = [_FIXED.pack(ROUTE_VERSION, len(route.hops), 0, route.expires, route.model_key, origin)]
    parts += [_HOP.pack(peer_id_to_bytes(hop.peer), hop.span.start, hop.span.end) for hop in route.hops]
    body = b"".join(parts)
    return body + _mac(secret, session, body)


def read_route(raw: bytes) -> Route:
    """The route in `raw`, its MAC not looked at: for those who hold no secret.

    Raises:
        MalformedFrame: lengths, version or spans that cannot be.
    """
    if len(raw) < _FIXED.size + _HOP.size + MAC_BYTES:
        raise MalformedFrame(f"a route of {len(raw)} bytes is too short for one hop")
    version, count, _, expires, key, origin = _FIXED.unpack_from(raw)
    if version != ROUTE_VERSION:
        raise MalformedFrame(f"route version {version}; this side knows {ROUTE_VERSION}")
    if not 1 <= count <= MAX_HOPS or len(raw) != _FIXED.size + count * _HOP.size + MAC_BYTES:
        raise MalformedFrame(f"{count} hops do not make a route of {len(raw)} bytes")
    hops: list[Hop] = []
    for index in range(count):
        peer, start, end = _HOP.unpack_from(raw, _FIXED.size + index * _HOP.size)
        if not start < end <= MAX_BLOCKS:
            raise MalformedFrame(f"hop {index} has the impossible span [{start}, {end})")
        hops.append(Hop(peer_id_from_bytes(peer), Span(start, end)))
    return Route(peer_id_from_bytes(origin), tuple(hops), key, expires)


def verify_route(raw: bytes, session: SessionId, secret: bytes) -> Route:
    """The route in `raw` if a relay with this secret signed it for this session.

    Raises:
        MalformedFrame: as `read_route`.
        RouteForged: the MAC does not match.
        ValueError: a secret that is not `SECRET_BYTES` long.
    """
    route = read_route(raw)
    body, mac = raw[:-MAC_BYTES], raw[-MAC_BYTES:]
    if not hmac.compare_digest(_mac(secret, session, body), mac):
        raise RouteForged("the route was not signed by this swarm's relays for this session")
    return route
