"""Every size that a peer may not exceed, in one place, checked before anything is allocated.

Does not know who enforces them: the codecs here, the relay's socket settings and the volunteers do.
"""

MAX_HOPS = 64
"""Hops in one route. BLOOM-176B has 70 blocks; a route of one block a hop is already unusable."""

MAX_PAYLOAD_BYTES = 16 * 1024 * 1024
"""Payload of one frame. Drivers slice prefill far below this; a decode step of a wide batch may need it."""

MAX_CONTROL_BYTES = 1024 * 1024
"""One JSON control message. The largest is a chat request with its whole history."""

MAX_TENSORS = 4
"""Tensors in one payload."""

MAX_RANK = 4
"""Dimensions of one tensor."""

MAX_NAME_CHARS = 80
"""A volunteer's public name, or a token's."""

MAX_MODEL_NAME_CHARS = 200
"""A model's name: a Hub id or an operator's own name."""

MAX_BLOCKS = 1024
"""Blocks of one model. The deepest published decoder families have fewer than 200."""

MAX_HTTP_BODY_BYTES = 1024 * 1024
"""A REST request body; as large as the control message that carries it on."""

MAX_STOP_STRINGS = 16
MAX_STOP_CHARS = 256
"""Stop strings of one request, and the length of each."""

MAX_STOP_TOKEN_IDS = 64
"""Token ids at which one request's reply ends. Models have a handful of end tokens of their own."""

TARGET_SLICE_BYTES = 256 * 1024
"""What a driver aims for in one prefill frame, so that nothing small waits long behind it."""
