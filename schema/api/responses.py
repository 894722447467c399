"""The body of `POST /v1/responses`, as far as it is text, and what goes before in it.

Does not know HTTP, nor how a reply is made; the answer's shapes are in schema/api/response_events.py.
"""

from typing import Annotated, Any, Literal

from msgspec import UNSET, Meta, Struct, field

from schema.api.chat import tool_result
from schema.api.common import Label, Length, Metadata, Temperature, Unsupported, refuse_unsupported
from schema.api.tools import (
    ChoiceMode,
    ResponseFormat,
    ResponseToolChoice,
    ResponseToolList,
    format_of,
    tools_of,
)
from schema.errors import InvalidRequest
from schema.generation import (
    MOST_ALTERNATIVES,
    GenerationRequest,
    Message,
    Probability,
    Sampling,
    Stopping,
    ToolCall,
)
from schema.messages import ModelName

LOGPROBS = "message.output_text.logprobs"


class ContentPart(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A piece of what was said. Only text is served."""

    type: Literal["input_text", "output_text"]
    text: str
    annotations: Unsupported = UNSET
    logprobs: Any = None
    """Of an earlier response; not used."""


ItemContent = str | list[ContentPart]


class InputItem(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Something that went before: a message (also one that says no `type`), a call, or its result."""

    type: Literal["message", "function_call", "function_call_output"] = "message"
    role: Literal["user", "assistant", "system", "developer"] | None = None
    content: ItemContent | None = None
    call_id: str | None = None
    name: str | None = None
    arguments: str | None = None
    output: ItemContent | None = None
    id: str | None = None
    """Of an earlier response; not used."""
    status: str | None = None
    """The same."""
    # What OpenAI's client adds to an item of an earlier response, in either of its ways to write it out.
    phase: Unsupported = UNSET
    caller: Unsupported = UNSET
    namespace: Unsupported = UNSET
    async_: Unsupported = UNSET
    is_async: Unsupported = field(default=UNSET, name="async")

    def need(self, name: str) -> Any:
        """A field that an item of its type has. Raises InvalidRequest when it is not there."""
        value = getattr(self, name)
        if value is None:
            raise InvalidRequest(f"an item of the type {self.type!r} has {name!r}", param="input")
        return value


class TextConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the text is like."""

    format: ResponseFormat | None = None
    verbosity: Unsupported = UNSET


class ResponseStreamOptions(Struct, frozen=True, forbid_unknown_fields=True):
    """How a stream looks."""

    include_obfuscation: Unsupported = UNSET


class ResponsesRequest(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Body of `POST /v1/responses`. Nothing is stored: all that went before is in `input`."""

    model: ModelName
    input: str | Annotated[list[InputItem], Meta(min_length=1)]
    instructions: str | None = None
    max_output_tokens: Length | None = None
    temperature: Temperature | None = None
    top_p: Probability | None = None
    top_logprobs: Annotated[int, Meta(ge=0, le=MOST_ALTERNATIVES)] | None = None
    include: list[Literal["message.output_text.logprobs"]] | None = None
    text: TextConfig | None = None
    tools: ResponseToolList | None = None
    tool_choice: ChoiceMode | ResponseToolChoice | None = None
    parallel_tool_calls: bool | None = None
    stream: bool | None = None
    stream_options: ResponseStreamOptions | None = None
    metadata: Metadata | None = None
    user: str | None = None
    safety_identifier: Label | None = None
    prompt_cache_key: Label | None = None
    access_programs: Unsupported = UNSET
    background: Unsupported = UNSET
    background_options: Unsupported = UNSET
    context_management: Unsupported = UNSET
    conversation: Unsupported = UNSET
    image: Unsupported = UNSET
    max_tool_calls: Unsupported = UNSET
    moderation: Unsupported = UNSET
    previous_response_id: Unsupported = UNSET
    prompt: Unsupported = UNSET
    prompt_cache_options: Unsupported = UNSET
    prompt_cache_retention: Unsupported = UNSET
    reasoning: Unsupported = UNSET
    service_tier: Unsupported = UNSET
    store: Unsupported = UNSET
    truncation: Unsupported = UNSET

    def to_generation(self) -> GenerationRequest:
        """Raises InvalidRequest when it asks for what is not served."""
        refuse_unsupported(self)
        for param, part in (("text", self.text), ("stream_options", self.stream_options)):
            if part is not None:
                refuse_unsupported(part, param)
        choice = self.tool_choice
        named = choice.name if isinstance(choice, ResponseToolChoice) else None
        mode = None if isinstance(choice, ResponseToolChoice) else choice
        tools = tools_of(list(self.tools or ()), mode, named, self.parallel_tool_calls)
        return GenerationRequest(
            model=self.model,
            messages=self._messages(),
            sampling=Sampling(
                temperature=1.0 if self.temperature is None else self.temperature,
                top_p=1.0 if self.top_p is None else self.top_p,
            ),
            stopping=Stopping(max_tokens=self.max_output_tokens),
            logprobs=self._logprobs(),
            tools=tools,
            format=format_of(self.text.format if self.text else None, tools, "text"),
        )

    def _logprobs(self) -> int | None:
        if LOGPROBS in (self.include or ()):
            return self.top_logprobs or 0
        if self.top_logprobs:
            raise InvalidRequest(f"'top_logprobs' is for {LOGPROBS!r} in 'include'", param="top_logprobs")
        return None

    def _messages(self) -> list[Message]:
        messages = [] if self.instructions is None else [Message("system", self.instructions)]
        if isinstance(self.input, str):
            return [*messages, Message("user", self.input)]
        called: dict[str, str] = {}
        for item in self.input:
            refuse_unsupported(item, "input")
            match item.type:
                case "message":
                    role = "system" if item.need("role") == "developer" else item.need("role")
                    messages.append(Message(role, _text_of(item.need("content"))))
                case "function_call":
                    call = ToolCall(item.need("call_id"), item.need("name"), item.need("arguments"))
                    called[call.id] = call.name
                    _add_call(messages, call)
                case _:
                    output = _text_of(item.need("output"))
                    messages.append(tool_result(item.need("call_id"), output, called, "input"))
        return messages


def _add_call(messages: list[Message], call: ToolCall) -> None:
    """What an assistant says and calls at once is one turn."""
    last = messages[-1] if messages else None
    if last is not None and last.role == "assistant":
        messages[-1] = Message("assistant", last.content, [*last.tool_calls, call])
    else:
        messages.append(Message("assistant", "", [call]))


def _text_of(content: ItemContent) -> str:
    if isinstance(content, str):
        return content
    for part in content:
        refuse_unsupported(part, "input")
    return "".join(part.text for part in content)
