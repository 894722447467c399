"""The bodies of `POST /v1/chat/completions`: what is asked for, and the answer, whole and in pieces.

Does not know HTTP, nor how a reply is made.
"""

from typing import Annotated, Any, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

from schema.api.common import (
    CommonRequest,
    Label,
    Length,
    Metadata,
    TextPart,
    Unsupported,
    choices_of,
    refuse_unsupported,
)
from schema.api.tools import ChatFormat, ChatToolChoice, ChoiceMode, ToolList, format_of, tools_of
from schema.errors import InvalidRequest
from schema.generation import MOST_ALTERNATIVES, FinishReason, GenerationRequest, Message, ToolCall, Usage

Content = str | list[TextPart]


class CalledFunction(Struct, frozen=True, forbid_unknown_fields=True):
    name: str
    arguments: str
    parsed_arguments: Any = None
    """Accepted and not used, as the next two: OpenAI's client adds them to what it has read."""


class ChatToolCall(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A function that an assistant has called."""

    id: str
    type: Literal["function"] = "function"
    function: CalledFunction
    index: int | None = None


class SystemMessage(
    Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="role", tag="system"
):
    """How the assistant shall be."""

    content: Content
    name: str | None = None
    """Who of several speaks, as in the next two. Goes to the model's template, which may leave it out."""


class DeveloperMessage(
    SystemMessage, frozen=True, forbid_unknown_fields=True, tag_field="role", tag="developer"
):
    """The same under its newer name."""


class UserMessage(
    Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="role", tag="user"
):
    """What a person says."""

    content: Content
    name: str | None = None


class EarlierReply(
    Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="role", tag="assistant"
):
    """What the assistant has said, or called."""

    content: Content | None = None
    tool_calls: list[ChatToolCall] | None = None
    name: str | None = None
    parsed: Any = None
    # What a reply of ours, or of another server, carries when it is sent back as history.
    refusal: Unsupported = UNSET
    annotations: Unsupported = UNSET
    audio: Unsupported = UNSET
    function_call: Unsupported = UNSET


class ToolMessage(
    Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="role", tag="tool"
):
    """What a function that was called has returned."""

    content: Content
    tool_call_id: str


ChatMessage = SystemMessage | DeveloperMessage | UserMessage | EarlierReply | ToolMessage


class ChatCompletionRequest(CommonRequest, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Body of `POST /v1/chat/completions`."""

    messages: Annotated[list[ChatMessage], Meta(min_length=1)]
    max_tokens: Length | None = None
    max_completion_tokens: Length | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Meta(ge=0, le=MOST_ALTERNATIVES)] | None = None
    tools: ToolList | None = None
    tool_choice: ChoiceMode | ChatToolChoice | None = None
    parallel_tool_calls: bool | None = None
    response_format: ChatFormat | None = None
    safety_identifier: Label | None = None
    prompt_cache_key: Label | None = None
    metadata: Metadata | None = None
    functions: Unsupported = UNSET
    function_call: Unsupported = UNSET
    modalities: Unsupported = UNSET
    audio: Unsupported = UNSET
    moderation: Unsupported = UNSET
    prediction: Unsupported = UNSET
    prompt_cache_options: Unsupported = UNSET
    prompt_cache_retention: Unsupported = UNSET
    reasoning_effort: Unsupported = UNSET
    verbosity: Unsupported = UNSET
    web_search_options: Unsupported = UNSET
    service_tier: Unsupported = UNSET
    store: Unsupported = UNSET

    def to_generations(self) -> list[GenerationRequest]:
        """A reply for each of `n`. Raises InvalidRequest when it asks for what is not served."""
        self.refuse_unsupported()
        if self.top_logprobs and not self.logprobs:
            raise InvalidRequest("'top_logprobs' is for 'logprobs': set that too", param="top_logprobs")
        if self.max_tokens is not None and self.max_completion_tokens not in (None, self.max_tokens):
            raise InvalidRequest(
                "'max_tokens' and 'max_completion_tokens' mean the same and differ: give one",
                param="max_tokens",
            )
        self._require_tools()
        choice = self.tool_choice
        named = choice.function.name if isinstance(choice, ChatToolChoice) else None
        mode = None if isinstance(choice, ChatToolChoice) else choice
        functions = [tool.function for tool in self.tools or ()]
        tools = tools_of(functions, mode, named, self.parallel_tool_calls)
        body = GenerationRequest(
            model=self.model,
            messages=_plain(self.messages),
            sampling=self.sampling(),
            stopping=self.stopping(self.max_completion_tokens or self.max_tokens),
            logprobs=(self.top_logprobs or 0) if self.logprobs else None,
            tools=tools,
            format=format_of(self.response_format, tools, "response_format"),
        )
        return choices_of(body, self.n)

    def _require_tools(self) -> None:
        """Raises InvalidRequest where how to call is said, and not what."""
        asking = {"tool_choice": self.tool_choice == "auto", "parallel_tool_calls": self.parallel_tool_calls}
        for name, asks in asking.items():
            if asks and not self.tools:
                raise InvalidRequest(f"{name!r} is for 'tools': give some, or leave it out", param=name)


def _plain(messages: list[ChatMessage]) -> list[Message]:
    called: dict[str, str] = {}
    plain: list[Message] = []
    for message in messages:
        match message:
            case EarlierReply():
                refuse_unsupported(message, "messages")
                calls = [
                    ToolCall(call.id, call.function.name, call.function.arguments)
                    for call in message.tool_calls or ()
                ]
                if message.content is None and not calls:
                    raise InvalidRequest("an assistant's message has content or calls", param="messages")
                called |= {call.id: call.name for call in calls}
                plain.append(Message("assistant", _text_of(message.content), calls, name=message.name))
            case ToolMessage():
                plain.append(tool_result(message.tool_call_id, _text_of(message.content), called, "messages"))
            case UserMessage():
                plain.append(Message("user", _text_of(message.content), name=message.name))
            case _:
                plain.append(Message("system", _text_of(message.content), name=message.name))
    return plain


def _text_of(content: Content | None) -> str:
    if content is None or isinstance(content, str):
        return content or ""
    return "".join(part.text for part in content)


def tool_result(call: str, text: str, called: dict[str, str], param: str) -> Message:
    """What a function has returned. `called`: the names of the functions called before, by the calls' ids.

    Raises:
        InvalidRequest: there was no such call.
    """
    if call not in called:
        raise InvalidRequest(f"no call before has the id {call!r} of this result", param=param)
    return Message("tool", text, tool_call_id=call, name=called[call])


# ---- answers ------------------------------------------------------------------------------------


class TopLogprob(Struct, frozen=True, kw_only=True):
    """A token, and how likely it was."""

    token: str
    bytes: list[int]
    logprob: float


class ChatLogprob(TopLogprob, frozen=True, kw_only=True):
    """A token of a reply."""

    top_logprobs: list[TopLogprob]


class ChatLogprobs(Struct, frozen=True, kw_only=True):
    """How likely the tokens were that a choice, or a piece of it, consists of."""

    content: list[ChatLogprob]
    refusal: None = None


class AssistantMessage(Struct, frozen=True, kw_only=True):
    """A reply."""

    role: Literal["assistant"] = "assistant"
    content: str | None
    """None: it consists of calls."""
    refusal: None = None
    tool_calls: list[ChatToolCall] | UnsetType = UNSET


class ChatChoice(Struct, frozen=True, kw_only=True):
    index: int
    message: AssistantMessage
    finish_reason: FinishReason
    logprobs: ChatLogprobs | None = None


class ChatCompletion(Struct, frozen=True, kw_only=True):
    """Answer to a chat request without `stream`."""

    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    choices: list[ChatChoice]
    usage: Usage
    system_fingerprint: str | None = None


class DeltaFunction(Struct, frozen=True, kw_only=True, omit_defaults=True):
    name: str | None = None
    arguments: str | None = None


class DeltaCall(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """More of a call. Its id and name come first."""

    index: int
    id: str | None = None
    type: Literal["function"] | None = None
    function: DeltaFunction


class ChatDelta(Struct, frozen=True, kw_only=True, omit_defaults=True):
    role: Literal["assistant"] | None = None
    content: str | None = None
    tool_calls: list[DeltaCall] | None = None


class ChatChunkChoice(Struct, frozen=True, kw_only=True):
    index: int
    delta: ChatDelta
    finish_reason: FinishReason | None = None
    logprobs: ChatLogprobs | None = None


class ChatChunk(Struct, frozen=True, kw_only=True):
    """One server-sent event of a streamed chat."""

    id: str
    object: Literal["chat.completion.chunk"] = "chat.completion.chunk"
    created: int
    model: str
    choices: list[ChatChunkChoice]
    usage: Usage | None = None
    system_fingerprint: str | None = None
