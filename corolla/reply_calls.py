"""The calls of one reply, as its tokens come.

Some marks around calls are tokens that say nothing: they are put in where their tokens are, so that whoever
reads the text for calls sees them. Does not know the forms of calls (corolla/calls.py).
"""

from corolla.text import TextCodec
from schema.generation import Tools
from schema.messages import CallMade


class ReplyCalls:
    """Takes the calls out of a reply's text. Owner: the reply's driver."""

    def __init__(self, codec: TextCodec, tools: Tools) -> None:
        self.count = 0
        """Calls so far."""
        self._reader, self._marks = codec.call_reader(tools)
        self._most = None if tools.is_parallel else 1
        self._made: list[CallMade] = []

    @property
    def is_over(self) -> bool:
        """There are as many calls as there may be."""
        return self._most is not None and self.count >= self._most

    def push(self, text: str, token: int) -> str:
        """More of the reply, and the token that it has come with: what of it is text."""
        mark = self._marks.get(token)
        if text or mark is not None:
            return self._take(*self._reader.push(text + (mark or "")))
        return ""

    def flush(self, text: str) -> str:
        """The last of the reply: as `push`."""
        return self._take(*self._reader.push(text)) + self._take(*self._reader.flush())

    def taken(self) -> tuple[CallMade, ...]:
        """The calls since the last time."""
        made, self._made = self._made, []
        return tuple(made)

    def _take(self, text: str, calls: list[CallMade]) -> str:
        room = len(calls) if self._most is None else max(0, self._most - self.count)
        self._made += calls[:room]
        self.count += len(calls[:room])
        return text
