"""Functions that a model may call and the form that a reply must have, as clients say it.

Does not know how a head holds a reply to them.
"""

from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

from schema.errors import InvalidRequest
from schema.generation import JsonFormat, Tool, Tools
from schema.limits import MAX_TOOLS

ToolName = Annotated[str, Meta(pattern="^[a-zA-Z0-9_-]{1,64}$", max_length=64)]
ChoiceMode = Literal["none", "auto", "required"]


class FunctionDefinition(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A function as chats describe it."""

    name: ToolName
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None
    """Accepted. With it or without, arguments are held to `parameters` where a call is required; where none
    is, they are what the model has written."""

    def plain(self) -> Tool:
        return Tool(self.name, self.description, self.parameters)


class ChatTool(Struct, frozen=True, forbid_unknown_fields=True):
    """A tool of a chat. Only functions are served."""

    type: Literal["function"]
    function: FunctionDefinition


class FunctionName(Struct, frozen=True, forbid_unknown_fields=True):
    name: ToolName


class ChatToolChoice(Struct, frozen=True, forbid_unknown_fields=True):
    """The one function that a chat's reply must call."""

    type: Literal["function"]
    function: FunctionName


class ResponseTool(FunctionDefinition, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A tool of a response. Only functions are served."""

    type: Literal["function"]


class ResponseToolChoice(Struct, frozen=True, forbid_unknown_fields=True):
    """The one function that a response must call."""

    type: Literal["function"]
    name: ToolName


ToolList = Annotated[list[ChatTool], Meta(max_length=MAX_TOOLS)]
ResponseToolList = Annotated[list[ResponseTool], Meta(max_length=MAX_TOOLS)]


def tools_of(
    functions: list[FunctionDefinition] | None,
    mode: ChoiceMode | None,
    named: str | None,
    parallel: bool | None,
) -> Tools | None:
    """What a model may call; None: nothing.

    `mode`: whether it must. `named`: the only function that it may call, and then it must.

    Raises:
        InvalidRequest: two functions of one name, or a call is asked for and there is nothing to call.
    """
    known = {function.name: function.plain() for function in functions or ()}
    if len(known) < len(functions or ()):
        raise InvalidRequest("two functions have the same name", param="tools")
    if named is not None and named not in known:
        raise InvalidRequest(f"there is no function {named!r} in 'tools'", param="tool_choice")
    if mode == "required" and not known:
        raise InvalidRequest("a call is required, and there are no 'tools'", param="tool_choice")
    if not known or mode == "none":
        return None
    chosen = list(known.values()) if named is None else [known[named]]
    must_call = named is not None or mode == "required"
    return Tools(chosen, must_call=must_call, is_parallel=parallel is not False)


class TextFormat(Struct, frozen=True, forbid_unknown_fields=True, tag="text"):
    """Any text."""


class JsonObjectFormat(Struct, frozen=True, forbid_unknown_fields=True, tag="json_object"):
    """Any JSON object."""


class JsonSchema(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A named JSON Schema."""

    name: ToolName
    description: str | None = None
    """Accepted and not used: the model is shown neither this nor the schema."""
    schema: dict[str, Any] | None = None
    strict: bool | None = None
    """Accepted: the reply is held to the schema in either case."""


class ChatJsonSchemaFormat(Struct, frozen=True, forbid_unknown_fields=True, tag="json_schema"):
    """JSON of a schema, as chats ask for it."""

    json_schema: JsonSchema


class ResponseJsonSchemaFormat(
    JsonSchema, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="json_schema"
):
    """JSON of a schema, as responses ask for it."""


ChatFormat = TextFormat | JsonObjectFormat | ChatJsonSchemaFormat
ResponseFormat = TextFormat | JsonObjectFormat | ResponseJsonSchemaFormat


def format_of(
    asked: ChatFormat | ResponseFormat | None, tools: Tools | None, param: str
) -> JsonFormat | None:
    """The form that a reply must have; None: any.

    Raises:
        InvalidRequest: beside tools that must be called.
    """
    match asked:
        case None | TextFormat():
            return None
        case _ if tools is not None and tools.must_call:
            raise InvalidRequest(f"a reply that must be calls can have no {param!r}", param=param)
        case JsonObjectFormat():
            return JsonFormat()
        case ChatJsonSchemaFormat(json_schema=named):
            return JsonFormat(named.schema)
        case _:
            return JsonFormat(asked.schema)
