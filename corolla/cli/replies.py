"""One reply of a model: asked for, and told piece by piece or as a whole.

Knows OpenAI's two kinds of completions. Does not know who reads.
"""

from collections.abc import Generator, Mapping
from contextlib import closing
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, TypeVar

import msgspec

from corolla.cli.events import EventTooLong, event_data
from corolla.cli.exits import Refused, Unreachable
from corolla.cli.relay import NO_SUCH_JSON, Relay, refused_by
from corolla.cli.terminal import json_line
from schema.api import ChatChunk, ChatCompletion, ModelList, TextCompletion
from schema.generation import FinishReason
from schema.swarm import SwarmStatus

_T = TypeVar("_T")


class Piece(NamedTuple):
    """A part of a reply, or all of it."""

    text: str
    finish_reason: FinishReason | None


NOTHING = Piece("", None)
"""An event may tell the usage alone."""


class Kind(Protocol):
    """One of OpenAI's two kinds of completions."""

    @property
    def path(self) -> str: ...

    def piece(self, event: bytes) -> Piece:
        """What an event of a stream says."""
        ...

    def whole(self, answer: bytes) -> Piece:
        """What an answer says that is no stream."""
        ...


class ChatReply:
    """`chat.completion`, or its chunks."""

    path = "/v1/chat/completions"

    def piece(self, event: bytes) -> Piece:
        choices = decode(event, ChatChunk).choices
        return Piece(choices[0].delta.content or "", choices[0].finish_reason) if choices else NOTHING

    def whole(self, answer: bytes) -> Piece:
        choices = decode(answer, ChatCompletion).choices
        return Piece(choices[0].message.content or "", choices[0].finish_reason) if choices else NOTHING


class TextReply:
    """`text_completion`, whole or as a chunk."""

    path = "/v1/completions"

    def piece(self, event: bytes) -> Piece:
        choices = decode(event, TextCompletion).choices
        return Piece(choices[0].text, choices[0].finish_reason) if choices else NOTHING

    def whole(self, answer: bytes) -> Piece:
        return self.piece(answer)


@dataclass(frozen=True)
class Question:
    """What is asked: of which relay, which kind of reply, with which body (schema/api/ has the fields)."""

    relay: Relay
    kind: Kind
    body: Mapping[str, Any]

    def answer(self) -> bytes:
        """The relay's answer, JSON, once the reply has ended. Raises CommandError."""
        return self.relay.post(self.kind.path, self.body)

    def events(self) -> Generator[bytes, None, None]:
        """Each event of the reply, JSON, as soon as it comes; the last may say why it broke off.

        Raises:
            CommandError: the reply cannot be had, or it broke off.
        """
        body = {**self.body, "stream": True}
        with self.relay.answer("POST", self.kind.path, json=body) as response:
            try:
                for data in event_data(response.iter_bytes()):
                    if data == b"[DONE]":
                        return
                    yield data
                    broken = refused_by(data)
                    if broken is not None:
                        raise broken
            except EventTooLong as error:
                raise Refused(
                    "the relay sends an event without an end: is the address right?", 502
                ) from error
        raise Unreachable(f"the answer of {self.relay.access.url} ended before the reply did: ask again")

    def pieces(self) -> Generator[Piece, None, None]:
        """The reply's text as it comes. Raises as `events` does."""
        with closing(self.events()) as events:
            for event in events:
                if refused_by(event) is None:
                    yield self.kind.piece(event)


def choose_model(relay: Relay, given: str | None) -> str:
    """The model to ask: the one given, or configured, or the first that the relay serves.

    Raises:
        Refused: it serves none now. CommandError: the relay cannot be asked.
    """
    chosen = given or relay.access.model
    if chosen:
        return chosen
    served = decode(relay.get("/v1/models"), ModelList).data
    if served:
        return served[0].id
    reasons = "; ".join(
        f"{model.id}: {model.reason or 'not complete'}"
        for model in decode(relay.get("/api/swarm"), SwarmStatus).models
    )
    raise Refused(f"no model is served now ({reasons or 'the swarm has none'}): try again later", 503)


def decode(raw: bytes, kind: type[_T]) -> _T:
    """An answer in the shape that it should have.

    Raises:
        Refused: it has another one.
    """
    try:
        return msgspec.json.decode(raw, type=kind)
    except NO_SUCH_JSON as error:
        raise _not_understood(error) from error


def as_line(raw: bytes) -> str:
    """An answer as one line of JSON, harmless for terminals.

    Raises:
        Refused: it is no JSON.
    """
    try:
        return json_line(raw)
    except ValueError as error:
        raise _not_understood(error) from error


def _not_understood(error: Exception) -> Refused:
    return Refused(f"the relay's answer is not understood ({error}): is it of another version?", 502)
