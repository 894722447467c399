"""What all renderings have: a heading, replies put together again, and the sum of what they took.

Does not know any endpoint's shapes.
"""

import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

import msgspec
from msgspec import UNSET
from msgspec.structs import replace

from relay.rendering.scores import ScoreCount
from relay.reply import ReplyEvent
from schema.api.errors import error_body
from schema.errors import CorollaError
from schema.generation import PromptDetails, ScoredToken, Usage
from schema.messages import CallMade, Finished

DONE = b"data: [DONE]\n\n"
STREAM_HAS_NO_LIMIT = ", or for a stream, which may have any number"
"""Of chats and text completions, whose streams say nothing twice."""


@dataclass(frozen=True, slots=True)
class Heading:
    """What every piece of an answer begins with."""

    id: str
    model: str
    fingerprint: str | None
    """Of the checkpoint: with another one a seed means something else."""
    created: int = field(default_factory=lambda: int(time.time()))
    """Unix seconds."""


def new_id(kind: str) -> str:
    """A name that nothing else has; `kind` begins it."""
    return f"{kind}{secrets.token_hex(12)}"


class Rendering(Protocol):
    """How the replies of one request look."""

    end: bytes
    """What a stream that is complete ends with."""

    def add(self, index: int, event: ReplyEvent) -> None:
        """Put an event of reply number `index` to the whole answer."""
        ...

    def whole(self) -> msgspec.Struct:
        """The answer, once all replies have finished."""
        ...

    def opening(self) -> list[msgspec.Struct]:
        """What a stream begins with."""
        ...

    def chunks(self, index: int, event: ReplyEvent) -> list[msgspec.Struct]:
        """What a stream says of an event of reply number `index`."""
        ...

    def closing(self) -> list[msgspec.Struct]:
        """What a stream says when all replies have finished."""
        ...

    def failure(self, error: CorollaError) -> msgspec.Struct:
        """What a stream that has begun breaks off with."""
        ...


@dataclass(slots=True)
class Collected:
    """One reply, put together again from its events, but for its scores."""

    prompt: list[str] = field(default_factory=lambda: list[str]())
    texts: list[str] = field(default_factory=lambda: list[str]())
    calls: list[CallMade] = field(default_factory=lambda: list[CallMade]())
    end: Finished | None = None

    def add(self, event: ReplyEvent) -> None:
        if isinstance(event, Finished):
            self.end = event
            return
        self.texts.append(event.text)
        if event.prompt is not UNSET:
            self.prompt.append(event.prompt.text)
        if event.call is not UNSET:
            self.calls.append(event.call)

    @property
    def text(self) -> str:
        return "".join(self.texts)

    def finished(self) -> Finished:
        """How it ended. Raises CorollaError when it has not."""
        if self.end is None:
            raise CorollaError("a reply has ended without its end")
        return self.end


def scores_of(event: ReplyEvent) -> list[ScoredToken]:
    """Those of the reply's tokens."""
    return [] if isinstance(event, Finished) or event.scored is UNSET else event.scored


def all_scores_of(event: ReplyEvent) -> list[ScoredToken]:
    """Those of the prompt's tokens, and of the reply's behind them."""
    scored = scores_of(event)
    return scored if isinstance(event, Finished) or event.prompt is UNSET else event.prompt.scored + scored


def total(usages: Mapping[int, Usage], n: int) -> Usage:
    """What all replies took. `n` of them have the same prompt, whose tokens count once."""
    prompts = [usage for index, usage in usages.items() if index % n == 0]
    prompt = sum(usage.prompt_tokens for usage in prompts)
    completion = sum(usage.completion_tokens for usage in usages.values())
    cached = sum(usage.prompt_tokens_details.cached_tokens for usage in prompts)
    usage = Usage(prompt, completion, prompt + completion)
    return replace(usage, prompt_tokens_details=PromptDetails(cached)) if cached else usage


def encode_events(chunks: list[msgspec.Struct]) -> bytes:
    """Structs as server-sent events; one with a type says it in the event's name too."""
    return b"".join(_encode_event(chunk) for chunk in chunks)


def _encode_event(chunk: msgspec.Struct) -> bytes:
    name = getattr(chunk, "type", None)
    line = b"" if name is None else b"event: " + name.encode() + b"\n"
    return line + b"data: " + msgspec.json.encode(chunk) + b"\n\n"


class CompletionRendering:
    """What chats and text completions have in common."""

    end = DONE

    def __init__(self, heading: Heading, count: int, n: int, include_usage: bool) -> None:
        """`count`: replies. `n`: replies of each prompt."""
        self._heading = heading
        self._n = n
        self._include_usage = include_usage
        self._replies = [Collected() for _ in range(count)]
        self._score_count = ScoreCount(STREAM_HAS_NO_LIMIT)
        self._usages: dict[int, Usage] = {}

    def add(self, index: int, event: ReplyEvent) -> None:
        self._score_count.add(all_scores_of(event))
        self._replies[index].add(event)
        self._note(index, event)

    def failure(self, error: CorollaError) -> msgspec.Struct:
        return error_body(error)

    def _note(self, index: int, event: ReplyEvent) -> None:
        if isinstance(event, Finished):
            self._usages[index] = event.usage

    def _total(self) -> Usage:
        return total(self._usages, self._n)
