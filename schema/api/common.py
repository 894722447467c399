"""What the bodies of chats, completions and responses share: sampling, ends, and fields that ask for nothing.

Does not know any endpoint's own fields.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType
from msgspec.structs import replace

from schema.errors import InvalidRequest
from schema.generation import (
    MAX_INT32,
    Bias,
    GenerationRequest,
    Penalty,
    Probability,
    Sampling,
    Stopping,
    StopTokenIds,
    TokenId,
)
from schema.limits import MAX_BIASES
from schema.messages import ModelName

MOST_REPLIES = 128
"""Of one request: `n` for each of its prompts."""
METADATA_PAIRS, METADATA_NAME_CHARS, METADATA_CHARS = 16, 64, 512
"""OpenAI's own limits."""

Unsupported = (
    Annotated[Any, Meta(description="Refused unless it is null or a value that asks for nothing.")]
    | UnsetType
)
"""A field of OpenAI's API that is refused unless it is absent, null, or a value that asks for nothing."""
Temperature = Annotated[float, Meta(ge=0.0, le=2.0)]
Length = Annotated[int, Meta(ge=1, le=MAX_INT32)]
Label = Annotated[str, Meta(max_length=METADATA_CHARS)]
"""What a client calls its own users or requests. Accepted and not used: nothing is done with it here."""
Metadata = Annotated[
    dict[Annotated[str, Meta(max_length=METADATA_NAME_CHARS)], Label], Meta(max_length=METADATA_PAIRS)
]
"""For what is stored. Nothing is stored here, so that it asks for nothing."""

_ASKS_FOR_NOTHING: tuple[Any, ...] = (UNSET, None, False, [], {})
_HARMLESS: Mapping[str, tuple[Any, ...]] = {
    "modalities": (["text"],),
    "service_tier": ("auto", "default"),
    "truncation": ("disabled",),
    "verbosity": ("medium",),
    "prompt_cache_retention": ("in_memory",),
    "include_obfuscation": (False,),
}
"""Values beside the empty ones that ask for just what is done anyway."""


class TextPart(Struct, frozen=True, forbid_unknown_fields=True):
    """A piece of a message's content. Only text is served."""

    type: Literal["text"]
    text: str


class StreamOptions(Struct, frozen=True, forbid_unknown_fields=True):
    """How a stream looks."""

    include_usage: bool = False
    include_obfuscation: Unsupported = UNSET


class CommonRequest(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Fields that chat and text completions share."""

    model: ModelName
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    n: Annotated[int, Meta(ge=1, le=MOST_REPLIES)] | None = None
    stop: str | list[str] | None = None
    stop_token_ids: StopTokenIds | None = None
    """Not OpenAI's: vLLM's clients send it under this name. So with `top_k`, `min_p` and the next."""
    temperature: Temperature | None = None
    top_p: Probability | None = None
    top_k: Annotated[int, Meta(ge=0, le=MAX_INT32)] | None = None
    min_p: Probability | None = None
    repetition_penalty: Annotated[float, Meta(ge=0.01, le=10.0)] | None = None
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    seed: Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)] | None = None
    logit_bias: Annotated[dict[TokenId, Bias], Meta(max_length=MAX_BIASES)] | None = None
    user: str | None = None
    """Accepted and not used: it exists so that a provider can tell end users apart."""

    @property
    def include_usage(self) -> bool:
        """Whether a stream ends with what it took."""
        return self.stream_options is not None and self.stream_options.include_usage

    def sampling(self) -> Sampling:
        """How tokens are drawn; what is not given has its default."""
        names = [field.name for field in msgspec.structs.fields(Sampling)]
        return Sampling(**{name: value for name in names if (value := getattr(self, name)) is not None})

    def stopping(self, max_tokens: int | None) -> Stopping:
        """When a reply ends. Raises InvalidRequest for stop strings that are too many or too long."""
        stops = [self.stop] if isinstance(self.stop, str) else list(self.stop or ())
        fields = {"max_tokens": max_tokens, "stop": stops, "stop_token_ids": self.stop_token_ids or []}
        try:
            return msgspec.convert(fields, Stopping)
        except msgspec.ValidationError as error:
            raise InvalidRequest(str(error), param="stop") from error

    def refuse_unsupported(self) -> None:
        """Raises InvalidRequest when it asks for what is not served."""
        refuse_unsupported(self)
        if self.stream_options is not None:
            refuse_unsupported(self.stream_options)
            if not self.stream:
                raise InvalidRequest("'stream_options' is for streams: set 'stream'", param="stream_options")


def refuse_unsupported(body: Struct, param: str | None = None) -> None:
    """Raises InvalidRequest when a field of `body` asks for what is not served.

    `param`: the request's field that holds `body`, where it is not the request itself.
    """
    for field in msgspec.structs.fields(body):
        if field.default is not UNSET:
            continue
        value = getattr(body, field.name)
        harmless = _ASKS_FOR_NOTHING + _HARMLESS.get(field.name, ())
        # The type counts too: `logprobs: 0` asks for something, and 0 == False.
        if not any(type(value) is type(known) and value == known for known in harmless):
            name = field.name
            raise InvalidRequest(f"{name!r} is not supported here: leave it out", param=param or name)


def choices_of(body: GenerationRequest, n: int | None) -> list[GenerationRequest]:
    """A request once for each of `n` replies, each with a seed of its own; the first has the one given."""
    seed = body.sampling.seed
    if n is None or n == 1 or seed is None:
        return [body] * (n or 1)
    seeds = [(seed + number + 2**63) % 2**64 - 2**63 for number in range(n)]  # in 64 bits, around their end
    return [replace(body, sampling=replace(body.sampling, seed=one)) for one in seeds]
