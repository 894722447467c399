"""Bodies of the protocol that Petals' chat server speaks, for scripts that were written for it.

As its README documents it (https://github.com/petals-infra/chat.petals.dev): `/api/v1/generate` over HTTP,
`/api/v2/generate` over a WebSocket. Knows shapes, and how they become what is asked of a head. No more.
"""

from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

from schema.errors import InvalidRequest
from schema.generation import MAX_INT32, Sampling
from schema.limits import MAX_STOP_CHARS
from schema.messages import ModelName

TokenLimit = Annotated[int, Meta(ge=1, le=MAX_INT32)]
Stop = Annotated[str, Meta(min_length=1, max_length=MAX_STOP_CHARS)]


class PetalsRequest(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What to generate: fields of `/api/v1/generate`, in the query, in a form or as JSON."""

    model: ModelName | None = None
    """Left out: the swarm's first."""
    inputs: str | None = None
    """What goes on from here."""
    prompt: str | None = None
    """Another name of `inputs`."""
    max_new_tokens: TokenLimit | None = None
    """At most so many tokens; this or `max_length` is needed."""
    max_length: TokenLimit | None = None
    """At most so many together with the inputs."""
    do_sample: bool = False
    """Whether tokens are drawn; otherwise each is the likeliest, whatever the sampling's fields say."""
    temperature: Annotated[float, Meta(ge=0.0, le=2.0)] = 1.0
    top_k: Annotated[int, Meta(ge=0, le=MAX_INT32)] | None = None
    top_p: Annotated[float, Meta(ge=0.0, le=1.0)] | None = None
    repetition_penalty: Annotated[float, Meta(ge=0.01, le=10.0)] | None = None
    stop_sequence: Stop | None = None
    """Where the text ends; it is not part of the outputs."""

    @property
    def text(self) -> str:
        """Raises InvalidRequest for two different ones."""
        if self.inputs is not None and self.prompt is not None:
            raise InvalidRequest("'inputs' and 'prompt' are the same: give one of them", param="prompt")
        return self.inputs or self.prompt or ""

    def sampling(self) -> Sampling:
        return Sampling(
            temperature=self.temperature if self.do_sample else 0.0,
            top_k=self.top_k or 0,
            top_p=1.0 if self.top_p is None else self.top_p,
            repetition_penalty=1.0 if self.repetition_penalty is None else self.repetition_penalty,
        )


class PetalsOutputs(Struct, frozen=True, kw_only=True):
    """What was generated."""

    ok: bool = True
    outputs: str


class PetalsFailure(Struct, frozen=True, kw_only=True):
    """Why nothing was."""

    ok: bool = False
    traceback: str
    """Cause and remedy; no traceback, whose name it has for the sake of those who read it."""


# ---- over the WebSocket ----


class OpenSession(
    Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="open_inference_session"
):
    """The first message."""

    model: ModelName | None = None
    max_length: TokenLimit
    """Of all that is read and generated in the session, in tokens."""


class GenerateStep(PetalsRequest, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="generate"):
    """Every other: `inputs` follow all that was read and generated before; left out, that goes on.

    With `stop_sequence` the outputs come in pieces until it comes, whatever `max_new_tokens` says: that is
    the size of a piece in Petals, and of no meaning here.
    """


class Opened(Struct, frozen=True, kw_only=True):
    """The session is open."""

    ok: bool = True


class Piece(Struct, frozen=True, kw_only=True):
    """More of the outputs."""

    ok: bool = True
    outputs: str
    stop: bool
    """Whether this was the last."""
    token_count: int
    """Tokens of this piece."""


FromScript = OpenSession | GenerateStep
_decoder = msgspec.json.Decoder(FromScript)


def decode_from_script(text: str) -> FromScript:
    """Raises InvalidRequest when it is no message of this protocol."""
    try:
        return _decoder.decode(text)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise InvalidRequest(f"the message is not understood: {error}") from error


def generate_of(fields: dict[str, Any], *, is_text: bool) -> PetalsRequest:
    """The request of these fields. `is_text`: all values are text, as in queries and forms.

    Raises:
        InvalidRequest: they are not what they should be; names the field.
    """
    try:
        return msgspec.convert(fields, PetalsRequest, strict=not is_text)
    except msgspec.ValidationError as error:
        raise InvalidRequest(f"the request is not understood: {error}") from error
