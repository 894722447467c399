"""One whole message of a client, which is what a read of its socket gives most of the time.

A general parser takes messages apart piece by piece, since a read may end anywhere: that costs more than all
the rest of a short message's way, and leaves several objects of each for the collector to look at. Here is
what needs none of it. RFC 6455, section 5.2.

Does not know connections: whoever asks must know that a message begins here.
"""

from websockets.frames import apply_mask  # pyright: ignore[reportPrivateImportUsage] - in C where there is one

WHOLE_TEXT, WHOLE_BINARY = 0x81, 0x82
"""The first byte of messages that are neither in fragments nor changed by an extension."""
_MASKED = 0x80
_SHORT_HEAD, _HEAD_16, _HEAD_64 = 2, 4, 10
_KEY_BYTES = 4


def whole_message(data: bytes) -> tuple[int, bytes] | None:
    """The first byte and the payload of data that is one text or one frame; None when it is anything else."""
    if len(data) < _SHORT_HEAD + _KEY_BYTES or data[0] not in (WHOLE_TEXT, WHOLE_BINARY) or data[1] < _MASKED:
        return None
    start, size = _SHORT_HEAD, data[1] - _MASKED
    if size == 126:
        start, size = _HEAD_16, int.from_bytes(data[_SHORT_HEAD:_HEAD_16], "big")
    elif size == 127:
        start, size = _HEAD_64, int.from_bytes(data[_SHORT_HEAD:_HEAD_64], "big")
    payload = start + _KEY_BYTES
    if len(data) != payload + size:
        return None
    return data[0], apply_mask(memoryview(data)[payload:], data[start:payload])
