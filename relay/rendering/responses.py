"""A `response` and the events of its stream. Pure: events in, structs out.

The answer is put together from what the stream would say, so that both are the same.
"""

import time
from collections.abc import Iterator
from typing import Any

import msgspec
from msgspec import UNSET
from msgspec.structs import replace

from relay.rendering.base import Heading, new_id, scores_of
from relay.rendering.scores import ScoreCount, WrittenList, chat_logprob
from relay.reply import ReplyEvent
from schema.api import response_events as api
from schema.api.chat import ChatLogprob
from schema.api.responses import ResponsesRequest
from schema.errors import CorollaError
from schema.generation import Usage
from schema.messages import CallMade, Delta, Finished


class ResponseRendering:
    """The reply to one request for a response."""

    end = b""

    def __init__(self, heading: Heading, request: ResponsesRequest) -> None:
        self._response = _begun(heading, request)
        self._sequence = -1
        self._output: list[api.OutputItem] = []
        self._texts: list[str] = []
        """Of the message that has not ended."""
        self._scores = WrittenList[ChatLogprob]()
        """The same."""
        self._score_count = ScoreCount()
        """Also in a stream, which says all of them again at its end."""
        self._message = ""
        """Its id; empty when there is none."""

    # ---- as a whole ----

    def add(self, index: int, event: ReplyEvent) -> None:
        self.chunks(index, event)

    def whole(self) -> api.Response:
        return self._response

    # ---- as a stream ----

    def opening(self) -> list[msgspec.Struct]:
        return [
            api.ResponseEvent(type="response.created", sequence_number=0, response=self._response),
            api.ResponseEvent(type="response.in_progress", sequence_number=1, response=self._response),
        ]

    def chunks(self, index: int, event: ReplyEvent) -> list[msgspec.Struct]:
        return list(self._finish(event) if isinstance(event, Finished) else self._go_on(event))

    def closing(self) -> list[msgspec.Struct]:
        return []

    def failure(self, error: CorollaError) -> msgspec.Struct:
        why = api.ResponseError(code=error.code, message=error.message)
        failed = replace(self._response, status="failed", error=why, output=list(self._output))
        return api.ResponseEvent(type="response.failed", sequence_number=self._next(), response=failed)

    def _next(self) -> int:
        self._sequence += 1
        return self._sequence + 2  # behind those of the opening

    def _go_on(self, delta: Delta) -> Iterator[msgspec.Struct]:
        if delta.text or delta.scored is not UNSET:
            self._score_count.add(scores_of(delta))
            yield from self._say(delta.text, [chat_logprob(token) for token in scores_of(delta)])
        if delta.call is not UNSET:
            yield from self._end_message("completed")
            yield from self._call(delta.call)

    def _say(self, text: str, scores: list[ChatLogprob]) -> Iterator[msgspec.Struct]:
        output_index = len(self._output)
        if not self._message:
            self._message = new_id("msg_")
            item = api.OutputMessage(id=self._message, status="in_progress", content=[])
            yield self._item("response.output_item.added", item)
            yield api.PartEvent(
                type="response.content_part.added",
                sequence_number=self._next(),
                item_id=self._message,
                output_index=output_index,
                part=api.OutputText(text=""),
            )
        self._texts.append(text)
        self._scores.add(scores)
        yield api.TextDelta(
            sequence_number=self._next(),
            item_id=self._message,
            output_index=output_index,
            delta=text,
            logprobs=scores,
        )

    def _end_message(self, status: api.Status) -> Iterator[msgspec.Struct]:
        if not self._message:
            return
        output_index, item_id = len(self._output), self._message
        part = api.OutputText(text="".join(self._texts), logprobs=self._scores.items())
        yield api.TextDone(
            sequence_number=self._next(),
            item_id=item_id,
            output_index=output_index,
            text=part.text,
            logprobs=part.logprobs,
        )
        yield api.PartEvent(
            type="response.content_part.done",
            sequence_number=self._next(),
            item_id=item_id,
            output_index=output_index,
            part=part,
        )
        item = api.OutputMessage(id=item_id, status=status, content=[part])
        yield self._item("response.output_item.done", item)
        self._output.append(item)
        self._message, self._texts, self._scores = "", [], WrittenList[ChatLogprob]()

    def _call(self, call: CallMade) -> Iterator[msgspec.Struct]:
        output_index, item_id = len(self._output), new_id("fc_")
        item = api.OutputCall(
            id=item_id, call_id=new_id("call_"), status="completed", name=call.name, arguments=call.arguments
        )
        yield self._item("response.output_item.added", replace(item, status="in_progress", arguments=""))
        yield api.ArgumentsDelta(
            sequence_number=self._next(), item_id=item_id, output_index=output_index, delta=call.arguments
        )
        yield api.ArgumentsDone(
            sequence_number=self._next(),
            item_id=item_id,
            output_index=output_index,
            name=call.name,
            arguments=call.arguments,
        )
        yield self._item("response.output_item.done", item)
        self._output.append(item)

    def _item(self, kind: Any, item: api.OutputItem) -> api.ItemEvent:
        return api.ItemEvent(
            type=kind, sequence_number=self._next(), output_index=len(self._output), item=item
        )

    def _finish(self, end: Finished) -> Iterator[msgspec.Struct]:
        if not self._output and not self._message:
            yield from self._say("", [])  # an empty reply is a message without text
        is_cut = end.reason == "length"
        yield from self._end_message("incomplete" if is_cut else "completed")
        self._response = replace(
            self._response,
            status="incomplete" if is_cut else "completed",
            completed_at=None if is_cut else int(time.time()),
            incomplete_details=api.IncompleteDetails(reason="max_output_tokens") if is_cut else None,
            output=self._output,
            usage=_usage(end.usage),
        )
        kind = "response.incomplete" if is_cut else "response.completed"
        yield api.ResponseEvent(type=kind, sequence_number=self._next(), response=self._response)


def _usage(usage: Usage) -> api.ResponseUsage:
    cached = usage.prompt_tokens_details.cached_tokens
    return api.ResponseUsage(
        input_tokens=usage.prompt_tokens,
        input_tokens_details=api.InputDetails(cached_tokens=cached),
        output_tokens=usage.completion_tokens,
        total_tokens=usage.total_tokens,
    )


def _begun(heading: Heading, request: ResponsesRequest) -> api.Response:
    """The response as it is before anything has been said."""
    form = request.text.format if request.text else None
    tools: list[Any] = [msgspec.to_builtins(tool) for tool in request.tools or ()]
    choice = "auto" if request.tool_choice is None else msgspec.to_builtins(request.tool_choice)
    return api.Response(
        id=heading.id,
        created_at=heading.created,
        status="in_progress",
        instructions=request.instructions,
        max_output_tokens=request.max_output_tokens,
        metadata=request.metadata or {},
        model=heading.model,
        output=[],
        parallel_tool_calls=request.parallel_tool_calls is not False,
        temperature=1.0 if request.temperature is None else request.temperature,
        text={"format": {"type": "text"} if form is None else msgspec.to_builtins(form)},
        tool_choice=choice,
        tools=tools,
        top_logprobs=request.top_logprobs or 0,
        top_p=1.0 if request.top_p is None else request.top_p,
        user=request.user,
    )
