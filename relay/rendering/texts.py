"""`text_completion`, whole and in pieces. Pure: events in, structs out."""

import msgspec
from msgspec import UNSET

from relay.rendering.base import Collected, CompletionRendering, Heading, all_scores_of
from relay.rendering.scores import TextScores, WrittenTextScores
from relay.reply import ReplyEvent
from schema.api import completions as api
from schema.generation import Usage
from schema.messages import Finished


class TextRendering(CompletionRendering):
    """The replies of one request for text completions."""

    def __init__(self, heading: Heading, count: int, n: int, include_usage: bool) -> None:
        super().__init__(heading, count, n, include_usage)
        self._scores = [WrittenTextScores() for _ in range(count)]
        self._streamed = [TextScores() for _ in range(count)]

    def add(self, index: int, event: ReplyEvent) -> None:
        super().add(index, event)
        self._scores[index].add(all_scores_of(event))

    def whole(self) -> api.TextCompletion:
        choices = [self._choice(index, reply) for index, reply in enumerate(self._replies)]
        return self._completion(*choices, usage=self._total())

    def opening(self) -> list[msgspec.Struct]:
        return []

    def chunks(self, index: int, event: ReplyEvent) -> list[msgspec.Struct]:
        self._note(index, event)
        if isinstance(event, Finished):
            return [self._completion(api.TextChoice(index=index, text="", finish_reason=event.reason))]
        text, scored = event.text, all_scores_of(event)
        if event.prompt is not UNSET:
            text = event.prompt.text + text
        logprobs = self._streamed[index].of(scored) if scored else None
        return [self._completion(api.TextChoice(index=index, text=text, logprobs=logprobs))]

    def closing(self) -> list[msgspec.Struct]:
        return [self._completion(usage=self._total())] if self._include_usage else []

    def _choice(self, index: int, reply: Collected) -> api.TextChoice:
        return api.TextChoice(
            index=index,
            text="".join(reply.prompt) + reply.text,
            finish_reason=reply.finished().reason,
            logprobs=self._scores[index].all(),
        )

    def _completion(self, *choices: api.TextChoice, usage: Usage | None = None) -> api.TextCompletion:
        heading = self._heading
        return api.TextCompletion(
            id=heading.id,
            created=heading.created,
            model=heading.model,
            choices=list(choices),
            usage=usage,
            system_fingerprint=heading.fingerprint,
        )
