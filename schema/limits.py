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

MAX_QUARANTINE_CHARS = 500
"""Why an operator keeps a volunteer out of routes, or no longer does."""

MAX_MODEL_NAME_CHARS = 200
"""A model's name: a Hub id or an operator's own name."""

MAX_BLOCKS = 1024
"""Blocks of one model. The deepest published decoder families have fewer than 200."""

MAX_HTTP_BODY_BYTES = 1024 * 1024
"""A REST request body; as large as the control message that carries it on."""

MAX_COPIES_BYTES = 8 * 1024 * 1024
"""A request body times the replies that it asks for: each of them takes it to a head once more."""

MAX_STOP_STRINGS = 16
MAX_STOP_CHARS = 256
"""Stop strings of one request, and the length of each."""

MAX_STOP_TOKEN_IDS = 64
"""Token ids at which one request's reply ends. Models have a handful of end tokens of their own."""

TARGET_SLICE_BYTES = 256 * 1024
"""What a driver aims for in one prefill frame, so that nothing small waits long behind it."""

MAX_REPLAY_BYTES = 2 * TARGET_SLICE_BYTES
"""Hidden states of several tokens that a hop sends again for one small frame: those of a slice, which the hop
may compute in numbers twice as wide as its driver does."""

MAX_BIASES = 300
"""Tokens whose logits a request changes."""

MAX_SCORES = 2**19
"""Log-probabilities of one reply: of its tokens, of its prompt's where they are told, and of the likeliest
at each one's position. Of 24,966 tokens with the 20 likeliest."""

MAX_TOOLS = 128
"""Functions that a request lets the model call."""

MAX_PAUSES = 64
"""Of one reply, that are told."""

MAX_EMBEDDING_BYTES = 24 * 1024 * 1024
"""An answer with vectors: those of 2048 texts, OpenAI's limit, up to a width of about 2300 in base64."""

MAX_ANSWER_SCORES = 128 * 1024
"""Log-probabilities in one answer that is kept until it is whole, those of alternatives too: 10 MB of JSON as
they commonly are. 6,241 tokens with 20 alternatives each, or 131,072 without any."""

MAX_EMBEDDING_INPUTS = 256
"""Texts of one request for embeddings."""
