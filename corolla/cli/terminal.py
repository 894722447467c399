"""What people and scripts get to see: text made harmless, tables, and where each line goes.

Results go to standard output, everything else to standard error. Knows nothing of relays.
"""

import os
import re
import sys
from collections.abc import Sequence
from typing import TextIO
from unicodedata import east_asian_width

import msgspec

_HOSTILE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f"  # C0, DEL and C1: they steer terminals. Tabs and newlines are text
    "\u2028\u2029"  # line and paragraph separators
    "\u202a-\u202e\u2066-\u2069"  # embeddings, overrides and isolates: text that reads as what it is not
    "\ufff9-\ufffb\U000e0000-\U000e007f"  # annotations and tags: text that cannot be seen
    "\ud800-\udfff]"  # halves of surrogate pairs: no text at all
)


def visible(text: str) -> str:
    """The text with everything that could steer or deceive a terminal written out, as `\\x1b`."""
    return _HOSTILE.sub(lambda found: ascii(found[0])[1:-1], text)


def json_line(raw: bytes) -> str:
    """A JSON document on one line that means the same, what a terminal must not get as JSON's own escapes.

    Raises:
        ValueError: it is no JSON.
    """
    try:
        line = msgspec.json.format(raw, indent=-1).decode()
    except (msgspec.DecodeError, RecursionError) as error:
        raise ValueError(f"no JSON: {error}") from error
    return _HOSTILE.sub(_escaped, line)


def _escaped(found: re.Match[str]) -> str:
    units = found[0].encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[at : at + 2].hex()}" for at in range(0, len(units), 2))


def columns(heading: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[str] = ()) -> str:
    """Rows below their heading, aligned; the columns that `right` names, to the right."""
    cells = [heading, *([visible(cell).replace("\n", "\\n") for cell in row] for row in rows)]
    widths = [max(map(_width, column)) for column in zip(*cells, strict=True)]
    aligned = (
        "  ".join(
            _padded(cell, width, name in right)
            for cell, width, name in zip(row, widths, heading, strict=True)
        )
        for row in cells
    )
    return "\n".join(line.rstrip() for line in aligned)


def _padded(cell: str, width: int, to_the_right: bool) -> str:
    padding = " " * (width - _width(cell))
    return padding + cell if to_the_right else cell + padding


def _width(text: str) -> int:
    """Columns of a terminal that it takes, near enough: wide characters take two."""
    return sum(2 if east_asian_width(character) in "WF" else 1 for character in text)


def open_closed_streams() -> None:
    """Give a process that was begun without one of its streams (`2>&-`) the null device for it.

    Before anything else is opened: a connection would get the stream's number, and what is written there.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode))  # noqa: SIM115 - for as long as the process


class Console:
    """Standard input, output and error of one command."""

    def __init__(self, source: TextIO, out: TextIO, err: TextIO, is_quiet: bool = False) -> None:
        self.source = source
        self.is_quiet = is_quiet
        self.out_is_terminal = out.isatty()
        self.err_is_terminal = err.isatty()
        self._out = out
        self._err = err
        self._progress_is_shown = False

    @classmethod
    def of_process(cls, is_quiet: bool) -> "Console":
        """That of this very process."""
        return cls(sys.stdin, sys.stdout, sys.stderr, is_quiet)

    @property
    def is_interactive(self) -> bool:
        """Whether a person can type and read here."""
        return self.source.isatty() and self.out_is_terminal

    def line(self, text: str) -> None:
        """A line of a command's result, made by this program or harmless already."""
        self._out.write(text + "\n")
        self._out.flush()

    def said(self, text: str) -> None:
        """What a model has said: as it is for files and programs, made harmless for a terminal."""
        self._out.write(visible(text) if self.out_is_terminal else text)
        self._out.flush()

    def raw(self, data: bytes) -> None:
        """Bytes as they are. Only where standard output is no terminal."""
        self._out.flush()
        self._out.buffer.write(data)

    def note(self, text: str) -> None:
        """Something that people may want to know; not with --quiet."""
        if not self.is_quiet:
            self.error(text)

    def error(self, text: str) -> None:
        """Something that people have to know."""
        self._out.flush()
        self.progress_ends()
        self._err.write(visible(text) + "\n")
        self._err.flush()

    def progress(self, text: str) -> None:
        """Put this in the place of the terminal line that was shown last."""
        if not self.is_quiet:
            self._err.write(f"\r{visible(text)}\x1b[K")
            self._err.flush()
            self._progress_is_shown = True

    def progress_ends(self) -> None:
        """Leave the terminal line that shows progress, if there is one."""
        if self._progress_is_shown:
            self._err.write("\n")
            self._err.flush()
            self._progress_is_shown = False
