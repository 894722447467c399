"""Functions that a model calls, found in the text of its reply. Pure.

Models write calls in a few forms. Which one a model was trained on can be told from its chat template, in
which the form's marks stand; `FORMS` says them in the order in which they are looked for. Text around calls
is the reply's text as ever. What looks like a call and is none (no JSON, no function of that name) is text
too.

Does not know tokens, nor how a template shows functions to the model.
"""

from collections.abc import Callable, Collection
from typing import NamedTuple, Protocol

from corolla.call_json import SPACES, Calls, JsonEnd, parsed_value
from schema.messages import CallMade

_BETWEEN = ",;" + SPACES
_NAME_CHARS = 64
"""Of a function, at most."""


class CallReader(Protocol):
    """Reads one reply. Owner: the reply's driver."""

    def push(self, text: str) -> tuple[str, list[CallMade]]:
        """More of the reply: what is surely text of it, and calls that are complete."""
        ...

    def flush(self) -> tuple[str, list[CallMade]]:
        """The reply is over: the rest."""
        ...


class Form(NamedTuple):
    """How a family of models writes calls."""

    is_used_by: Callable[[str], bool]
    """Whether a chat template speaks of it."""
    reader: Callable[[Collection[str]], CallReader]
    """For a reply that may call the functions of these names."""
    marks: tuple[str, ...]
    """What stands around calls. Where these are tokens of their own that say nothing, they have to be
    pushed."""


def _border(text: str, mark: str) -> int:
    """Where the longest end of `text` begins that `mark` begins with."""
    for at in range(max(0, len(text) - len(mark) + 1), len(text)):
        if mark.startswith(text[at:]):
            return at
    return len(text)


class TaggedCalls:
    """JSON between two marks: `<tool_call>{"name": …, "arguments": …}</tool_call>`."""

    def __init__(self, names: Collection[str], opening: str, closing: str) -> None:
        self._calls = Calls(names)
        self._opening, self._closing = opening, closing
        self._held = ""
        self._is_inside = False
        self._spaces: str | None = None
        """All that has come since a call, as long as it may be no more than what stands between two."""

    def push(self, text: str) -> tuple[str, list[CallMade]]:
        looked_at = len(self._held)
        self._held += text
        said: list[str] = []
        made: list[CallMade] = []
        while True:
            mark = self._closing if self._is_inside else self._opening
            at = self._held.find(mark, max(0, looked_at - len(mark)))
            if at < 0:
                break
            looked_at = 0
            before, self._held = self._held[:at], self._held[at + len(mark) :]
            if self._is_inside:
                found = self._found(before)
                made += found
                said += [] if found else [self._passed(), self._opening, before, self._closing]
            else:
                said.append(self._outside(before))
            self._is_inside = not self._is_inside
        if not self._is_inside:
            border = _border(self._held, self._opening)
            said.append(self._outside(self._held[:border]))
            self._held = self._held[border:]
        return "".join(said), made

    def flush(self) -> tuple[str, list[CallMade]]:
        """A model that stops at once after a call may leave the closing mark out."""
        held, self._held = self._held, ""
        if not self._is_inside:
            return self._outside(held), []
        self._is_inside = False
        found = self._found(held)
        return ("", found) if found else (self._passed() + self._opening + held, [])

    def _found(self, text: str) -> list[CallMade]:
        parsed = parsed_value(text.strip(SPACES), 0)
        found = [] if parsed is None or parsed[1] != len(text.strip(SPACES)) else self._calls.of(parsed[0])
        if found:
            self._spaces = ""
        return found

    def _outside(self, text: str) -> str:
        """Spaces and lines between calls, and behind the last one, are no text."""
        if self._spaces is None:
            return text
        self._spaces += text
        return self._passed() if self._spaces.strip(SPACES) else ""

    def _passed(self) -> str:
        """What has come since a call, and is text after all."""
        spaces, self._spaces = self._spaces, None
        return spaces or ""


class ListedCalls:
    """`[TOOL_CALLS]` and then `[{"name": …, "arguments": …}]`, or `name[ARGS]{…}` for each call."""

    def __init__(self, names: Collection[str], opening: str, arguments: str) -> None:
        self._calls = Calls(names)
        self._opening, self._arguments = opening, arguments
        self._held = ""
        self._is_inside = False
        self._is_text = False
        self._value: JsonEnd | None = None
        self._name = ""

    def push(self, text: str) -> tuple[str, list[CallMade]]:
        if self._is_text:
            return text, []
        self._held += text
        said = ""
        if not self._is_inside:
            at = self._held.find(self._opening)
            border = at if at >= 0 else _border(self._held, self._opening)
            said, self._held = self._held[:border], self._held[border:]
            self._is_inside = at >= 0
        made: list[CallMade] = []
        while self._is_inside and (found := self._next()):
            made += found
        if self._is_text:
            said, self._held = said + self._held, ""
        return said, made

    def flush(self) -> tuple[str, list[CallMade]]:
        rest, self._held = self._held, ""
        return "" if self._is_inside and not rest.strip(_BETWEEN) else rest, []

    def _next(self) -> list[CallMade]:
        """The next calls, if they are complete."""
        if self._value is None:
            self._begin()
        end = None if self._value is None else self._value.end(self._held)
        if self._value is None or end is None:
            return []
        parsed = parsed_value(self._held[:end], self._value.start)
        value = None if parsed is None else parsed[0]
        found = self._calls.named(self._name, value) if self._name else self._calls.of(value)
        self._is_text = not found
        if found:
            self._held, self._value = self._held[end:], None
        return found

    def _begin(self) -> None:
        """The next value, if its first bracket is there; or all that comes is text."""
        text = self._held.lstrip(_BETWEEN)
        if self._opening.startswith(text):
            return
        text = text.removeprefix(self._opening).lstrip(_BETWEEN)
        name, mark, _ = text.partition(self._arguments)
        is_named = bool(mark) and "{" not in name and "[" not in name
        rest = (text[len(name) + len(mark) :] if is_named else text).lstrip(SPACES)
        if rest[:1] in ("{", "["):
            self._name = name.strip() if is_named else ""
            self._value = JsonEnd(len(self._held) - len(rest))
        elif len(name) > _NAME_CHARS + len(self._arguments):
            self._is_text = True


class BareCalls:
    """A reply that is JSON and nothing else: `{"name": …, "parameters": …}`, several with `;` or in a
    list."""

    def __init__(self, names: Collection[str], opening: str = "") -> None:
        """`opening`: what may stand before it."""
        self._calls = Calls(names)
        self._opening = opening
        self._held = ""
        self._is_text = False
        self._in_list = False
        self._has_called = False
        self._value: JsonEnd | None = None

    def push(self, text: str) -> tuple[str, list[CallMade]]:
        if self._is_text:
            return text, []
        self._held += text
        made: list[CallMade] = []
        while found := self._next():
            made += found
        if self._is_text:
            said, self._held = self._held, ""
            return said, made
        return "", made

    def flush(self) -> tuple[str, list[CallMade]]:
        rest, self._held = self._held, ""
        return "" if self._has_called and not rest.strip(_BETWEEN) else rest, []

    def _next(self) -> list[CallMade]:
        """The next call, if it is complete."""
        if self._value is None:
            self._begin()
        end = None if self._value is None else self._value.end(self._held)
        if self._value is None or end is None:
            return []
        parsed = parsed_value(self._held[:end], self._value.start)
        found = [] if parsed is None else self._calls.of(parsed[0])
        self._is_text = not found
        if found:
            self._held, self._value, self._has_called = self._held[end:], None, True
        return found

    def _begin(self) -> None:
        """The next object, if there is enough of it to see that it may be one; or all that comes is text."""
        text = self._held.lstrip(_BETWEEN)
        if self._opening:
            text = text.removeprefix(self._opening).lstrip(_BETWEEN)
            if self._opening.startswith(text):
                return
        is_list = not self._in_list and text.startswith("[")
        if is_list:
            text = text[1:].lstrip(SPACES)
        inside = text[1:].lstrip(SPACES)
        if self._in_list and text.startswith("]"):
            self._held, self._in_list = text[1:], False
            self._begin()
        elif text and text[0] != "{":
            self._is_text = True
        elif inside and inside[0] in '"}':
            self._in_list = self._in_list or is_list
            self._value = JsonEnd(len(self._held) - len(text))
        elif inside:
            self._is_text = True


def forced_reader(names: Collection[str]) -> CallReader:
    """For a reply that is held to an array of calls, see `corolla.constraints.calls_schema`."""
    return BareCalls(names)


FORMS: tuple[Form, ...] = (
    Form(
        lambda template: "<tool_call>" in template,
        lambda names: TaggedCalls(names, "<tool_call>", "</tool_call>"),
        ("<tool_call>", "</tool_call>"),
    ),
    Form(
        lambda template: "[TOOL_CALLS]" in template,
        lambda names: ListedCalls(names, "[TOOL_CALLS]", "[ARGS]"),
        ("[TOOL_CALLS]", "[ARGS]"),
    ),
    Form(lambda _: True, lambda names: BareCalls(names, "<|python_tag|>"), ("<|python_tag|>",)),
)
"""Hermes and Qwen; Mistral; Llama 3, which has no mark of its own."""


def form_of(template: str) -> Form:
    """How a model with this chat template writes calls."""
    return next(form for form in FORMS if form.is_used_by(template))
