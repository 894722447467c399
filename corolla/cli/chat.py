"""`corolla chat` and `corolla complete`: one question, or a conversation."""

import argparse
from collections.abc import Mapping

from corolla.cli import asking, interactive
from corolla.cli.exits import WrongUsage
from corolla.cli.relay import Relay
from corolla.cli.replies import ChatReply, Question, TextReply, choose_model
from corolla.cli.terminal import Console


def chat(
    relay: Relay, arguments: argparse.Namespace, console: Console, environment: Mapping[str, str]
) -> int:
    """Ask once where there are words, talk where there is a person. Raises CommandError."""
    words = asking.words_of(arguments, console)
    fields = asking.fields_of(arguments)
    if words is None and console.is_interactive and not arguments.json:
        conversation = interactive.Conversation(
            relay, choose_model(relay, arguments.model), fields, arguments.system
        )
        history = None if arguments.no_history else interactive.history_file(environment)
        return interactive.talk(conversation, console, history)
    if words is None:
        raise WrongUsage('what shall be asked? Give words, or pipe them in: corolla chat "Hello"')
    messages = [{"role": "user", "content": words}]
    if arguments.system:
        messages.insert(0, {"role": "system", "content": arguments.system})
    body = {"model": choose_model(relay, arguments.model), "messages": messages, **fields}
    return asking.tell(Question(relay, ChatReply(), body), arguments, console)


def complete(
    relay: Relay, arguments: argparse.Namespace, console: Console, environment: Mapping[str, str]
) -> int:
    """Continue a text. Raises CommandError."""
    prompt = asking.words_of(arguments, console)
    if prompt is None:
        raise WrongUsage('what shall be continued? Give words, or pipe them in: corolla complete "Once upon"')
    body = {"model": choose_model(relay, arguments.model), "prompt": prompt, **asking.fields_of(arguments)}
    return asking.tell(Question(relay, TextReply(), body), arguments, console)
