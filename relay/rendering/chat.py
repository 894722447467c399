"""`chat.completion` and its chunks. Pure: events in, structs out."""

import msgspec
from msgspec import UNSET

from relay.rendering.base import Collected, CompletionRendering, Heading, new_id, scores_of
from relay.rendering.scores import WrittenList, chat_logprob, chat_logprobs
from relay.reply import ReplyEvent
from schema.api import chat as api
from schema.generation import Usage
from schema.messages import CallMade, Finished


class ChatRendering(CompletionRendering):
    """The replies of one chat request."""

    def __init__(self, heading: Heading, count: int, n: int, include_usage: bool) -> None:
        super().__init__(heading, count, n, include_usage)
        self._scores = [WrittenList[api.ChatLogprob]() for _ in range(count)]

    def add(self, index: int, event: ReplyEvent) -> None:
        super().add(index, event)
        self._scores[index].add([chat_logprob(token) for token in scores_of(event)])

    def whole(self) -> api.ChatCompletion:
        heading = self._heading
        return api.ChatCompletion(
            id=heading.id,
            created=heading.created,
            model=heading.model,
            choices=[
                _choice(index, reply, scores)
                for index, (reply, scores) in enumerate(zip(self._replies, self._scores, strict=True))
            ],
            usage=self._total(),
            system_fingerprint=heading.fingerprint,
        )

    def opening(self) -> list[msgspec.Struct]:
        role = api.ChatDelta(role="assistant", content="")
        return [
            self._chunk(api.ChatChunkChoice(index=index, delta=role)) for index in range(len(self._replies))
        ]

    def chunks(self, index: int, event: ReplyEvent) -> list[msgspec.Struct]:
        self._note(index, event)
        if isinstance(event, Finished):
            last = api.ChatChunkChoice(index=index, delta=api.ChatDelta(), finish_reason=event.reason)
            return [self._chunk(last)]
        deltas: list[api.ChatDelta] = []
        if event.text or event.scored is not UNSET:
            deltas.append(api.ChatDelta(content=event.text))
        if event.call is not UNSET:
            deltas += _call_deltas(event.call)
        chances = None if event.scored is UNSET else chat_logprobs(scores_of(event))
        choices = [
            api.ChatChunkChoice(index=index, delta=delta, logprobs=None if number else chances)
            for number, delta in enumerate(deltas)
        ]
        return [self._chunk(choice) for choice in choices]

    def closing(self) -> list[msgspec.Struct]:
        return [self._chunk(usage=self._total())] if self._include_usage else []

    def _chunk(self, *choices: api.ChatChunkChoice, usage: Usage | None = None) -> msgspec.Struct:
        heading = self._heading
        return api.ChatChunk(
            id=heading.id,
            created=heading.created,
            model=heading.model,
            choices=list(choices),
            usage=usage,
            system_fingerprint=heading.fingerprint,
        )


def _choice(index: int, reply: Collected, scores: WrittenList[api.ChatLogprob]) -> api.ChatChoice:
    calls = [
        api.ChatToolCall(id=new_id("call_"), function=api.CalledFunction(call.name, call.arguments))
        for call in reply.calls
    ]
    message = api.AssistantMessage(
        content=None if calls and not reply.text else reply.text, tool_calls=calls or UNSET
    )
    return api.ChatChoice(
        index=index,
        message=message,
        finish_reason=reply.finished().reason,
        logprobs=api.ChatLogprobs(content=scores.items()) if scores else None,
    )


def _call_deltas(call: CallMade) -> list[api.ChatDelta]:
    """The call's name, then its arguments: clients expect them in this order."""
    named = api.DeltaCall(
        index=call.index,
        id=new_id("call_"),
        type="function",
        function=api.DeltaFunction(name=call.name, arguments=""),
    )
    filled = api.DeltaCall(index=call.index, function=api.DeltaFunction(arguments=call.arguments))
    return [api.ChatDelta(tool_calls=[named]), api.ChatDelta(tool_calls=[filled])]
