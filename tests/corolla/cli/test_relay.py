"""What becomes of a command that the relay refuses, does not hear, or answers strangely."""

import socket

import pytest

from corolla.cli import relay as relay_module
from corolla.cli.access import Access
from corolla.cli.exits import ExitCode, Refused, Unreachable
from corolla.cli.relay import Patience, Relay
from schema.api import ModelEntry, ModelList
from schema.credentials import new_credential
from schema.errors import CorollaError, Forbidden, InvalidRequest, ModelUnavailable, Unauthorized, Unavailable
from tests.corolla.cli.fake_relay import Answer, FakeRelay
from tests.corolla.cli.running import CommandLine

MODELS = "GET /v1/models"
CHAT = "POST /v1/chat/completions"
LIST = Answer(ModelList(data=[ModelEntry(id="llama", created=1)]))
BROKEN = Answer(b'{"object": "list", "da', headers={"Content-Length": "100", "Connection": "close"})


class Pauses(list[float]):
    """Waits for nothing, and keeps how long it should have."""

    __call__ = list[float].append


@pytest.fixture
def pauses() -> Pauses:
    return Pauses()


def patient(fake: FakeRelay, pauses: Pauses, retries: int) -> Relay:
    return Relay(Access(fake.url, fake.token), Patience(retries), lambda line: None, pauses)


# ---- exit codes ----


@pytest.mark.parametrize(
    ("error", "code", "remedy"),
    [
        (Unauthorized("this token is not known here"), ExitCode.FAILED, "token create --kind client"),
        (Forbidden("no"), ExitCode.FAILED, "client's token"),
        (InvalidRequest("temperature is too high"), ExitCode.FAILED, "temperature is too high"),
        (ModelUnavailable("blocks 0 to 3 have no volunteer"), ExitCode.NOT_SERVED, "`corolla swarm`"),
        (Unavailable("the database is away"), ExitCode.NOT_SERVED, "the database is away"),
    ],
)
def test_a_refusal_says_why_and_what_to_do(
    error: CorollaError, code: ExitCode, remedy: str, faked: CommandLine, fake: FakeRelay
) -> None:
    fake.refuses(CHAT, error)
    outcome = faked("chat", "hello", "--model", "llama")
    assert (outcome.code, outcome.out) == (code, "")
    assert outcome.err.startswith(f"corolla: {error.message}")
    assert remedy in outcome.err


def test_a_relay_cannot_steer_a_terminal_either(faked: CommandLine, fake: FakeRelay) -> None:
    fake.refuses(CHAT, InvalidRequest("\x1b[2Jcome closer"))
    assert faked("chat", "hello", "--model", "x").err == "corolla: \\x1b[2Jcome closer\n"


def test_nobody_there_is_unreachable(command: CommandLine) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{nobody.getsockname()[1]}"
        outcome = command("models", "--token", str(new_credential("client", url)))
    assert outcome.code == ExitCode.UNREACHABLE
    assert f"no answer from {url}" in outcome.err
    assert "is the address right" in outcome.err


def test_an_answer_that_breaks_off_is_unreachable(faked: CommandLine, fake: FakeRelay) -> None:
    fake.says(MODELS, BROKEN)
    outcome = faked("chat", "hello")
    assert (outcome.code, "broke off" in outcome.err) == (ExitCode.UNREACHABLE, True)


@pytest.mark.parametrize(
    ("answer", "cause"),
    [
        (Answer(b"<html>Bad Gateway</html>", 502), "answers 502 Bad Gateway to /api/swarm"),
        (Answer(b"", 301, {"Location": "https://new.example/"}), "moved to https://new.example/"),
        (Answer(b"<html>hello</html>"), "is not understood"),
        (Answer({"models": "none", "volunteers": []}), "is not understood"),
    ],
)
def test_who_is_no_relay_is_found_out(
    answer: Answer, cause: str, faked: CommandLine, fake: FakeRelay
) -> None:
    fake.says("GET /api/swarm", answer)
    outcome = faked("swarm")
    assert (outcome.code, cause in outcome.err) == (ExitCode.FAILED, True), outcome.err


@pytest.mark.parametrize("body", [b"<html>", b'{"models": "\xff"}', b"[" * 100_000])
def test_json_is_json_or_an_error(body: bytes, faked: CommandLine, fake: FakeRelay) -> None:
    for path in ("GET /api/swarm", CHAT):
        fake.says(path, Answer(body))
    for arguments in (["swarm"], ["models"], ["chat", "x", "--model", "llama"]):
        outcome = faked(*arguments, "--json")
        assert (outcome.code, outcome.out) == (ExitCode.FAILED, "")
        assert "is not understood" in outcome.err


def test_events_of_a_stream_are_json_or_an_error(faked: CommandLine, fake: FakeRelay) -> None:
    fake.says(CHAT, Answer(b"data: <html>\n\n"))
    for options in ([], ["--json", "--stream"]):
        outcome = faked("chat", "x", "--model", "llama", *options)
        assert (outcome.code, "is not understood" in outcome.err) == (ExitCode.FAILED, True)


def test_a_stream_that_ends_too_early_is_unreachable(faked: CommandLine, fake: FakeRelay) -> None:
    fake.says(CHAT, Answer(b'data: {"id": "1", "created": 1, "model": "llama", "choices": []}\n\n'))
    outcome = faked("chat", "x", "--model", "llama")
    assert (outcome.code, "ended before the reply did" in outcome.err) == (ExitCode.UNREACHABLE, True)


def test_an_answer_without_an_end_is_not_kept(
    faked: CommandLine, fake: FakeRelay, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relay_module, "MAX_ANSWER_BYTES", 10)
    fake.says("GET /api/swarm", Answer(b"x" * 11))
    outcome = faked("swarm")
    assert (outcome.code, "longer than 10 bytes" in outcome.err) == (ExitCode.FAILED, True)


def test_wrong_usage_asks_nobody(faked: CommandLine, fake: FakeRelay) -> None:
    for arguments in (["chat"], ["chat", "x", "--max-tokens", "0"], ["complete"], ["models", "--token", "x"]):
        assert faked(*arguments).code == ExitCode.USAGE
    assert fake.asked == []


@pytest.mark.parametrize(
    ("arguments", "environment", "cause"),
    [
        (["chat", "\udcff", "--model", "x"], {}, "no text"),
        (["swarm", "--url", "http://a\x01b"], {}, "not a relay's address"),
        (["swarm", "--url", "http://relay.example"], {"ALL_PROXY": "gopher://x"}, "proxy"),
    ],
)
def test_what_cannot_even_be_asked_is_wrong_usage(
    arguments: list[str],
    environment: dict[str, str],
    cause: str,
    faked: CommandLine,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    outcome = faked(*arguments)
    assert (outcome.code, cause in outcome.err) == (ExitCode.USAGE, True), outcome.err


def test_an_answer_that_is_packed_wrongly_is_unreachable(faked: CommandLine, fake: FakeRelay) -> None:
    fake.says("GET /api/swarm", Answer(b"no gzip", headers={"Content-Encoding": "gzip"}))
    assert faked("swarm").code == ExitCode.UNREACHABLE


# ---- asking again ----


def test_nothing_is_asked_again_unless_that_is_asked_for(fake: FakeRelay, pauses: Pauses) -> None:
    fake.refuses(MODELS, Unavailable("away"), after="3")
    with patient(fake, pauses, 0) as relay, pytest.raises(Refused, match="away"):
        relay.get("/v1/models")
    assert (len(fake.asked), pauses) == (1, [])


def test_the_relay_says_when_to_come_back(fake: FakeRelay, pauses: Pauses) -> None:
    fake.refuses(MODELS, Unavailable("away"), 2, after="3")
    fake.says(MODELS, LIST)
    with patient(fake, pauses, 5) as relay:
        assert relay.get("/v1/models") == LIST.data
    assert pauses == [3, 3]


def test_pauses_grow_where_it_does_not(fake: FakeRelay, pauses: Pauses) -> None:
    fake.says(MODELS, Answer(b"", 502))
    with patient(fake, pauses, 7) as relay, pytest.raises(Refused):
        relay.get("/v1/models")
    assert (pauses, len(fake.asked)) == ([1, 2, 4, 8, 16, 30, 30], 8)


@pytest.mark.parametrize(
    ("after", "waits"),
    [("Fri, 27 Nov 2020 00:00:00 GMT", [0]), ("soon", [1]), ("-1", [1]), ("99999999999999999", [])],
)
def test_when_to_come_back_may_be_said_strangely(
    after: str, waits: list[float], fake: FakeRelay, pauses: Pauses
) -> None:
    fake.refuses(MODELS, Unavailable("away"), after=after)
    with patient(fake, pauses, 1) as relay, pytest.raises(Refused):
        relay.get("/v1/models")
    assert pauses == waits


def test_what_will_not_pass_is_not_asked_again(fake: FakeRelay, pauses: Pauses) -> None:
    fake.refuses(MODELS, Unauthorized("who?"))
    with patient(fake, pauses, 5) as relay, pytest.raises(Refused, match="who"):
        relay.get("/v1/models")
    assert pauses == []


@pytest.mark.parametrize(("key", "attempts"), [(None, 1), ("key", 3)])
def test_what_may_have_been_done_is_asked_again_only_with_a_key(
    key: str | None, attempts: int, fake: FakeRelay, pauses: Pauses
) -> None:
    """The connection ends before an answer: the relay may have done it all the same."""
    fake.says("POST /v1/batches", Answer(headers={"Content-Length": "x", "Connection": "close"}))
    with patient(fake, pauses, 2) as relay, pytest.raises(Unreachable):
        relay.post("/v1/batches", {}, key)
    assert len(fake.asked) == attempts
    assert {asked.headers.get("Idempotency-Key") for asked in fake.asked} == {key}


def test_why_it_waits_is_told(faked: CommandLine, fake: FakeRelay) -> None:
    fake.refuses("GET /api/swarm", Unavailable("the database is away"), after="0")
    fake.says("GET /api/swarm", Answer({"models": [], "volunteers": []}))
    outcome = faked("swarm", "--retry", "1")
    assert (outcome.code, outcome.out) == (0, "The swarm has no models.\n\nNobody is there.\n")
    assert "the database is away" in outcome.err
    assert "trying again in 0 s (1 of 1)" in outcome.err
