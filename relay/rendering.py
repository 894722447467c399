"""A reply's events in the shapes of OpenAI's API. Pure: events in, structs out."""

import time
from typing import Protocol

import msgspec

from relay.replies import ReplyEvent
from schema import api
from schema.messages import Delta, Finished


class Rendering(Protocol):
    """How one kind of completion looks."""

    def whole(self, text: str, finished: Finished) -> msgspec.Struct: ...
    def opening(self) -> list[msgspec.Struct]: ...
    def chunks(self, event: ReplyEvent, include_usage: bool) -> list[msgspec.Struct]: ...


class ChatRendering:
    """`chat.completion` and its chunks."""

    def __init__(self, model: str, request: str) -> None:
        self._model = model
        self._id = f"chatcmpl-{request}"
        self._created = int(time.time())

    def whole(self, text: str, finished: Finished) -> api.ChatCompletion:
        choice = api.ChatChoice(
            index=0, message=api.AssistantMessage(content=text), finish_reason=finished.reason
        )
        return api.ChatCompletion(
            id=self._id, created=self._created, model=self._model, choices=[choice], usage=finished.usage
        )

    def opening(self) -> list[msgspec.Struct]:
        return [self._chunk(api.ChatChunkChoice(index=0, delta=api.ChatDelta(role="assistant", content="")))]

    def chunks(self, event: ReplyEvent, include_usage: bool) -> list[msgspec.Struct]:
        if isinstance(event, Delta):
            return [self._chunk(api.ChatChunkChoice(index=0, delta=api.ChatDelta(content=event.text)))]
        last = api.ChatChunkChoice(index=0, delta=api.ChatDelta(), finish_reason=event.reason)
        usage = [self._chunk(usage=event.usage)] if include_usage else []
        return [self._chunk(last), *usage]

    def _chunk(self, *choices: api.ChatChunkChoice, usage: api.Usage | None = None) -> msgspec.Struct:
        return api.ChatChunk(
            id=self._id, created=self._created, model=self._model, choices=list(choices), usage=usage
        )


class TextRendering:
    """`text_completion`, whole and in pieces."""

    def __init__(self, model: str, request: str) -> None:
        self._model = model
        self._id = f"cmpl-{request}"
        self._created = int(time.time())

    def whole(self, text: str, finished: Finished) -> api.TextCompletion:
        choice = api.TextChoice(index=0, text=text, finish_reason=finished.reason)
        return self._completion(choice, usage=finished.usage)

    def opening(self) -> list[msgspec.Struct]:
        return []

    def chunks(self, event: ReplyEvent, include_usage: bool) -> list[msgspec.Struct]:
        if isinstance(event, Delta):
            return [self._completion(api.TextChoice(index=0, text=event.text))]
        last = self._completion(api.TextChoice(index=0, text="", finish_reason=event.reason))
        usage = [self._completion(usage=event.usage)] if include_usage else []
        return [last, *usage]

    def _completion(self, *choices: api.TextChoice, usage: api.Usage | None = None) -> api.TextCompletion:
        return api.TextCompletion(
            id=self._id, created=self._created, model=self._model, choices=list(choices), usage=usage
        )
