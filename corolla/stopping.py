"""Stop strings in text that arrives in pieces.

A stop string may begin in one piece and end in a later one. So text that could still become one is
held back, and nothing else is. Which characters come in which piece changes nothing about the result.

Knows nothing of tokens; a model's own end tokens never become text and are not looked for here.
"""

from collections.abc import Sequence


class StopStrings:
    """Looks for stop strings in one reply. Owner: the reply's driver.

    The reply ends with the character that completes a stop string, whichever does so first. If two are
    complete at the same character, the longer one counts. The stop string is not part of the reply.
    """

    def __init__(self, stop: Sequence[str]) -> None:
        self._stop = tuple(dict.fromkeys(text for text in stop if text))
        self._first = frozenset(text[0] for text in self._stop)
        self._longest = max(map(len, self._stop), default=0)
        self._held = ""
        self._stopped = False

    @property
    def stopped(self) -> bool:
        """A stop string was found: what comes after it is ignored."""
        return self._stopped

    def push(self, text: str) -> tuple[str, bool]:
        """The text that can go out now, and whether the reply has ended."""
        if self._stopped:
            return "", True
        text = self._held + text
        found = self._earliest(text)
        if found is not None:
            self._held, self._stopped = "", True
            return text[:found], True
        border = self._border(text)
        self._held = text[border:]
        return text[:border], False

    def flush(self) -> str:
        """What is still held back, when the reply ends for another reason."""
        held, self._held = self._held, ""
        return held

    def _earliest(self, text: str) -> int | None:
        """Where the stop string begins that is complete first; of several, the longest."""
        found = [(at + len(stop), at) for stop in self._stop if (at := text.find(stop)) >= 0]
        return min(found)[1] if found else None

    def _border(self, text: str) -> int:
        """Where the longest end of `text` begins that a stop string begins with."""
        for at in range(max(0, len(text) - self._longest + 1), len(text)):
            if text[at] in self._first and any(stop.startswith(text[at:]) for stop in self._stop):
                return at
        return len(text)
