"""Replies in the shapes of OpenAI's API. Pure: events in, structs out.

Each request has a rendering of its own, which puts its replies together or makes a stream of them.
"""

from relay.rendering.base import Heading, Rendering
from relay.rendering.chat import ChatRendering
from relay.rendering.responses import ResponseRendering
from relay.rendering.texts import TextRendering

__all__ = ["ChatRendering", "Heading", "Rendering", "ResponseRendering", "TextRendering"]
