"""What the relay's HTTP layer costs: streamed chats over REST beside the driver, called directly.

    python -m benchmarks.api [--full]

A random tiny Llama on two volunteers, the first of which has the head. By turns, in one run:

- direct: `corolla.generation.generate` is called in the head's process (benchmarks/driven_head.py);
- HTTP: the same bodies go to `/v1/chat/completions`, the relay hands them to the same head, and the events
  are read here (benchmarks/streamed.py).

So both ways do the same work in the same processes: the same head and thread, sessions over the same link,
relay and hop, the same prompts as chats, greedy, and nothing is kept of earlier ones. What differs is what is
measured: the request, its way to the head, every piece's way back, and the events. A driver in a third
process would not do: its first hop would be over the relay, where the head has it in memory, and that would
flatter HTTP.

All processes run throughout, each pinned to one core: relay and this one, which reads the events, to the
first half of the cores, those that compute to the other, as volunteers are machines of their own. With two
cores the relay has one that is not busy. What its HTTP layer takes of that is reported too, in processor
time a token, which other load changes less than it changes the clock.

First token: from the request to the first piece of text, the median of a round's streams. Tokens a second:
all of a round's, from its first request to its last piece. Figures are medians over rounds; differences
and ratios are those of two rounds that follow each other. Connections are open already, as those of API
clients are.
"""

import argparse
import asyncio
import os
import sys
import tempfile
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import msgspec
import uvloop
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from transformers import PreTrainedTokenizerFast

from benchmarks.connections import processor_seconds
from benchmarks.driven_head import LINE_BYTES, Timed
from benchmarks.models import TINY, make_llama, prompt_ids
from benchmarks.processes import (
    NOTHING_KEPT,
    ONE_THREAD,
    RelayProcess,
    Volunteer,
    pin,
    process,
    relay,
    volunteer,
)
from benchmarks.report import Bar, Report, Spread
from benchmarks.streamed import SETTLE_SECONDS, Asker

MODEL = "tiny-llama"
HEAD, HOP = "anemone", "bellis"
HEAD_BLOCKS, HOP_BLOCKS = "0:6", "6:12"
CHAT_TEMPLATE = "{% for message in messages %}{{ message.content }} {% endfor %}"
PROMPT_TOKENS, REPLY_TOKENS = 16, 32
DIRECT, HTTP = "direct", "HTTP"
ROUNDS = {1: 10, 8: 4, 64: 4}
"""Of each way, by the number of streams."""
FULL_ROUNDS = {1: 60, 8: 20, 64: 15, 256: 7}
FIRST_TOKEN_AT, RATE_AT = 1, 64
FIRST_TOKEN_BAR, RATE_BAR = 5.0, 0.9
LIMITS = {"HEAD_REPLIES": "256", "TOKEN_REPLIES": "512", "WAITING_REPLIES": "256"}
"""All streams are let in at once, those that are just over beside those that begin."""

Write = Callable[[list[bytes]], Awaitable[list[Timed]]]


def core(number: int) -> int:
    """Of process 0 to 3: relay, asker, head and hop."""
    return number * (os.cpu_count() or 1) // 4


def make_chat_model(folder: Path) -> Path:
    """The tiny Llama for chats: token `i` reads `i`, with spaces between them, either way."""
    make_llama(folder, TINY)
    words = Tokenizer(WordLevel({str(token): token for token in range(TINY.vocabulary)}, unk_token="0"))
    words.pre_tokenizer = WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words)
    tokenizer.chat_template = CHAT_TEMPLATE
    tokenizer.save_pretrained(folder)
    return folder


def bodies(streams: int) -> list[bytes]:
    """So many different chats."""
    ids = prompt_ids(PROMPT_TOKENS + streams, TINY.vocabulary)
    prompts = [" ".join(map(str, ids[number : number + PROMPT_TOKENS])) for number in range(streams)]
    return [
        msgspec.json.encode(
            {
                "model": MODEL,
                "messages": [{"role": "user", "content": prompt}],
                "max_tokens": REPLY_TOKENS,
                "temperature": 0,
                "stream": True,
            }
        )
        for prompt in prompts
    ]


# ---- figures ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Round:
    """Replies that were asked for at once."""

    replies: Sequence[Timed]

    @property
    def first_token(self) -> float:
        """Milliseconds."""
        return 1e3 * median(reply.arrivals[0] - reply.asked for reply in self.replies)

    @property
    def rate(self) -> float:
        """Tokens a second."""
        begun = min(reply.asked for reply in self.replies)
        return tokens_of(self.replies) / (max(reply.arrivals[-1] for reply in self.replies) - begun)


def tokens_of(replies: Sequence[Timed]) -> int:
    """Every token reads a word."""
    return sum(len(text.split()) for reply in replies for text in reply.texts)


def texts_of(replies: Sequence[Timed]) -> list[str]:
    return ["".join(reply.texts) for reply in replies]


@dataclass(slots=True)
class Compared:
    """Rounds of both ways, in pairs that followed each other."""

    rounds: dict[str, list[Round]] = field(default_factory=lambda: {DIRECT: [], HTTP: []})
    processor: dict[str, dict[str, float]] = field(default_factory=lambda: {DIRECT: {}, HTTP: {}})
    """Seconds that each process has taken, by way and process."""

    def add(self, way: str, replies: Sequence[Timed]) -> None:
        self.rounds[way].append(Round(replies))

    def spent(self, way: str, seconds: dict[str, float]) -> None:
        known = self.processor[way]
        for name, more in seconds.items():
            known[name] = known.get(name, 0.0) + more

    @property
    def pairs(self) -> list[tuple[Round, Round]]:
        return list(zip(self.rounds[DIRECT], self.rounds[HTTP], strict=True))

    def added(self) -> Spread:
        """Milliseconds to the first token that HTTP adds."""
        return Spread.of([http.first_token - direct.first_token for direct, http in self.pairs])

    def ratio(self) -> Spread:
        """Tokens a second through HTTP, as a share of those without."""
        return Spread.of([http.rate / direct.rate for direct, http in self.pairs])

    def same(self) -> float:
        """The share of replies that read the same both ways."""
        equal = [
            one == other
            for direct, http in self.pairs
            for one, other in zip(texts_of(direct.replies), texts_of(http.replies), strict=True)
        ]
        return sum(equal) / len(equal)

    def processor_us(self, way: str) -> dict[str, float]:
        """Microseconds a token, by process."""
        tokens = sum(tokens_of(one.replies) for one in self.rounds[way])
        return {name: round(1e6 * seconds / tokens, 1) for name, seconds in self.processor[way].items()}

    def figures(self) -> dict[str, Any]:
        ways: dict[str, Any] = {
            way: {
                "first token, ms": Spread.of([one.first_token for one in rounds]),
                "tokens/s": Spread.of([one.rate for one in rounds]),
                "processor a token, us": self.processor_us(way),
            }
            for way, rounds in self.rounds.items()
        }
        return ways | {
            "first token, added ms": self.added(),
            "tokens/s, through HTTP / direct": self.ratio(),
            "same text": self.same(),
        }


# ---- running ----------------------------------------------------------------------------------


@contextmanager
def head(server: RelayProcess, folder: Path, socket: Path) -> Iterator[Volunteer]:
    """The volunteer with the head, which can also be called directly."""
    log = server.folder / f"{HEAD}.log"
    command = ["-m", "benchmarks.driven_head", str(socket), "--name", HEAD, "--threads", "1"]
    environment = {
        "COROLLA_TOKEN": server.volunteer_token(),
        "COROLLA_CACHE": str(server.folder / "cache"),
        **ONE_THREAD,
    }
    command += ["--blocks", HEAD_BLOCKS, *volunteers_arguments(folder)]
    with process(command, environment, log, core(2)) as child:
        yield Volunteer(HEAD, child, log)


def volunteers_arguments(folder: Path) -> list[str]:
    return ["--model", f"{MODEL}={folder}", "--device", "cpu", *NOTHING_KEPT]


def direct_way(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Write:
    async def write(chats: list[bytes]) -> list[Timed]:
        await asyncio.sleep(SETTLE_SECONDS)
        writer.write(b"[" + b",".join(chats) + b"]\n")
        return msgspec.json.decode(await reader.readline(), type=list[Timed])

    return write


@dataclass(frozen=True, slots=True)
class Comparison:
    """Measures both ways by turns."""

    ways: dict[str, Write]
    processes: dict[str, int]
    """Whose processor time is looked at: ids by name."""

    async def measure(self, streams: int, rounds: int) -> Compared:
        compared = Compared()
        chats = bodies(streams)
        for turn in range(rounds + 1):
            for way, write in self.ways.items():
                before = self._processor()
                replies = await write(chats)
                wrong = [
                    number for number in map(tokens_of, ([one] for one in replies)) if number != REPLY_TOKENS
                ]
                if wrong or len(replies) != streams:
                    raise RuntimeError(f"{way}: replies of {wrong} tokens, where {REPLY_TOKENS} are due")
                if turn:  # the first warms up
                    after = self._processor()
                    compared.spent(way, {name: after[name] - before[name] for name in after})
                    compared.add(way, replies)
        return compared

    def _processor(self) -> dict[str, float]:
        return {name: processor_seconds(number) for name, number in self.processes.items()}


def make_way() -> None:
    """Never interrupt the relay for an event that has come: a reader on a machine of its own would not."""
    if hasattr(os, "SCHED_BATCH"):
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))


async def run(server: RelayProcess, socket: Path, processes: dict[str, int], report: Report) -> None:
    make_way()
    asker = Asker(server.url, server.token("client", "benchmark"))
    reader, writer = await asyncio.open_unix_connection(socket, limit=LINE_BYTES)
    comparison = Comparison({DIRECT: direct_way(reader, writer), HTTP: asker.write}, processes)
    for streams, rounds in (FULL_ROUNDS if report.full else ROUNDS).items():
        compared = await comparison.measure(streams, rounds)
        report.figures[f"{streams} streams"] = compared.figures()
        show(streams, compared)
        if streams == FIRST_TOKEN_AT:
            value = round(compared.added().median, 2)
            report.bars.append(
                Bar(f"first token at {streams} stream, added ms", value, "<=", FIRST_TOKEN_BAR)
            )
        if streams == RATE_AT:
            value = round(compared.ratio().median, 3)
            report.bars.append(Bar(f"tokens/s at {streams}, through HTTP / direct", value, ">=", RATE_BAR))
    writer.close()


def show(streams: int, compared: Compared) -> None:
    for way, rounds in compared.rounds.items():
        first, rate = median(one.first_token for one in rounds), median(one.rate for one in rounds)
        spent = ", ".join(f"{name} {us:.0f}" for name, us in compared.processor_us(way).items())
        print(
            f"{streams:>3} {way:>6}: first token {first:7.1f} ms, {rate:7.1f} tokens/s; us a token: {spent}"
        )
    added, ratio = compared.added(), compared.ratio()
    print(
        f"{streams:>3}  HTTP adds {added.median:.2f} ms ({added.low:.2f} to {added.high:.2f}); "
        f"tokens/s {ratio.median:.3f} ({ratio.low:.3f} to {ratio.high:.3f}) of direct; "
        f"same text {compared.same():.3f}",
        flush=True,
    )


def main() -> int:
    parser = argparse.ArgumentParser(description="What the relay's HTTP layer costs.")
    parser.add_argument("--full", action="store_true", help="256 streams too, and more rounds")
    report = Report("api", parser.parse_args().full)
    pin(core(1))
    with ExitStack() as stack:
        enter = stack.enter_context
        folder = Path(enter(tempfile.TemporaryDirectory(prefix="corolla-")))
        make_chat_model(folder)
        server = enter(relay(MODEL, core(0), LOG_LEVEL="WARNING", **LIMITS))
        first = enter(head(server, folder, socket := server.folder / "head"))
        # The first volunteer of a model gets its head, whatever its blocks: that shall be nobody else.
        server.wait_until_serving([HEAD], [first])
        arguments = ("--blocks", HOP_BLOCKS, *volunteers_arguments(folder))
        hop = enter(volunteer(server, HOP, *arguments, core=core(3)))
        server.wait_until_serving([HEAD, HOP], [first, hop])
        processes = {
            "relay": server.process.pid,
            "asker": os.getpid(),
            "head": first.process.pid,
            "hop": hop.process.pid,
        }
        uvloop.run(run(server, socket, processes, report))
    report.print_last_line()
    return 0


if __name__ == "__main__":
    sys.exit(main())
