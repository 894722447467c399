"""REST bodies under `/v1`, in the shapes that OpenAI's clients send and expect.

A field that those clients may send and that this server cannot honour is declared here and refused
by name (`Unsupported`), never ignored; a field nobody knows is refused by the decoder.
Knows shapes and how they become a `GenerationRequest`. Does not know HTTP.
"""

from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from schema.errors import CorollaError, InvalidRequest
from schema.generation import (
    MAX_INT32,
    FinishReason,
    GenerationRequest,
    Message,
    Penalty,
    Probability,
    Sampling,
    Stopping,
    StopTokenIds,
    TokenId,
    Usage,
)
from schema.messages import ModelName

Unsupported = Any | UnsetType
"""A field of OpenAI's API that is refused unless it is absent, null, or a value that asks for nothing."""


class TextPart(Struct, frozen=True, forbid_unknown_fields=True):
    """A piece of a message's content. Only text is served."""

    type: Literal["text"]
    text: str


class ChatMessage(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A message as OpenAI's clients send it."""

    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[TextPart]
    name: str | None = None
    # What a reply of ours, or of another server, carries when it is sent back as history.
    refusal: Unsupported = UNSET
    annotations: Unsupported = UNSET
    audio: Unsupported = UNSET
    tool_calls: Unsupported = UNSET
    function_call: Unsupported = UNSET

    def plain(self) -> Message:
        text = self.content if isinstance(self.content, str) else "".join(part.text for part in self.content)
        return Message("system" if self.role == "developer" else self.role, text)


class StreamOptions(Struct, frozen=True, forbid_unknown_fields=True):
    include_usage: bool = False


class _CommonRequest(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Fields that chat and text completions share."""

    model: ModelName
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_tokens: Annotated[int, Meta(ge=1, le=MAX_INT32)] | None = None
    stop: str | list[str] | None = None
    stop_token_ids: StopTokenIds | None = None
    """Not OpenAI's: under this name vLLM's clients send it."""
    temperature: Annotated[float, Meta(ge=0.0, le=2.0)] | None = None
    top_p: Probability | None = None
    top_k: Annotated[int, Meta(ge=0, le=MAX_INT32)] | None = None
    min_p: Probability | None = None
    repetition_penalty: Annotated[float, Meta(gt=0.0, le=10.0)] | None = None
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    seed: Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)] | None = None
    user: str | None = None
    """Accepted and not used: it exists so that a provider can tell end users apart."""
    n: Unsupported = UNSET
    logprobs: Unsupported = UNSET
    logit_bias: Unsupported = UNSET

    def sampling(self) -> Sampling:
        names = (
            "temperature",
            "top_p",
            "top_k",
            "min_p",
            "repetition_penalty",
            "presence_penalty",
            "frequency_penalty",
            "seed",
        )
        return Sampling(**{name: value for name in names if (value := getattr(self, name)) is not None})

    def _stopping(self, max_tokens: int | None) -> Stopping:
        stops = [self.stop] if isinstance(self.stop, str) else list(self.stop or ())
        fields = {"max_tokens": max_tokens, "stop": stops, "stop_token_ids": self.stop_token_ids or []}
        return _convert(Stopping, fields, "stop")


class ChatCompletionRequest(_CommonRequest, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Body of `POST /v1/chat/completions`."""

    messages: Annotated[list[ChatMessage], Meta(min_length=1)]
    max_completion_tokens: Annotated[int, Meta(ge=1, le=MAX_INT32)] | None = None
    top_logprobs: Unsupported = UNSET
    tools: Unsupported = UNSET
    tool_choice: Unsupported = UNSET
    parallel_tool_calls: Unsupported = UNSET
    functions: Unsupported = UNSET
    function_call: Unsupported = UNSET
    response_format: Unsupported = UNSET
    modalities: Unsupported = UNSET
    audio: Unsupported = UNSET
    prediction: Unsupported = UNSET
    reasoning_effort: Unsupported = UNSET
    verbosity: Unsupported = UNSET
    web_search_options: Unsupported = UNSET
    service_tier: Unsupported = UNSET
    store: Unsupported = UNSET
    metadata: Unsupported = UNSET

    def to_generation(self) -> GenerationRequest:
        """Raises InvalidRequest when it asks for what is not served."""
        _refuse_unsupported(self)
        for message in self.messages:
            _refuse_unsupported(message)
        return GenerationRequest(
            model=self.model,
            messages=[message.plain() for message in self.messages],
            sampling=self.sampling(),
            stopping=self._stopping(self.max_completion_tokens or self.max_tokens),
        )


class CompletionRequest(_CommonRequest, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Body of `POST /v1/completions`."""

    prompt: str | list[TokenId]
    best_of: Unsupported = UNSET
    echo: Unsupported = UNSET
    suffix: Unsupported = UNSET

    def to_generation(self) -> GenerationRequest:
        """Raises InvalidRequest when it asks for what is not served."""
        _refuse_unsupported(self)
        # OpenAI's default for text completions; a chat's reply has no default limit.
        return GenerationRequest(
            model=self.model,
            prompt=self.prompt,
            sampling=self.sampling(),
            stopping=self._stopping(self.max_tokens or 16),
        )


_ASKS_FOR_NOTHING: tuple[Any, ...] = (UNSET, None, False, [], {})
_HARMLESS: dict[str, tuple[Any, ...]] = {
    "n": (1,),
    "best_of": (1,),
    "top_logprobs": (0,),
    "tool_choice": ("none", "auto"),
    "parallel_tool_calls": (True,),
    "response_format": ({"type": "text"},),
    "modalities": (["text"],),
    "service_tier": ("auto", "default"),
}
"""Values beside the empty ones that ask for just what is done anyway."""


def _refuse_unsupported(request: _CommonRequest | ChatMessage) -> None:
    for field in msgspec.structs.fields(request):
        if field.default is not UNSET:
            continue
        value = getattr(request, field.name)
        harmless = _ASKS_FOR_NOTHING + _HARMLESS.get(field.name, ())
        # The type counts too: `logprobs: 0` asks for something, and 0 == False.
        if not any(type(value) is type(known) and value == known for known in harmless):
            raise InvalidRequest(f"{field.name!r} is not supported here: leave it out", param=field.name)


def _convert(kind: type[Stopping], value: object, param: str) -> Stopping:
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        raise InvalidRequest(str(error), param=param) from error


# ---- responses --------------------------------------------------------------------------------


class AssistantMessage(Struct, frozen=True, kw_only=True):
    role: Literal["assistant"] = "assistant"
    content: str
    refusal: None = None


class ChatChoice(Struct, frozen=True, kw_only=True):
    index: int
    message: AssistantMessage
    finish_reason: FinishReason
    logprobs: None = None


class ChatCompletion(Struct, frozen=True, kw_only=True):
    """Answer to a chat request without `stream`."""

    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    choices: list[ChatChoice]
    usage: Usage


class ChatDelta(Struct, frozen=True, kw_only=True, omit_defaults=True):
    role: Literal["assistant"] | None = None
    content: str | None = None


class ChatChunkChoice(Struct, frozen=True, kw_only=True):
    index: int
    delta: ChatDelta
    finish_reason: FinishReason | None = None
    logprobs: None = None


class ChatChunk(Struct, frozen=True, kw_only=True):
    """One server-sent event of a streamed chat."""

    id: str
    object: Literal["chat.completion.chunk"] = "chat.completion.chunk"
    created: int
    model: str
    choices: list[ChatChunkChoice]
    usage: Usage | None = None


class TextChoice(Struct, frozen=True, kw_only=True):
    index: int
    text: str
    finish_reason: FinishReason | None = None
    logprobs: None = None


class TextCompletion(Struct, frozen=True, kw_only=True):
    """Answer to a text completion; also one server-sent event of a streamed one."""

    id: str
    object: Literal["text_completion"] = "text_completion"
    created: int
    model: str
    choices: list[TextChoice]
    usage: Usage | None = None


class ModelEntry(Struct, frozen=True, kw_only=True):
    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str = "corolla"


class ModelList(Struct, frozen=True, kw_only=True):
    """Answer of `GET /v1/models`: what would be answered now."""

    object: Literal["list"] = "list"
    data: list[ModelEntry]


class ErrorDetail(Struct, frozen=True, kw_only=True):
    message: str
    type: str
    param: str | None
    code: str


class ErrorBody(Struct, frozen=True, kw_only=True):
    """Every error's body, in OpenAI's shape."""

    error: ErrorDetail


_TYPES = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}


def error_body(error: CorollaError) -> ErrorBody:
    """The body for an error; `type` follows the status as OpenAI's do."""
    fallback = "server_error" if error.http_status >= 500 else "invalid_request_error"
    return ErrorBody(
        error=ErrorDetail(
            message=error.message,
            type=_TYPES.get(error.http_status, fallback),
            param=getattr(error, "param", None),
            code=error.code,
        )
    )
