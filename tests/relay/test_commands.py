"""relay/__main__.py and relay/commands/: what an operator types, what is printed, and the exit code."""

import asyncio
import json
import os
import signal
import sqlite3
import subprocess
import sys
import urllib.request
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import NamedTuple

import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosedError

from relay.__main__ import main
from relay.commands.serve import server_config
from relay.commands.tokens import database_name
from relay.migrate import head_revision
from relay.settings import Settings
from schema.credentials import parse_credential
from schema.protocol import MAX_FRAME_BYTES

pytestmark = pytest.mark.usefixtures("logs_as_before")


class Outcome(NamedTuple):
    """What a command did."""

    code: int
    output: str
    explanation: str


Run = Callable[..., Outcome]


@pytest.fixture
def relay(database: str, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs one command on a database of its own."""

    def run(*arguments: str, **environment: str) -> Outcome:
        code = main(arguments, {"DATABASE_URL": database} | environment)
        captured = capsys.readouterr()
        return Outcome(code, captured.out, captured.err)

    return run


def table(outcome: Outcome) -> list[Sequence[str]]:
    """The rows of a printed table, without its heading."""
    return [line.split() for line in outcome.output.splitlines()[1:]]


# ---- tokens -------------------------------------------------------------------------------------


def test_a_made_token_is_all_that_is_printed(relay: Run) -> None:
    made = relay("token", "create", "--kind", "volunteer", "--name", "Ada")
    token = parse_credential(made.output)
    assert (made.code, made.output) == (0, f"{token}\n")
    assert (token.kind, token.relay_url) == ("volunteer", "http://127.0.0.1:8000")
    assert token.id in made.explanation
    assert token.secret not in made.explanation


@pytest.mark.parametrize(
    ("url", "is_warned_of"),
    [("http://127.0.0.1:8000", True), ("http://localhost:81", True), ("https://relay.example", False)],
)
def test_a_volunteers_token_for_this_machine_alone_is_warned_of(
    relay: Run, url: str, is_warned_of: bool
) -> None:
    made = relay("token", "create", "--kind", "volunteer", PUBLIC_URL=url)
    assert ("works on this machine alone" in made.explanation) is is_warned_of
    assert "works on this machine alone" not in relay("token", "create", "--kind", "client").explanation


def test_the_database_of_a_token_is_named_without_its_password(tmp_path: Path) -> None:
    def named(url: str) -> str:
        return database_name(Settings(database_url=url))

    assert named(f"sqlite+aiosqlite:///{tmp_path}/one.sqlite3") == str(tmp_path / "one.sqlite3")
    assert named("postgresql+asyncpg://me:secret@host/swarm") == "postgresql+asyncpg://me:***@host/swarm"


def test_a_token_is_a_volunteers_unless_said_otherwise(relay: Run) -> None:
    assert parse_credential(relay("token", "create").output).kind == "volunteer"


def test_a_token_carries_the_public_url(relay: Run) -> None:
    made = relay("token", "create", "--kind", "client", "--name", "x", PUBLIC_URL="https://relay.example/")
    assert parse_credential(made.output).relay_url == "https://relay.example"


def test_a_token_may_carry_another_address(relay: Run) -> None:
    made = relay(
        "token", "create", "--kind", "client", "--name", "x", "--relay-url", "https://other.example/"
    )
    assert parse_credential(made.output).relay_url == "https://other.example"


def test_a_bad_address_is_refused(relay: Run) -> None:
    made = relay("token", "create", "--kind", "client", "--name", "x", "--relay-url", "other.example")
    assert (made.code, made.output) == (1, "")
    assert "--relay-url" in made.explanation


def test_tokens_are_listed_without_secrets(relay: Run) -> None:
    token = parse_credential(relay("token", "create", "--kind", "client", "--name", "Ada").output)
    listed = relay("token", "list")
    ((token_id, kind, name, *_),) = table(listed)
    assert (token_id, kind, name) == (token.id, "client", "Ada")
    assert token.secret not in listed.output
    assert token.secret_hash not in listed.output


def test_a_token_can_be_revoked(relay: Run) -> None:
    token = parse_credential(relay("token", "create", "--kind", "client", "--name", "Ada").output)
    assert table(relay("token", "list"))[0][-1] == "-"
    assert relay("token", "revoke", token.id).code == 0
    assert table(relay("token", "list"))[0][-1] != "-"


def test_an_admins_token_is_warned_of(relay: Run) -> None:
    made = relay("token", "create", "--kind", "admin", "--name", "Ada")
    assert parse_credential(made.output).kind == "admin"
    assert "revokes all tokens" in made.explanation


def test_revoking_an_unknown_token_is_refused(relay: Run) -> None:
    revoked = relay("token", "revoke", "nobody")
    assert revoked.code == 1
    assert revoked.explanation.startswith("error: there is no token 'nobody'")


# ---- models -------------------------------------------------------------------------------------


def test_models_are_added_and_listed(relay: Run) -> None:
    relay("model", "add", "some/model")
    relay("model", "add", "another")
    assert [row[0] for row in table(relay("model", "list"))] == ["some/model", "another"]


def test_a_model_can_be_removed(relay: Run) -> None:
    relay("model", "add", "a")
    assert relay("model", "remove", "a").code == 0
    assert table(relay("model", "list")) == []


@pytest.mark.parametrize("action", ["remove", "forget"])
def test_an_unknown_model_is_refused(relay: Run, action: str) -> None:
    refused = relay("model", action, "a")
    assert refused.code == 1
    assert refused.explanation.startswith("error: the swarm does not serve 'a'")


def test_what_was_reported_of_a_model_can_be_forgotten(relay: Run) -> None:
    relay("model", "add", "a")
    assert relay("model", "forget", "a").code == 0


# ---- migrate ------------------------------------------------------------------------------------


def run_on(database: str, *arguments: str) -> int:
    return main(arguments, {"DATABASE_URL": database})


def test_migrate_makes_an_empty_database_ready(
    empty_database: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_on(empty_database, "migrate") == 0
    assert head_revision() in capsys.readouterr().err
    assert run_on(empty_database, "token", "list") == 0


def test_migrate_may_be_run_again(empty_database: str) -> None:
    assert [run_on(empty_database, "migrate") for _ in range(2)] == [0, 0]


def test_migrate_can_print_its_sql_without_a_database(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_on("postgresql://nowhere.invalid/base", "migrate", "--sql") == 0
    assert "CREATE TABLE tokens" in capsys.readouterr().out


@pytest.mark.parametrize("dialect", [pytest.param("postgresql", marks=pytest.mark.postgres)])
@pytest.mark.parametrize("arguments", [["serve"], ["token", "list"]])
def test_an_unmigrated_postgresql_is_refused_with_the_remedy(
    empty_database: str, arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_on(empty_database, *arguments) == 1
    assert "python -m relay migrate" in capsys.readouterr().err


# ---- mistakes -----------------------------------------------------------------------------------


def test_a_bad_setting_is_wrong_usage(relay: Run) -> None:
    refused = relay("token", "list", PORT="http")
    assert (refused.code, refused.output) == (2, "")
    assert refused.explanation.startswith("error: PORT is 'http': give")


def test_an_unreachable_database_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_on("postgresql://127.0.0.1:1/base", "token", "list") == 1
    assert capsys.readouterr().err.startswith("error: the database is not available")


@pytest.mark.parametrize(
    "arguments",
    [
        ["nonsense"],
        ["token"],
        ["token", "create", "--kind", "x", "--name", "y"],
        ["model", "add"],
    ],
)
def test_wrong_usage_exits_with_2(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(arguments, {})
    assert exit_.value.code == 2


# ---- the server ---------------------------------------------------------------------------------


async def say_hello(_request: object) -> PlainTextResponse:
    return PlainTextResponse("hello")


async def echo(socket: WebSocket) -> None:
    await socket.accept()
    with suppress(WebSocketDisconnect):
        while True:
            await socket.send_bytes(await socket.receive_bytes())


@pytest.fixture
async def port() -> AsyncIterator[int]:
    """The port of a server that is set up as the relay's is; its application says hello and echoes."""
    app = Starlette(routes=[Route("/", say_hello), WebSocketRoute("/echo", echo)])
    server = uvicorn.Server(server_config(Settings(port=0), app))
    serving = asyncio.create_task(server.serve())
    while not server.started:
        assert not serving.done()
        await asyncio.sleep(0.01)
    yield server.servers[0].sockets[0].getsockname()[1]
    server.should_exit = True
    await serving


async def test_answers_do_not_name_the_software(port: int) -> None:
    response = await asyncio.to_thread(urllib.request.urlopen, f"http://127.0.0.1:{port}/")
    with closing(response):
        assert "server" not in response.headers


async def test_websockets_do_not_compress(port: int) -> None:
    async with connect(f"ws://127.0.0.1:{port}/echo", compression="deflate") as socket:
        assert socket.response is not None
        assert "Sec-WebSocket-Extensions" not in socket.response.headers


async def test_the_largest_frame_passes(port: int) -> None:
    async with connect(f"ws://127.0.0.1:{port}/echo", max_size=None, compression=None) as socket:
        await socket.send(bytes(MAX_FRAME_BYTES))
        assert len(await socket.recv()) == MAX_FRAME_BYTES


async def test_a_larger_frame_closes_the_connection(port: int) -> None:
    async with connect(f"ws://127.0.0.1:{port}/echo", max_size=None, compression=None) as socket:
        with suppress(ConnectionClosedError):  # it may be closed before all is sent
            await socket.send(bytes(MAX_FRAME_BYTES + 1))
        with pytest.raises(ConnectionClosedError) as closed:
            await socket.recv()
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1009


@pytest.fixture
def started_relay(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """`python -m relay`, without a command, in an empty folder."""
    environment = os.environ | {
        "PORT": "0",
        "LOG_FORMAT": "json",
        "REPLICA": "here",
        "PYTHONPATH": str(Path(__file__).parents[2]),
    }
    process = subprocess.Popen(
        [sys.executable, "-m", "relay"], cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True
    )
    yield process
    process.kill()
    process.communicate()


def address_in(process: subprocess.Popen[str]) -> str:
    """Where it says that it runs; every line before that is a JSON object with the replica's name."""
    assert process.stderr is not None
    for line in process.stderr:
        entry = json.loads(line)
        assert entry["replica"] == "here"
        if " running on " in entry["message"]:
            return entry["message"].split(" running on ")[1].split()[0]
    raise AssertionError("it ended without saying where it runs")


def test_a_taken_port_is_refused_with_the_remedy(
    started_relay: subprocess.Popen[str], tmp_path: Path
) -> None:
    port = address_in(started_relay).rpartition(":")[2]
    second = subprocess.run(
        [sys.executable, "-m", "relay", "serve"],
        cwd=tmp_path,
        env=os.environ | {"PORT": port, "PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
    )
    assert second.returncode == 1
    assert second.stderr.splitlines()[-1].startswith(f"error: cannot listen on 127.0.0.1 port {port}: stop")
    assert "Traceback" not in second.stderr


def serve_after(preparation: str, folder: Path, **environment: str) -> "subprocess.CompletedProcess[str]":
    """`python -m relay serve` in a process in which something is not as it should be."""
    program = "import os, sys; from relay.__main__ import main; sys.exit(main(['serve'], os.environ))"
    return subprocess.run(
        [sys.executable, "-c", f"{preparation}\n{program}"],
        cwd=folder,
        env=os.environ | {"PORT": "0", "PYTHONPATH": str(Path(__file__).parents[2])} | environment,
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.mark.parametrize(
    ("library", "extra", "variable", "value"),
    [
        ("nats", "nats", "BUS_URL", "nats://127.0.0.1:4222"),
        ("obstore", "s3", "FILES", "s3://bucket"),
    ],
)
def test_a_library_that_a_setting_needs_is_named_with_its_extra(
    tmp_path: Path, library: str, extra: str, variable: str, value: str
) -> None:
    refused = serve_after(f"import sys; sys.modules[{library!r}] = None", tmp_path, **{variable: value})
    assert refused.returncode == 1
    remedy = f"pip install 'corolla[{extra}] @ git+REPOSITORY'"
    assert refused.stderr == f"error: {variable} needs the extra {extra}: {remedy}\n"


def test_what_else_fails_at_the_start_is_not_called_a_taken_port(tmp_path: Path) -> None:
    preparation = "import relay.app\nasync def fail(*_): raise RuntimeError('no room')\n"
    failed = serve_after(f"{preparation}relay.app.build_services = fail", tmp_path)
    assert failed.returncode == 1
    assert "no room" in failed.stderr
    assert failed.stderr.splitlines()[-1].startswith("error: the relay cannot start")
    assert "cannot listen" not in failed.stderr


def test_without_a_command_the_relay_serves_until_it_is_told_to_stop(
    started_relay: subprocess.Popen[str], tmp_path: Path
) -> None:
    with urllib.request.urlopen(f"{address_in(started_relay)}/healthz") as response:
        assert response.status == 200
    started_relay.send_signal(signal.SIGTERM)
    assert started_relay.wait(timeout=30) == 0
    with closing(sqlite3.connect(tmp_path / "corolla.sqlite3")) as connection:
        assert connection.execute("SELECT count(*) FROM models").fetchone() == (1,)
