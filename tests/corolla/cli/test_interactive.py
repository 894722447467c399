"""A conversation, typed at a real terminal and answered by a real relay, whose head a test plays."""

import asyncio
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from corolla.cli.exits import ExitCode
from schema.errors import KVCacheFull
from schema.messages import Cancel, Generate
from tests.corolla.cli.processes import CTRL_C, CTRL_D, Terminal, at_a_terminal, piped
from tests.relay.core.peers import MODEL, ScriptedPeer, answer, fail, say_texts

FIRST = ("user", "Hello")
REPLY = ("assistant", "Hi!")


@pytest.fixture
def environment(token: str, tmp_path: Path) -> dict[str, str]:
    return {"HOME": str(tmp_path), "XDG_STATE_HOME": "", "XDG_CONFIG_HOME": "", "COROLLA_API_KEY": token}


@pytest.fixture
async def terminal(head: ScriptedPeer, environment: dict[str, str]) -> AsyncIterator[Terminal]:
    """A conversation that has begun."""
    async with at_a_terminal(environment, "chat") as begun:
        await begun.shows(f"{MODEL} at http://")
        await begun.shows("> ")
        yield begun


def turns(generate: Generate) -> list[tuple[str, str]]:
    return [(one.role, one.content) for one in generate.body.messages or ()]


async def say(terminal: Terminal, head: ScriptedPeer, words: str, *texts: str) -> list[tuple[str, str]]:
    """Type a question and answer it; the turns that the head was asked with."""
    terminal.type(f"{words}\n")
    generate = await answer(head, *texts)
    await terminal.shows(f"{''.join(texts)}\r\n> ")
    return turns(generate)


async def interrupt(terminal: Terminal, head: ScriptedPeer, words: str) -> None:
    """Type a question, let its reply begin, and stop it with Ctrl-C."""
    terminal.type(f"{words}\n")
    generate = await head.hear(Generate)
    await say_texts(head, generate, "It was a dark")
    await terminal.shows("It was a dark")
    terminal.type(CTRL_C)
    assert (await head.hear(Cancel)).request == generate.request
    await terminal.shows("Ctrl-C once more leaves")
    await terminal.shows("> ")


async def test_every_question_comes_with_what_was_said_before(
    terminal: Terminal, head: ScriptedPeer, tmp_path: Path
) -> None:
    assert await say(terminal, head, "Hello", "Hi", "!") == [FIRST]
    assert await say(terminal, head, "And now?", "Fine.") == [FIRST, REPLY, ("user", "And now?")]
    terminal.type(CTRL_D)
    assert await terminal.ends() == ExitCode.DONE
    kept = tmp_path / ".local/state/corolla/history"
    assert kept.read_text() == "Hello\nAnd now?\n"
    assert kept.stat().st_mode & 0o777 == 0o600


async def test_commands_are_obeyed(terminal: Terminal, head: ScriptedPeer) -> None:
    await say(terminal, head, "Hello", "Hi!")
    terminal.type("/system Be brief.\n")
    await terminal.shows("> ")
    assert (await say(terminal, head, "x", "y"))[:2] == [("system", "Be brief."), FIRST]
    terminal.type("/new\n/system\n")
    await terminal.shows("told nothing beforehand)\r\n> ")
    assert await say(terminal, head, "Hello", "Hi!") == [FIRST]
    terminal.type("/help\n/nonsense\n/model\n/model unheard-of\n")
    await terminal.shows("/system [WORDS]")
    await terminal.shows("there is no command /nonsense")
    await terminal.shows(f"({MODEL} answers)")
    await terminal.shows("(unheard-of answers)\r\n> ")
    terminal.type("/exit\n")
    assert await terminal.ends() == ExitCode.DONE


async def test_a_line_may_go_on(terminal: Terminal, head: ScriptedPeer) -> None:
    assert await say(terminal, head, "one\\\ntwo", "Hi!") == [("user", "one\ntwo")]


async def test_ctrl_c_stops_a_reply_which_is_kept_as_far_as_it_came(
    terminal: Terminal, head: ScriptedPeer
) -> None:
    await interrupt(terminal, head, "Hello")
    expected = [FIRST, ("assistant", "It was a dark"), ("user", "Go on")]
    assert await say(terminal, head, "Go on", "night.") == expected


async def test_a_second_ctrl_c_leaves(terminal: Terminal, head: ScriptedPeer) -> None:
    await interrupt(terminal, head, "Hello")
    terminal.type(CTRL_C)
    assert await terminal.ends() == ExitCode.INTERRUPTED
    assert "Traceback" not in terminal.shown


async def test_a_line_that_was_begun_is_forgotten_at_ctrl_c(terminal: Terminal, head: ScriptedPeer) -> None:
    terminal.type("never mind")
    await terminal.shows("never mind")
    terminal.type(CTRL_C)
    await terminal.shows("Ctrl-C once more leaves)\r\n> ")
    assert await say(terminal, head, "Hello", "Hi!") == [FIRST]


async def test_a_reply_that_breaks_is_told_and_not_kept(terminal: Terminal, head: ScriptedPeer) -> None:
    terminal.type("x\n")
    await fail(head, await head.hear(Generate), KVCacheFull("no room for more tokens"))
    await terminal.shows("no room for more tokens")
    await terminal.shows("> ")
    assert await say(terminal, head, "Hello", "Hi!") == [FIRST]


async def test_a_model_cannot_steer_the_terminal(terminal: Terminal, head: ScriptedPeer) -> None:
    terminal.type("Hello\n")
    await answer(head, "\x1b]0;owned\x07", "\u202e\x9b2J")
    await terminal.shows("\\x1b]0;owned\\x07\\u202e\\x9b2J\r\n> ")
    assert not {"\x1b", "\x07", "\u202e", "\x9b"} & set(terminal.shown)


async def test_what_is_typed_need_not_be_kept(
    head: ScriptedPeer, environment: dict[str, str], tmp_path: Path
) -> None:
    async with at_a_terminal(environment, "chat", "--no-history", "--quiet") as terminal:
        await terminal.shows("> ")
        await say(terminal, head, "Hello", "Hi!")
        terminal.type(CTRL_D)
        assert await terminal.ends() == ExitCode.DONE
    assert not (tmp_path / ".local").exists()


async def test_ctrl_c_ends_a_single_question(head: ScriptedPeer, environment: dict[str, str]) -> None:
    async with at_a_terminal(environment, "chat", "Hello") as terminal:
        generate = await head.hear(Generate)
        await say_texts(head, generate, "It was")
        await terminal.shows("It was")
        terminal.type(CTRL_C)
        await head.hear(Cancel)
        assert await terminal.ends() == ExitCode.INTERRUPTED
        assert "Traceback" not in terminal.shown


async def test_a_reader_who_leaves_stops_the_model(head: ScriptedPeer, environment: dict[str, str]) -> None:
    """As in `corolla chat … | head -c 4`."""
    process = await piped(environment, "chat", "Hello")
    assert process.stdout is not None
    assert process.stderr is not None
    generate = await head.hear(Generate)
    await say_texts(head, generate, "Once")
    assert await process.stdout.readexactly(4) == b"Once"
    process._transport.get_pipe_transport(1).close()  # type: ignore[attr-defined]
    await say_texts(head, generate, "Once", " upon", " a time")
    await head.hear(Cancel)
    assert await asyncio.wait_for(process.wait(), 30) == ExitCode.NOBODY_READS
    assert await process.stderr.read() == b""


async def test_an_interrupted_process_says_nothing(head: ScriptedPeer, environment: dict[str, str]) -> None:
    process = await piped(environment, "chat", "Hello")
    await head.hear(Generate)
    process.send_signal(signal.SIGINT)
    out, err = await asyncio.wait_for(process.communicate(), 30)
    assert (process.returncode, out, err) == (ExitCode.INTERRUPTED, b"", b"")
