"""WebSocket messages that are one frame (RFC 6455, section 5.2): where their payload is, what goes before it.

A read of a socket gives one such message most of the time. A general parser takes messages apart piece by
piece, since a read may end anywhere: that costs more than all the rest of a short message's way, and leaves
several objects of each for the collector to look at. Here is what needs none of it.

Does not know connections: whoever asks must know that a message begins here. Does not apply masks.
"""

import struct
from collections.abc import Generator
from typing import Any

WHOLE_TEXT, WHOLE_BINARY = 0x81, 0x82
"""The first byte of messages that are neither in fragments nor changed by an extension."""
KEY_BYTES = 4
_MASKED = 0x80
_SHORT_HEAD, _HEAD_16, _HEAD_64 = 2, 4, 10
_SHORT_LENGTH = struct.Struct("!BB")
_LENGTH_16 = struct.Struct("!BBH")
_LENGTH_64 = struct.Struct("!BBQ")


def payload_start(data: bytes, *, is_masked: bool) -> int | None:
    """Where the payload begins in data that is one text or one frame; None when it is anything else.

    `is_masked`: whether it has to be, as clients' are; the key is the four bytes before the payload.
    """
    key_bytes = KEY_BYTES if is_masked else 0
    if len(data) < _SHORT_HEAD + key_bytes or data[0] not in (WHOLE_TEXT, WHOLE_BINARY):
        return None
    if (data[1] >= _MASKED) is not is_masked:
        return None
    start, size = _SHORT_HEAD, data[1] % _MASKED
    if size == 126:
        start, size = _HEAD_16, int.from_bytes(data[_SHORT_HEAD:_HEAD_16], "big")
    elif size == 127:
        start, size = _HEAD_64, int.from_bytes(data[_SHORT_HEAD:_HEAD_64], "big")
    start += key_bytes
    return start if len(data) == start + size else None


def message_head(first_byte: int, size: int, key: bytes = b"") -> bytes:
    """What goes before a payload of `size` bytes; `key`: the one that it was masked with."""
    mask = _MASKED if key else 0
    if size < 126:
        return _SHORT_LENGTH.pack(first_byte, mask | size) + key
    if size < 1 << 16:
        return _LENGTH_16.pack(first_byte, mask | 126, size) + key
    return _LENGTH_64.pack(first_byte, mask | 127, size) + key


def awaits_message(parser: Generator[None]) -> bool:
    """Whether the `websockets` library's parser waits for a frame to begin, and is not in the middle of one.

    It is a generator in generators, which says this only by where it waits: between frames in
    `StreamReader.at_eof`.
    """
    waiting: Any = parser
    while (inner := waiting.gi_yieldfrom) is not None:
        waiting = inner
    return waiting.gi_code.co_name == "at_eof"
