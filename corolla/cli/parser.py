"""The commands, their options, and what `--help` says of them.

Checks what can be checked without a relay. Does not load what the commands need: help comes at once.
"""

import argparse
import math
from typing import TypeAlias, get_args

from corolla.cli.access import TOKEN_VARIABLE, URL_VARIABLE
from schema.batches import BatchEndpoint

SHELLS = ("bash", "zsh", "fish")
SILENCE_SECONDS = 600.0
WATCH_SECONDS = 2.0
BATCHES_SHOWN = 20
_FILES = {"bash": "_shtab_compgen_files", "zsh": "_files", "fish": "(__fish_complete_path (commandline -ct))"}
"""What shtab has shells complete names of files with."""
_EPILOG = (
    "Exit codes: 0 done, 1 the relay refused or failed, 2 wrong usage, 3 the relay cannot be reached, 4 not "
    f"served now, 130 interrupted. A token carries its relay's address: {TOKEN_VARIABLE} is all that most "
    "commands need."
)

Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"
"""What `add_subparsers` gives; argparse has no public name for it."""


class _Version(argparse.Action):
    """Looks the version up only when it is asked for, as that takes longer than all other help."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object, **__: object) -> None:
        from importlib.metadata import PackageNotFoundError, version

        try:
            print(f"corolla {version('corolla')}")
        except PackageNotFoundError:  # a copy of the repository that was not installed
            print("corolla, of an unknown version: it is not installed")
        parser.exit()


def command_line() -> argparse.ArgumentParser:
    """The parser of `corolla`. What it parses has `command`: the words of one, with spaces between."""
    parser = argparse.ArgumentParser(
        prog="corolla", description="Ask the models of a Corolla swarm, through its relay.", epilog=_EPILOG
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="print Corolla's version, and end")
    commands = parser.add_subparsers(metavar="command", required=True)
    _add_chat(commands)
    _add_complete(commands)
    does = "let the relay work through many requests"
    batch = commands.add_parser("batch", help=does, description=f"{does.capitalize()}.")
    actions = batch.add_subparsers(metavar="action", required=True)
    _add_submit(actions)
    _add_results(actions)
    _add_other_batches(actions)
    _add_common(_command(commands, "models", "show the models, and why one cannot be served"))
    _add_common(_command(commands, "swarm", "show the models, and who holds which of their blocks"))
    completion = _command(commands, "completion", "print what makes a shell complete these commands")
    completion.add_argument("shell", choices=SHELLS, help="which shell; docs/cli.md says where to put it")
    return parser


def _command(commands: Commands, name: str, does: str, above: str = "") -> argparse.ArgumentParser:
    """A command that does something. `above`: the command that it is one of, and a space."""
    parser = commands.add_parser(name, help=does, description=f"{does[0].upper()}{does[1:]}.")
    parser.set_defaults(command=f"{above}{name}", quiet=False)
    return parser


def _add_chat(commands: Commands) -> None:
    chat = _command(commands, "chat", "ask a model, once or in a conversation")
    chat.add_argument(
        "words",
        nargs="*",
        help="what to ask; what is piped in comes before it. Without either, at a terminal, a conversation "
        "begins",
    )
    chat.add_argument("--system", metavar="WORDS", help="tell the model first who it is")
    chat.add_argument("--no-history", action="store_true", help="do not keep what is typed in a conversation")
    _add_generation(chat)
    _add_common(chat)


def _add_complete(commands: Commands) -> None:
    complete = _command(commands, "complete", "let a model continue a text")
    complete.add_argument("words", nargs="*", help="the text; what is piped in comes before it")
    _add_generation(complete)
    _add_common(complete)


def _add_submit(actions: Commands) -> None:
    submit = _command(actions, "submit", "upload a file of requests, and print the batch's id", "batch ")
    file = submit.add_argument(
        "file", help="one request a line, as OpenAI's Batch API has them; - reads standard input"
    )
    file.complete = _FILES  # pyright: ignore[reportAttributeAccessIssue]
    submit.add_argument(
        "--endpoint",
        choices=get_args(BatchEndpoint),
        help="where the requests go (default: where the first of them says)",
    )
    submit.add_argument(
        "--metadata",
        action="append",
        type=_pair,
        default=[],
        metavar="KEY=VALUE",
        help="keep this with the batch (repeatable)",
    )
    submit.add_argument("--wait", action="store_true", help="follow it to its end, and say how that is")
    _add_interval(submit)
    _add_common(submit)


def _add_results(actions: Commands) -> None:
    results = _command(actions, "results", "fetch the answers and errors of a batch", "batch ")
    results.add_argument("id", help="the batch's id")
    output = results.add_argument("-o", "--output", metavar="FILE", help="write them into a file")
    output.complete = _FILES  # pyright: ignore[reportAttributeAccessIssue]
    results.add_argument("--only", choices=("output", "errors"), help="only one of the two")
    _add_access(results)


def _add_other_batches(actions: Commands) -> None:
    status = _command(actions, "status", "tell how far a batch is", "batch ")
    status.add_argument("id", help="the batch's id")
    status.add_argument("--watch", action="store_true", help="follow it to its end, and say how that is")
    _add_interval(status)
    cancel = _command(actions, "cancel", "stop a batch; what is done stays done", "batch ")
    cancel.add_argument("id", help="the batch's id")
    show_all = _command(actions, "list", "show your batches, the newest first", "batch ")
    show_all.add_argument(
        "--limit",
        type=_count,
        default=BATCHES_SHOWN,
        metavar="N",
        help=f"at most so many (default: {BATCHES_SHOWN})",
    )
    for parser in (status, cancel, show_all):
        _add_common(parser)


def _add_interval(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--interval",
        type=_seconds,
        default=WATCH_SECONDS,
        metavar="SECONDS",
        help=f"between two looks at it (default: {WATCH_SECONDS:g})",
    )


def _add_generation(parser: argparse.ArgumentParser) -> None:
    """Options of the commands that a model answers."""
    add = parser.add_argument
    add(
        "--model",
        metavar="NAME",
        help="which one (default: the configuration's, or the first that is served)",
    )
    add("--max-tokens", type=_count, metavar="N", help="end the reply after so many tokens")
    add(
        "--temperature",
        type=_number,
        metavar="T",
        help="0: always the likeliest token; 1: as the model has it",
    )
    add(
        "--top-p",
        type=_number,
        metavar="P",
        help="draw from the likeliest tokens whose probabilities reach P",
    )
    add("--seed", type=int, metavar="N", help="draw the same tokens every time")
    add("--stop", action="append", metavar="WORDS", help="end the reply before these (repeatable)")
    add(
        "--stream",
        action=argparse.BooleanOptionalAction,
        help="tell the reply as it comes (with --json, each piece on a line) or at its end (default: as it "
        "comes, but with --json at its end)",
    )


def _add_common(parser: argparse.ArgumentParser) -> None:
    """Options of every command that asks the relay."""
    _add_access(parser)
    parser.add_argument(
        "--json",
        action="store_true",
        help="print the relay's answer: a JSON object on one line",
    )


def _add_access(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--url", help=f"the relay's address, if the token's is not the right one (or {URL_VARIABLE})")
    add("--token", help=f"a client's token; the relay's operator makes one (or {TOKEN_VARIABLE})")
    add(
        "--retry",
        type=_retries,
        default=0,
        metavar="N",
        help="ask again up to N times: when the relay says so, when it has no room or is away (429, 502, "
        "503, 504), or when nobody answers (default: 0)",
    )
    add(
        "--timeout",
        type=_seconds,
        default=SILENCE_SECONDS,
        metavar="SECONDS",
        help=f"give up when the relay says nothing for so long (default: {SILENCE_SECONDS:g})",
    )
    add("-q", "--quiet", action="store_true", help="print results and errors only")


def _count(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return int(text)


def _retries(text: str) -> int:
    return 0 if text == "0" else _count(text)


def _number(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number")
    return number


def _seconds(text: str) -> float:
    number = _number(text)
    if not 0 < number <= 86400:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds, up to a day of them")
    return number


def _pair(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not key or not equals:
        raise argparse.ArgumentTypeError(f"{text!r} is not KEY=VALUE")
    return key, value
