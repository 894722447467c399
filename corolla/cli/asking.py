"""What `chat` and `complete` share: from options to a request's fields, and from a reply to standard output.

Does not know how the two differ.
"""

import argparse
import os
import stat
from contextlib import closing
from typing import Any

from corolla.cli.exits import ExitCode, WrongUsage
from corolla.cli.replies import Question, as_line
from corolla.cli.terminal import Console

_FIELDS = ("max_tokens", "temperature", "top_p", "seed")


def fields_of(arguments: argparse.Namespace) -> dict[str, Any]:
    """The fields of schema.api that the options stand for; those that nobody gave are left out."""
    fields = {name: getattr(arguments, name) for name in _FIELDS if getattr(arguments, name) is not None}
    return {**fields, "stop": arguments.stop} if arguments.stop else fields


def words_of(arguments: argparse.Namespace, console: Console) -> str | None:
    """What is asked: standard input, where something is piped into it, and then the command line's words.

    None: neither says anything. Raises WrongUsage where the input is no text.
    """
    given = " ".join(arguments.words)
    piped = _piped(console)
    if piped is None:
        return given or None
    return f"{piped}\n\n{given}" if given and piped else given or piped or None


def _piped(console: Console) -> str | None:
    """All of standard input, less one newline at its end; None where nothing is piped into it."""
    try:
        kind = os.fstat(console.source.fileno()).st_mode
        if not (stat.S_ISFIFO(kind) or stat.S_ISREG(kind) or stat.S_ISSOCK(kind)):
            return None  # a terminal, or /dev/null
        return console.source.buffer.read().decode().removesuffix("\n")
    except UnicodeDecodeError as error:
        raise WrongUsage(f"standard input is not text in UTF-8: {error}") from error
    except (OSError, ValueError, AttributeError):
        return None  # it is closed


def tell(question: Question, arguments: argparse.Namespace, console: Console) -> int:
    """Ask, and print the reply as the options say; the exit code. Raises CommandError."""
    is_streamed = not arguments.json if arguments.stream is None else arguments.stream
    if arguments.json and is_streamed:
        for event in question.events():
            console.line(as_line(event))
    elif arguments.json:
        console.line(as_line(question.answer()))
    elif is_streamed:
        tell_pieces(question, console)
    else:
        whole = question.kind.whole(question.answer())
        console.said(whole.text)
        _end(whole.text, whole.finish_reason, console)
    return ExitCode.DONE


def tell_pieces(question: Question, console: Console, into: list[str] | None = None) -> None:
    """Print a reply as it comes. `into`: takes its text, as far as it came. Raises CommandError."""
    last, reason = "", None
    try:
        with closing(question.pieces()) as pieces:
            for piece in pieces:
                if into is not None:
                    into.append(piece.text)  # first: Ctrl-C may come as soon as it is seen
                console.said(piece.text)
                last, reason = piece.text or last, piece.finish_reason or reason
    except BaseException:
        if last and not last.endswith("\n") and console.out_is_terminal:
            console.line("")
        raise
    _end(last, reason, console)


def _end(text: str, reason: str | None, console: Console) -> None:
    """End the reply's last line, and say when it is not its end that the model wanted."""
    if not text.endswith("\n"):
        console.line("")
    if reason == "length":
        console.note("(cut off: the reply has reached --max-tokens, or the model's context)")
