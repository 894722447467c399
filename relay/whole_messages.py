"""One whole message of a client, which is what a read of its socket gives most of the time.

Does not know connections: whoever asks must know that a message begins here.
"""

from websockets.frames import apply_mask  # pyright: ignore[reportPrivateImportUsage] - in C where there is one

from schema.whole_messages import KEY_BYTES, payload_start


def whole_message(data: bytes) -> tuple[int, bytes] | None:
    """The first byte and the payload of data that is one text or one frame; None when it is anything else."""
    start = payload_start(data, is_masked=True)
    if start is None:
        return None
    return data[0], apply_mask(memoryview(data)[start:], data[start - KEY_BYTES : start])
