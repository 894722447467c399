"""Many replies at once over one span.

    python -m benchmarks.batching [--full]

One volunteer on the CPU, with one thread: two blocks of Llama-1B shapes and a head, fp32, random. Clients ask
through relay and REST. Rounds go through 1, 2, 4, 8 and 16 replies at a time; a round counts the tokens that
come while all of its replies are being written, together and by reply.

Then four replies are written alone, and four beside a prompt of 4,096 tokens.
"""

import argparse
import sys
import tempfile
import threading
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import median, quantiles

from benchmarks.completion import TimedReply, complete
from benchmarks.models import Shape, make_llama, prompt_ids
from benchmarks.processes import NOTHING_KEPT, RelayProcess, relay, volunteers
from benchmarks.report import Bar, Report, Spread

MODEL = "llama-1b-shapes"
SHAPE = Shape(hidden=2048, blocks=2, intermediate=8192, heads=32, kv_heads=8, vocabulary=8000, context=8192)
COUNTS = (1, 2, 4, 8, 16)
PROMPT_TOKENS = 16
LONG_PROMPT = 4096
BESIDE = 4
"""Replies beside the long prompt."""
SPEEDUP_AT = 8
SPEEDUP_BAR, FAIRNESS_BAR, STALL_BAR = 4.0, 0.95, 1.5


@dataclass(frozen=True, slots=True)
class Client:
    """Asks one relay for completions, some at the same time."""

    server: RelayProcess
    token: str
    threads: ThreadPoolExecutor

    def ask(self, length: int, tokens: int, until: threading.Event | None = None) -> "Future[TimedReply]":
        prompt = prompt_ids(length, SHAPE.vocabulary)
        return self.threads.submit(complete, self.server.url, self.token, MODEL, prompt, tokens, until)

    def ask_many(
        self, count: int, tokens: int, until: threading.Event | None = None
    ) -> list[Future[TimedReply]]:
        """Replies to `count` different prompts at once."""
        return [self.ask(PROMPT_TOKENS + index, tokens, until) for index in range(count)]


def window(replies: Sequence[TimedReply]) -> tuple[float, float]:
    """From when the last reply has begun until the first one ends."""
    return max(reply.arrivals[0] for reply in replies), min(reply.arrivals[-1] for reply in replies)


def shares(replies: Sequence[TimedReply]) -> list[int]:
    """Tokens of each reply while all were being written."""
    begin, end = window(replies)
    return [sum(begin < at <= end for at in reply.arrivals) for reply in replies]


def jain(values: Sequence[float]) -> float:
    """Jain's fairness index: 1 when all are equal, 1/n when one has everything (Jain et al., 1984)."""
    return sum(values) ** 2 / (len(values) * sum(value**2 for value in values))


def measure_rates(client: Client, rounds: int, tokens: int) -> dict[int, dict[str, list[float]]]:
    """Tokens a second of all replies together, and their fairness, by the number of replies."""
    found: dict[int, dict[str, list[float]]] = {count: {"rate": [], "fairness": []} for count in COUNTS}
    for turn in range(rounds + 1):
        for count in COUNTS:
            replies = [asked.result() for asked in client.ask_many(count, tokens)]
            if turn == 0:
                continue  # warming up
            begin, end = window(replies)
            found[count]["rate"].append(sum(shares(replies)) / (end - begin))
            found[count]["fairness"].append(jain(shares(replies)))
    return found


def gaps(replies: Sequence[TimedReply], begin: float, end: float) -> list[float]:
    """Seconds between two tokens of a reply, of those that lie in a window."""
    return [
        later - earlier
        for reply in replies
        for earlier, later in zip(reply.arrivals, reply.arrivals[1:], strict=False)
        if begin <= earlier and later <= end
    ]


@dataclass(frozen=True, slots=True)
class Stall:
    """What a long prompt does to the replies beside it. Seconds."""

    alone: float
    """p95 between two tokens, without it."""
    beside: float
    """p95 while it was computed."""
    prompt: float
    """From its request to its first token."""

    @property
    def ratio(self) -> float:
        return self.beside / self.alone


def p95(values: Sequence[float]) -> float:
    return quantiles(values, n=20)[-1]


def measure_stall(client: Client, tokens: int) -> Stall:
    replies = [asked.result() for asked in client.ask_many(BESIDE, tokens)]
    alone = p95(gaps(replies, *window(replies)))
    enough = threading.Event()
    writing = client.ask_many(BESIDE, SHAPE.context - LONG_PROMPT, enough)
    client.ask(PROMPT_TOKENS, tokens // 4).result()  # until all of them are being written
    prompt = client.ask(LONG_PROMPT, 1).result()
    enough.set()
    end = prompt.arrivals[0]
    beside = gaps([one.result() for one in writing], end - prompt.first_token, end)
    return Stall(alone, p95(beside), prompt.first_token)


def report_rates(report: Report, found: dict[int, dict[str, list[float]]]) -> None:
    one = median(found[1]["rate"])
    for count, figures in found.items():
        rate, fairness = median(figures["rate"]), min(figures["fairness"])
        print(
            f"{count:>3} replies: {rate:7.1f} tokens/s, {rate / one:5.2f} times one, fairness {fairness:.3f}"
        )
        report.figures[f"{count} replies"] = {name: Spread.of(values) for name, values in figures.items()}
    speedup = median(found[SPEEDUP_AT]["rate"]) / one
    fairness = min(min(figures["fairness"]) for figures in found.values())
    report.bars += [
        Bar(f"tokens per second, {SPEEDUP_AT} replies/one", round(speedup, 3), ">=", SPEEDUP_BAR),
        Bar("fairness", round(fairness, 4), ">=", FAIRNESS_BAR),
    ]


def report_stalls(report: Report, stalls: Sequence[Stall]) -> None:
    for stall in stalls:
        print(
            f"p95 between tokens {1000 * stall.alone:.1f} ms, beside a prompt {1000 * stall.beside:.1f} ms, "
            f"{stall.ratio:.2f} times; the prompt took {stall.prompt:.1f} s"
        )
    report.figures["long prompt"] = {
        "p95 alone, seconds": Spread.of([stall.alone for stall in stalls]),
        "p95 beside it, seconds": Spread.of([stall.beside for stall in stalls]),
        "its first token, seconds": Spread.of([stall.prompt for stall in stalls]),
    }
    ratio = median(stall.ratio for stall in stalls)
    report.bars.append(Bar("p95 between tokens beside a long prompt/alone", round(ratio, 3), "<=", STALL_BAR))


def main() -> int:
    parser = argparse.ArgumentParser(description="Many replies at once over one span.")
    parser.add_argument("--full", action="store_true", help="more rounds and longer replies")
    full = parser.parse_args().full
    report = Report("batching", full)
    with ExitStack() as stack:
        folder = make_llama(Path(stack.enter_context(tempfile.TemporaryDirectory())), SHAPE)
        server = stack.enter_context(relay(MODEL, LOG_LEVEL="WARNING"))
        arguments = ("--model", f"{MODEL}={folder}", "--device", "cpu", *NOTHING_KEPT)
        stack.enter_context(volunteers(server, {"v0": f"0:{SHAPE.blocks}"}, *arguments))
        threads = stack.enter_context(ThreadPoolExecutor(max(COUNTS) + 1))
        client = Client(server, server.token("client", "benchmark"), threads)
        report_rates(report, measure_rates(client, rounds=5 if full else 2, tokens=192 if full else 96))
        report_stalls(report, [measure_stall(client, 100) for _ in range(3 if full else 1)])
    report.print_last_line()
    return 0


if __name__ == "__main__":
    sys.exit(main())
