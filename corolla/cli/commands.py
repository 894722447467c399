"""Which function each command is, and what they all need: the relay that they ask."""

import argparse
from collections.abc import Callable, Mapping

from corolla.cli import batch, chat, swarm
from corolla.cli.access import find_access
from corolla.cli.parser import command_line
from corolla.cli.relay import Patience, Relay
from corolla.cli.terminal import Console

Command = Callable[[Relay, argparse.Namespace, Console, Mapping[str, str]], int]
COMMANDS: dict[str, Command] = {
    "chat": chat.chat,
    "complete": chat.complete,
    "models": swarm.models,
    "swarm": swarm.swarm,
    "batch submit": batch.submit,
    "batch status": batch.status,
    "batch results": batch.results,
    "batch cancel": batch.cancel,
    "batch list": batch.show_all,
}


def run(arguments: argparse.Namespace, console: Console, environment: Mapping[str, str]) -> int:
    """Do what the arguments say; the exit code. Raises CommandError."""
    if arguments.command == "completion":
        return _print_completion(arguments.shell, console)
    access = find_access(arguments.url, arguments.token, environment, console.note)
    with Relay(access, Patience(arguments.retry, arguments.timeout), console.note) as relay:
        return COMMANDS[arguments.command](relay, arguments, console, environment)


def _print_completion(shell: str, console: Console) -> int:
    import shtab

    console.line(shtab.complete(command_line(), shell))
    return 0
