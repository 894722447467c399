"""A swarm of real processes that tests may hurt: it grows again what a test has killed.

A random tiny Llama on three volunteers behind one relay, asked over REST as any client does.
"""

import contextlib
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import msgspec
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from transformers import PreTrainedTokenizerFast

from benchmarks.models import TINY, Shape, make_llama
from benchmarks.processes import RelayProcess, Volunteer, relay, serving_relay, tail, volunteer
from schema.swarm import ModelStatus, VolunteerReport, VolunteerStatus

MODEL = "tiny"
HEAD, MIDDLE, LAST = "anemone", "bellis", "crocus"
SPANS = {HEAD: "0:4", MIDDLE: "4:8", LAST: "8:12"}
HEARTBEAT_SECONDS = "0.5"
PATIENCE_SECONDS = 180.0
POLL_SECONDS = 0.05
CHAT_TEMPLATE = "{% for message in messages %}{{ message.content }} {% endfor %}"


def make_model(folder: Path, shape: Shape = TINY) -> Path:
    """The tiny Llama, with a tokenizer whose text is token ids with spaces between them."""
    make_llama(folder, shape)
    words = Tokenizer(WordLevel({str(token): token for token in range(shape.vocabulary)}, unk_token="0"))
    words.pre_tokenizer = WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words)
    tokenizer.chat_template = CHAT_TEMPLATE
    tokenizer.save_pretrained(folder)
    return folder


def wait_until(condition: Callable[[], object], what: str) -> None:
    """Return when `condition` holds; fail with `what` when it does not for long."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"this did not happen within {PATIENCE_SECONDS:g} s: {what}")
        time.sleep(POLL_SECONDS)


class Chat:
    """A streamed chat, read on a thread of its own; leave its `with` block early to go away in its middle."""

    def __init__(self, url: str, token: str, words: str, max_tokens: int) -> None:
        self.deltas: list[str] = []
        self.error: dict[str, str] | None = None
        self.finish_reason: str | None = None
        self.cached_tokens = 0
        """Of the prompt, as the reply's usage says."""
        self.is_done = False
        """Whether the stream ended with `[DONE]`."""
        self.status = 0
        self._client = httpx.Client(base_url=url, timeout=PATIENCE_SECONDS, trust_env=False)
        self._headers = {"Authorization": f"Bearer {token}"}
        self._body = {
            "model": MODEL,
            "messages": [{"role": "user", "content": words}],
            "max_tokens": max_tokens,
            "temperature": 0,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        self._left = threading.Event()
        self._reader = threading.Thread(target=self._read, daemon=True)

    def __enter__(self) -> "Chat":
        self._reader.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._left.set()
        self._reader.join()
        self._client.close()

    @property
    def text(self) -> str:
        return "".join(self.deltas)

    def wait_for_text(self) -> None:
        """Return when the reply has begun."""
        wait_until(lambda: self.deltas or not self._reader.is_alive(), "a reply begins")
        assert self.deltas, f"the reply ended before it began: {self.error}"

    def wait_for_end(self) -> None:
        self._reader.join(PATIENCE_SECONDS)
        assert not self._reader.is_alive(), "the reply did not end"

    def _read(self) -> None:
        with self._client.stream(
            "POST", "/v1/chat/completions", json=self._body, headers=self._headers
        ) as answer:
            self.status = answer.status_code
            if self.status != 200:
                self.error = msgspec.json.decode(answer.read())["error"]
                return
            with contextlib.suppress(httpx.RemoteProtocolError):  # the relay has died
                for line in answer.iter_lines():
                    if self._left.is_set():
                        return
                    self._take(line)

    def _take(self, line: str) -> None:
        data = line.removeprefix("data: ")
        if data == "[DONE]":
            self.is_done = True
        elif data:
            event = msgspec.json.decode(data)
            self.error = event.get("error", self.error)
            if event.get("usage"):
                self.cached_tokens = event["usage"].get("prompt_tokens_details", {}).get("cached_tokens", 0)
            for choice in event.get("choices", ()):
                self.deltas += filter(None, [choice["delta"].get("content")])
                self.finish_reason = choice.get("finish_reason") or self.finish_reason


class Garden:
    """The swarm. `mend` before a test; then hurt it."""

    def __init__(
        self,
        server: RelayProcess,
        model: Path,
        stack: contextlib.ExitStack,
        spans: Mapping[str, str] = SPANS,
        arguments: tuple[str, ...] = (),
    ) -> None:
        """`spans`: who is to be there, and with which blocks. `arguments`: of every volunteer."""
        self.relay = server
        self.spans = spans
        self.volunteers: dict[str, Volunteer] = {}
        self.tokens = [server.token("client", name) for name in ("first reader", "second reader")]
        self._model = model
        self._arguments = arguments
        self._stack = stack

    def plant(self, name: str, *arguments: str) -> Volunteer:
        """Start a volunteer, over the span of its name unless told otherwise.

        Raises:
            ValueError: one of this name runs, and would from then on be out of every test's reach.
        """
        if self.is_running(name):
            raise ValueError(f"{name} is there already")
        where = arguments or ("--blocks", self.spans[name])
        model = ("--model", f"{MODEL}={self._model}")
        running = volunteer(self.relay, name, *model, *self._arguments, *where)
        self.volunteers[name] = self._stack.enter_context(running)
        return self.volunteers[name]

    def replant(self) -> None:
        """Start whoever is not there; they serve some seconds later."""
        for name in self.spans:
            if not self.is_running(name):
                self.plant(name)

    def is_running(self, name: str) -> bool:
        """Whether its process is there, whatever it does."""
        known = self.volunteers.get(name)
        return known is not None and known.process.poll() is None

    def mend(self) -> None:
        """Return when all volunteers serve and nothing is going on."""
        self.replant()
        self.relay.wait_until_serving(self.spans.keys(), list(self.volunteers.values()))
        wait_until(lambda: self.model().complete, "the swarm is complete")
        self.wait_for_no_sessions()

    def wait_for_no_sessions(self) -> None:
        """Return when no volunteer holds a KV cache, as their heartbeats say."""
        try:
            wait_until(lambda: not self.sessions(), "every session is freed on every hop")
        except AssertionError as error:
            raise AssertionError(f"{error}: {self.sessions()}\n{self.last_words()}") from error

    def sessions(self) -> dict[str, int]:
        """How many KV caches each volunteer holds that holds any."""
        return {one.name: one.sessions for one in self.relay.swarm().volunteers if one.sessions}

    def uproot(self) -> None:
        """Kill every volunteer: at the end of all tests none has to finish anything."""
        for one in self.volunteers.values():
            one.process.kill()

    def replace_relay(self, stop: Callable[[subprocess.Popen[bytes]], None]) -> None:
        """Stop the relay, and start another one in its place."""
        stop(self.relay.process)
        self.relay.process.wait(PATIENCE_SECONDS)
        running = serving_relay(self.relay.environment, self.relay.folder)
        self.relay = self._stack.enter_context(running)

    def model(self) -> ModelStatus:
        """The first model as the swarm sees it."""
        return self.relay.swarm().models[0]

    def status(self, name: str) -> VolunteerStatus | None:
        """A volunteer as the swarm sees it."""
        found = [one for one in self.relay.swarm().volunteers if one.name == name]
        return found[0] if found else None

    def report(self, peer: str) -> VolunteerReport:
        """What the relay has seen of a volunteer."""
        headers = {"Authorization": f"Bearer {self.tokens[0]}"}
        answer = httpx.get(f"{self.relay.url}/api/volunteers/{peer}", headers=headers, trust_env=False)
        return msgspec.json.decode(answer.raise_for_status().content, type=VolunteerReport)

    def state(self, name: str) -> str | None:
        """What a volunteer does now, as the swarm sees it; None when it is not there."""
        status = self.status(name)
        return status and status.state

    def pause(self, name: str) -> None:
        """Return when a volunteer has paused, as its owner has asked."""
        self.volunteers[name].process.send_signal(signal.SIGUSR1)
        wait_until(lambda: self.state(name) == "paused", f"{name} has paused")

    def resume(self, name: str) -> None:
        self.volunteers[name].process.send_signal(signal.SIGUSR2)
        wait_until(lambda: self.state(name) == "serving", f"{name} has resumed")

    def log(self, name: str) -> str:
        """What the volunteers of this name have said so far."""
        return (self.relay.folder / f"{name}.log").read_text()

    def chat(self, words: str, max_tokens: int = 1500, reader: int = 0) -> Chat:
        return Chat(self.relay.url, self.tokens[reader], words, max_tokens)

    def say(self, words: str, max_tokens: int = 24, reader: int = 0) -> str:
        """A whole reply's text."""
        with self.chat(words, max_tokens, reader) as chat:
            chat.wait_for_end()
        assert (chat.error, chat.finish_reason, chat.is_done) == (None, "length", True)
        return chat.text

    def refusal(self, words: str) -> dict[str, str]:
        """Why a chat is refused, before its first token, with when to come back."""
        with self.chat(words, 8) as chat:
            chat.wait_for_end()
        assert (chat.status, chat.deltas) == (503, [])
        assert chat.error is not None
        return chat.error

    def say_at_once(self, questions: list[str], readers: list[int]) -> list[str]:
        """The replies to several questions asked at the same time."""
        with ThreadPoolExecutor(len(questions)) as pool:
            asked = [
                pool.submit(self.say, words, reader=reader)
                for words, reader in zip(questions, readers, strict=True)
            ]
            return [one.result() for one in asked]

    def last_words(self) -> str:
        """The end of every log, for a test that has failed."""
        logs = [self.relay.log, *(one.log for one in self.volunteers.values())]
        return "\n".join(f"--- {log.name}\n{tail(log)}" for log in logs)


@contextlib.contextmanager
def garden(
    model: Path,
    spans: Mapping[str, str] = SPANS,
    arguments: tuple[str, ...] = (),
    models: str = MODEL,
    **settings: str,
) -> Iterator[Garden]:
    """A relay without volunteers yet: `mend` plants them. `settings`: of the relay."""
    settings = {"HEARTBEAT_SECONDS": HEARTBEAT_SECONDS} | settings
    with relay(models, None, **settings) as server, contextlib.ExitStack() as stack:
        planted = Garden(server, model, stack, spans, arguments)
        yield planted
        planted.uproot()
