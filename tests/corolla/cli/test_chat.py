"""`corolla chat` and `corolla complete` against a real relay, whose head says what a test wants said."""

import asyncio
import json
from typing import Any

import pytest

from corolla.cli.exits import ExitCode
from schema.errors import KVCacheFull
from schema.messages import Generate
from tests.corolla.cli.running import CommandLine, Outcome
from tests.relay.core.peers import MODEL, ScriptedPeer, answer, fail, say_texts
from tests.relay.core.support import RunningRelay

HOSTILE = ("\x1b]0;owned\x07", "\u202egnitirw", "\x9b2J\r\n", "花 ok")
SHOWN = "\\x1b]0;owned\\x07\\u202egnitirw\\x9b2J\\r\n花 ok"


@pytest.fixture
def asking(command: CommandLine, token: str) -> CommandLine:
    """Commands that ask the real relay."""
    return CommandLine(command.home, {**command.environment, "COROLLA_API_KEY": token})


async def told(
    head: ScriptedPeer, asking: CommandLine, *arguments: str, texts: tuple[str, ...] = ("Hi", "!"), **how: Any
) -> tuple[Generate, Outcome]:
    """What the head was asked, and what became of the command, when the head answers with these texts."""
    reason = how.pop("reason", "stop")
    return await asyncio.gather(
        answer(head, *texts, reason=reason), asyncio.to_thread(asking, *arguments, **how)
    )


async def test_a_question_is_answered(head: ScriptedPeer, asking: CommandLine) -> None:
    generate, outcome = await told(head, asking, "chat", "Good", "day")
    assert outcome == Outcome(0, "Hi!\n", "")
    request = generate.body
    assert request.model == MODEL
    assert [(one.role, one.content) for one in request.messages or ()] == [("user", "Good day")]


async def test_options_reach_the_head(head: ScriptedPeer, asking: CommandLine) -> None:
    options = "--system Brief --max-tokens 7 --temperature 0.5 --top-p 0.9 --seed -3 --stop END --stop FIN"
    generate, outcome = await told(head, asking, "chat", "x", *options.split())
    request = generate.body
    assert outcome.code == 0
    assert [one.role for one in request.messages or ()] == ["system", "user"]
    assert (request.sampling.temperature, request.sampling.top_p, request.sampling.seed) == (0.5, 0.9, -3)
    assert (request.stopping.max_tokens, request.stopping.stop) == (7, ["END", "FIN"])


@pytest.mark.parametrize(
    ("words", "piped", "asked"),
    [
        ([], b"from a pipe\n", "from a pipe"),
        (["Shorten this"], b"a long text\n\n", "a long text\n\n\nShorten this"),
        (["words"], b"", "words"),
        (["words"], None, "words"),
    ],
)
async def test_what_is_piped_in_is_asked(
    words: list[str], piped: bytes | None, asked: str, head: ScriptedPeer, asking: CommandLine
) -> None:
    generate, _ = await told(head, asking, "chat", *words, piped=piped)
    assert [one.content for one in generate.body.messages or ()] == [asked]


async def test_a_text_is_continued(head: ScriptedPeer, asking: CommandLine) -> None:
    generate, outcome = await told(head, asking, "complete", piped=b" Once upon \n")
    assert (generate.body.prompt, outcome.out) == (" Once upon ", "Hi!\n")


@pytest.mark.parametrize("name", ["chat", "complete"])
@pytest.mark.parametrize("option", ["--stream", "--no-stream"])
async def test_a_model_cannot_steer_a_terminal(
    name: str, option: str, head: ScriptedPeer, asking: CommandLine
) -> None:
    _, outcome = await told(head, asking, name, "x", option, texts=HOSTILE, is_terminal=True)
    assert outcome.out == f"{SHOWN}\n"


async def test_files_get_what_the_model_has_said(head: ScriptedPeer, asking: CommandLine) -> None:
    _, outcome = await told(head, asking, "chat", "x", texts=HOSTILE)
    assert outcome.out == f"{''.join(HOSTILE)}\n"


@pytest.mark.parametrize("is_terminal", [True, False])
async def test_json_is_one_harmless_object(
    is_terminal: bool, head: ScriptedPeer, asking: CommandLine
) -> None:
    _, outcome = await told(head, asking, "chat", "x", "--json", texts=HOSTILE, is_terminal=is_terminal)
    (line,) = outcome.out.splitlines()
    assert line.isprintable()
    said = json.loads(line)
    assert said["object"] == "chat.completion"
    assert said["choices"][0]["message"]["content"] == "".join(HOSTILE)


async def test_json_of_a_stream_is_an_object_a_line(head: ScriptedPeer, asking: CommandLine) -> None:
    _, outcome = await told(head, asking, "chat", "x", "--json", "--stream", texts=HOSTILE)
    events = [json.loads(line) for line in outcome.out.splitlines()]
    assert {event["object"] for event in events} == {"chat.completion.chunk"}
    assert "".join(event["choices"][0]["delta"].get("content", "") for event in events) == "".join(HOSTILE)


@pytest.mark.parametrize(("quiet", "notes"), [([], 1), (["--quiet"], 0)])
async def test_a_reply_that_was_cut_off_says_so(
    quiet: list[str], notes: int, head: ScriptedPeer, asking: CommandLine
) -> None:
    _, outcome = await told(head, asking, "chat", "x", *quiet, reason="length")
    assert (outcome.code, outcome.out, outcome.err.count("cut off")) == (0, "Hi!\n", notes)


@pytest.mark.parametrize("options", [[], ["--json", "--stream"]])
async def test_a_reply_that_breaks_is_an_error(
    options: list[str], head: ScriptedPeer, asking: CommandLine
) -> None:
    running = asyncio.create_task(asyncio.to_thread(asking, "chat", "x", *options))
    generate = await head.hear(Generate)
    await say_texts(head, generate, "Once")
    await fail(head, generate, KVCacheFull("no room for more tokens"))
    outcome = await running
    assert outcome.code == ExitCode.NOT_SERVED
    assert "Once" in outcome.out
    assert outcome.err.endswith("corolla: no room for more tokens\n")


async def test_an_unknown_model_is_refused(head: ScriptedPeer, asking: CommandLine) -> None:
    outcome = await asyncio.to_thread(asking, "chat", "x", "--model", "unheard-of")
    assert (outcome.code, outcome.out) == (ExitCode.FAILED, "")
    assert "unheard-of" in outcome.err


async def test_no_model_is_not_served_now(relay: RunningRelay, asking: CommandLine) -> None:
    outcome = await asyncio.to_thread(asking, "chat", "x")
    assert outcome.code == ExitCode.NOT_SERVED
    assert f"no model is served now ({MODEL}: " in outcome.err


async def test_the_configuration_may_choose_the_model(head: ScriptedPeer, asking: CommandLine) -> None:
    folder = asking.home / ".config" / "corolla"
    folder.mkdir(parents=True)
    (folder / "config.toml").write_text('model = "unheard-of"')
    outcome = await asyncio.to_thread(asking, "chat", "x")
    assert "unheard-of" in outcome.err


async def test_models_and_volunteers_are_shown(head: ScriptedPeer, asking: CommandLine) -> None:
    shown = await asyncio.to_thread(asking, "swarm")
    assert f"{MODEL}  yes          8      128      1" in shown.out
    assert f"tester  serving  {MODEL}  0-7     yes   CPU" in shown.out
    models = (await asyncio.to_thread(asking, "models", "--json")).json()
    assert [(one["id"], one["complete"]) for one in models["models"]] == [(MODEL, True)]  # type: ignore[attr-defined]
    swarm = (await asyncio.to_thread(asking, "swarm", "--json")).json()
    assert set(swarm) == {"models", "volunteers"}


async def test_why_a_model_is_not_served_is_shown(relay: RunningRelay, asking: CommandLine) -> None:
    await relay.serving(0, 4, head=True)
    shown = await asyncio.to_thread(asking, "models")
    assert "no" in shown.out
    assert "blocks 4\N{EN DASH}7 have no volunteer" in shown.out
