"""A conversation at a terminal: lines in, replies out, Ctrl-C to stop one and once more to leave.

Keeps the conversation and what was typed. Does not know how a reply is asked for, nor what a model is.
"""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from corolla.cli.asking import tell_pieces
from corolla.cli.exits import CommandError, ExitCode
from corolla.cli.relay import Relay
from corolla.cli.replies import ChatReply, Question
from corolla.cli.terminal import Console

PROMPT = "> "
MORE = "  "
HISTORY_LINES = 1000
HELP = """\
/new             begin a new conversation
/system [WORDS]  tell the model who it is, from now on; without words: forget that
/model [NAME]    say which model answers, or choose another one
/help            show this
/exit            leave (or Ctrl-D)
A line that ends with \\ goes on in the next one. Ctrl-C stops a reply; a second one leaves."""


@dataclass
class Conversation:
    """What was said so far, and whom it is said to. Belongs to `talk`."""

    relay: Relay
    model: str
    fields: Mapping[str, Any]
    """Of every request, such as `temperature`."""
    system: str | None = None
    turns: list[dict[str, str]] = field(default_factory=lambda: list[dict[str, str]]())

    def question(self, words: str) -> Question:
        """The next one, with all that came before."""
        messages = [*self.turns, {"role": "user", "content": words}]
        if self.system:
            messages.insert(0, {"role": "system", "content": self.system})
        return Question(self.relay, ChatReply(), {"model": self.model, "messages": messages, **self.fields})

    def add(self, words: str, reply: str) -> None:
        """Keep a question and its reply."""
        self.turns += [{"role": "user", "content": words}, {"role": "assistant", "content": reply}]


class _Left(Exception):
    """The person wants to leave."""


def talk(conversation: Conversation, console: Console, history: Path | None) -> int:
    """Answer line after line; the exit code when the person leaves. `history`: keeps what was typed."""
    url = conversation.relay.access.url
    console.note(f"{conversation.model} at {url}; /help lists commands, Ctrl-D leaves")
    was_interrupted = False
    with _kept(history, console):
        while True:
            try:
                words = _typed()
                was_interrupted = False
                if words.startswith("/"):
                    _obey(words, conversation, console)
                elif words.strip():
                    _answer(words, conversation, console)
            except UnicodeDecodeError:
                console.error("that was no text: type it in UTF-8")
            except (_Left, EOFError):
                return ExitCode.DONE
            except KeyboardInterrupt:
                if was_interrupted:
                    return ExitCode.INTERRUPTED
                was_interrupted = True
                console.error("\n(Ctrl-C once more leaves)")


def _typed() -> str:
    """What is typed, over several lines where they end with a backslash."""
    line = input(PROMPT)
    lines: list[str] = []
    while line.endswith("\\"):
        lines.append(line[:-1])
        line = input(MORE)
    return "\n".join([*lines, line])


def _answer(words: str, conversation: Conversation, console: Console) -> None:
    """Tell the reply, and keep as much of it as came before Ctrl-C. One that breaks is not kept."""
    said: list[str] = []
    try:
        tell_pieces(conversation.question(words), console, said)
    except CommandError as error:
        console.error(error.message)
        return
    except KeyboardInterrupt:
        conversation.relay.hang_up()  # the relay then stops the model
        if said:
            conversation.add(words, "".join(said))
        raise
    conversation.add(words, "".join(said))


def _obey(words: str, conversation: Conversation, console: Console) -> None:
    """Do what a line says that begins with a slash. Raises _Left."""
    command, _, rest = words.partition(" ")
    rest = rest.strip()
    match command:
        case "/new":
            conversation.turns.clear()
            console.note("(a new conversation)")
        case "/system":
            conversation.system = rest or None
            console.note("(the model is told so)" if rest else "(the model is told nothing beforehand)")
        case "/model":
            conversation.model = rest or conversation.model
            console.note(f"({conversation.model} answers)")
        case "/help" | "/?":
            console.line(HELP)
        case "/exit" | "/quit" | "/bye":
            raise _Left
        case _:
            console.error(f"there is no command {command}; /help lists them")


def history_file(environment: Mapping[str, str]) -> Path | None:
    """Where what was typed is kept; None for users without a home."""
    base, home = environment.get("XDG_STATE_HOME", ""), environment.get("HOME", "")
    if not (base or home):
        return None
    return Path(base or Path(home) / ".local" / "state") / "corolla" / "history"


@contextmanager
def _kept(file: Path | None, console: Console) -> Iterator[None]:
    """Line editing; and with a file, what was typed before and is typed now, kept for its owner only."""
    try:
        import readline
    except ImportError:  # Windows
        yield
        return
    with suppress(OSError):
        if file is not None:
            readline.read_history_file(file)
    readline.set_history_length(HISTORY_LINES)
    try:
        yield
    finally:
        if file is not None:
            try:
                file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                os.close(os.open(file, os.O_CREAT | os.O_WRONLY, 0o600))
                readline.write_history_file(file)
            except OSError as error:
                console.note(f"what was typed is not kept: {error}")
