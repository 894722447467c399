"""Messages and tools as chat templates take them: the form that transformers documents. Pure."""

import json
from typing import Any

from schema.generation import Message, Tool, ToolCall


def template_message(message: Message) -> dict[str, Any]:
    """One turn; what it does not have is left out."""
    written: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.tool_calls:
        written["tool_calls"] = list(map(_call, message.tool_calls))
    if message.tool_call_id is not None:
        written["tool_call_id"] = message.tool_call_id
    if message.name is not None:
        written["name"] = message.name
    return written


def template_tool(tool: Tool) -> dict[str, Any]:
    """One function; a template may expect arguments even where there are none."""
    function: dict[str, Any] = {"name": tool.name, "description": tool.description or ""}
    function["parameters"] = tool.parameters or {"type": "object", "properties": {}}
    return {"type": "function", "function": function}


def _call(call: ToolCall) -> dict[str, Any]:
    """Templates write the arguments as JSON themselves: a text would come out quoted twice."""
    try:
        arguments = json.loads(call.arguments)
    except ValueError:
        arguments = call.arguments
    return {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": arguments}}
