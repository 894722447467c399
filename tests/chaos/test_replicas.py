"""Replicas of the relay stop, die, and lose their bus or their database, while replies are written.

Every client knows all replicas and asks the next one when it reaches none at an address, as a proxy does.
"""

import itertools
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

import httpx
import pytest

from schema.errors import FrameLost, GenerationFailed, PeerGone
from tests.garden import MODEL, PATIENCE_SECONDS, make_model, wait_until
from tests.replicated import Replicated, Shared, replicated, shared

pytestmark = [pytest.mark.slow, pytest.mark.postgres]

SPANS = {"anemone": ("0:4", 0), "bellis": ("4:8", 1), "crocus": ("8:12", 0), "dahlia": ("0:4", 1)}
"""Each volunteer's span, and the replica that it dials first. Those of the first span hold a head."""
TOKENS = 400
AT_ONCE = 3
LOST_ON_THE_WAY = (GenerationFailed.code, PeerGone.code, FrameLost.code)
"""How a reply ends whose head, or a hop of whose route, could not be reached any more for too long."""


@dataclass(frozen=True)
class Reply:
    """What came of a request."""

    text: str
    finish_reason: str | None
    error: str | None = None
    longest_pause: float = 0.0


class Asker:
    """Asks for replies, one connection each."""

    def __init__(self, relay: Replicated) -> None:
        self._urls = relay.urls
        self._token = relay.token("tests")

    def ask(self, words: str, first: int = 0, begun: threading.Event | None = None) -> Reply:
        """The whole reply. `first`: the replica that is tried first. `begun`: set with its begin."""
        urls = self._urls[first:] + self._urls[:first]
        deadline = time.monotonic() + PATIENCE_SECONDS
        for url in itertools.cycle(urls):
            try:
                return self._ask(url, words, begun or threading.Event())
            except httpx.ConnectError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.02)
        raise AssertionError("there are no replicas")

    def _ask(self, url: str, words: str, begun: threading.Event) -> Reply:
        body = {
            "model": MODEL,
            "messages": [{"role": "user", "content": words}],
            "max_tokens": TOKENS,
            "temperature": 0,
            "stream": True,
        }
        headers = {"Authorization": f"Bearer {self._token}"}
        texts: list[str] = []
        reason, error, pause, last = None, None, 0.0, time.monotonic()
        with (
            httpx.Client(timeout=PATIENCE_SECONDS, trust_env=False) as client,
            client.stream("POST", f"{url}/v1/chat/completions", json=body, headers=headers) as answer,
        ):
            if answer.status_code != 200:
                return Reply("", None, answer.read().decode())
            for line in answer.iter_lines():
                data = line.removeprefix("data: ")
                if not data or data == "[DONE]":
                    continue
                event = httpx.Response(200, content=data).json()
                error = event.get("error", error)
                for choice in event.get("choices", ()):
                    texts += filter(None, [choice["delta"].get("content")])
                    reason = choice.get("finish_reason") or reason
                if texts:
                    begun.set()
                pause, last = max(pause, time.monotonic() - last), time.monotonic()
        return Reply("".join(texts), reason, error and str(error), pause)


@pytest.fixture(scope="module")
def between() -> Iterator[Shared]:
    with shared() as running:
        yield running


@pytest.fixture(scope="module")
def relay(between: Shared, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Replicated]:
    folder = make_model(tmp_path_factory.mktemp("model") / "tiny")
    with replicated(between, MODEL) as running:
        for name, (span, near) in SPANS.items():
            running.plant(
                name, near, "--model", f"{MODEL}={folder}", "--blocks", span, "--kernels", "library"
            )
        running.wait_until_serving()
        yield running


@pytest.fixture(scope="module")
def asker(relay: Replicated) -> Asker:
    return Asker(relay)


@pytest.fixture(scope="module")
def expected(relay: Replicated, asker: Asker) -> dict[str, str]:
    """What each question is answered by when nothing happens."""
    found: dict[str, str] = {}
    for words in ("1 2 3", "4 5 6 7", "8 9"):
        reply = asker.ask(words)
        assert (reply.finish_reason, reply.error) == ("length", None)
        found[words] = reply.text
    return found


@pytest.fixture(autouse=True)
def _mended(relay: Replicated, between: Shared, request: pytest.FixtureRequest) -> Iterator[None]:
    """Every replica runs and knows all volunteers when a test begins."""
    for number, replica in enumerate(relay.replicas):
        if replica.process.poll() is not None:
            relay.start(number)
    relay.wait_until_serving()
    failed = request.session.testsfailed
    yield
    if request.session.testsfailed > failed:
        print(relay.last_words())


class Asked:
    """Replies that were asked for at the same time, each of which has begun."""

    def __init__(self, asker: Asker, questions: list[str], first: int) -> None:
        """`first`: the replica that is tried first."""
        self._pool = ThreadPoolExecutor(len(questions))
        self._begun = [threading.Event() for _ in questions]
        self._asked = [
            (words, self._pool.submit(asker.ask, words, first=first, begun=begun))
            for words, begun in zip(questions, self._begun, strict=True)
        ]

    def __enter__(self) -> "Asked":
        for begun in self._begun:
            assert begun.wait(PATIENCE_SECONDS), "a reply begins"
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown()

    def replies(self) -> list[tuple[str, Reply]]:
        return [(words, reply.result()) for words, reply in self._asked]


class Load:
    """Replies that are asked for again and again, through all replicas, until it stops."""

    def __init__(self, asker: Asker, questions: list[str], replicas: int) -> None:
        self.replies: list[tuple[str, Reply]] = []
        self._asker = asker
        self._stop = threading.Event()
        self._questions = itertools.cycle(questions)
        self._replicas = replicas
        self._pool = ThreadPoolExecutor(AT_ONCE)
        self._askers: list[Future[None]] = []

    def __enter__(self) -> "Load":
        self._askers = [self._pool.submit(self._go_on, number % self._replicas) for number in range(AT_ONCE)]
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for one in self._askers:
            one.result(2 * PATIENCE_SECONDS)
        self._pool.shutdown()

    def _go_on(self, first: int) -> None:
        while not self._stop.is_set():
            words = next(self._questions)
            self.replies.append((words, self._asker.ask(words, first=first)))

    def wait_for_more(self, count: int) -> None:
        """Return when so many more replies are complete."""
        target = len(self.replies) + count
        wait_until(lambda: len(self.replies) >= target, f"{count} more replies are complete")


def wrong(replies: list[tuple[str, Reply]], expected: dict[str, str]) -> list[tuple[str, Reply]]:
    """The replies that are not what they should be."""
    return [
        (words, reply)
        for words, reply in replies
        if reply.error or reply.finish_reason != "length" or reply.text != expected[words]
    ]


def test_without_the_bus_each_replica_serves_with_what_it_has_and_with_it_again_with_all(
    relay: Replicated, between: Shared, asker: Asker, expected: dict[str, str]
) -> None:
    words = next(iter(expected))
    with Asked(asker, [words], first=0) as asked:
        between.nats.kill()
        wait_until(lambda: not relay.replicas[0].swarm().models[0].complete, "the replicas are apart")
        refused = asker.ask(words)
        assert refused.error is not None
        assert "model_unavailable" in refused.error
        between.nats.start()
        relay.wait_until_serving()
        ((_, reply),) = asked.replies()  # it does not hang; it goes on if the bus is back soon enough
    if reply.error is None:
        assert (reply.finish_reason, reply.text) == ("length", expected[words])
    else:
        assert any(f"'code': '{code}'" in reply.error for code in LOST_ON_THE_WAY), reply.error
        assert expected[words].startswith(reply.text)
    assert (
        wrong([(words, asker.ask(words, first=number)) for number in (0, 1)], {words: expected[words]}) == []
    )


@contextmanager
def database_taken_away(between: Shared) -> Iterator[None]:
    between.postgres.set_open(between.database, False)
    try:
        yield
    finally:
        between.postgres.set_open(between.database, True)


def test_without_the_database_replies_are_finished_and_sign_ins_told_when_to_come_back(
    relay: Replicated, between: Shared, asker: Asker, expected: dict[str, str]
) -> None:
    words = next(iter(expected))
    with Asked(asker, [words], first=0) as asked, database_taken_away(between):
        answer = httpx.get(f"{relay.urls[0]}/v1/models", headers={"Authorization": f"Bearer {asker._token}"})
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "unavailable")
        assert int(answer.headers["Retry-After"]) > 0
        assert wrong(asked.replies(), expected) == []
        assert all(one.state == "serving" for one in relay.replicas[0].swarm().volunteers)
    wait_until(lambda: asker.ask(words).text == expected[words], "new replies are written again")


def test_a_rolling_restart_of_all_replicas_under_load_fails_no_request(
    relay: Replicated, asker: Asker, expected: dict[str, str]
) -> None:
    words = ("goes on over another route", "another head goes on", "the move has failed")
    before = [len(relay.said(said)) for said in words]
    with Load(asker, list(expected), len(relay.replicas)) as load:
        load.wait_for_more(2)
        for number in range(len(relay.replicas)):
            relay.restart(number)
            load.wait_for_more(2)
    assert wrong(load.replies, expected) == []
    assert relay.said("moved to another relay")
    assert [len(relay.said(said)) for said in words] == before  # nobody had to begin again


def test_replies_through_other_replicas_outlive_one_that_is_killed(
    relay: Replicated, asker: Asker, expected: dict[str, str]
) -> None:
    with Asked(asker, list(expected), first=1) as asked:
        relay.stop(0, signal.SIGKILL)
        assert wrong(asked.replies(), expected) == []
