"""Many replies at once over one span.

    python -m benchmarks.batching [--full]

One volunteer with all blocks and the head of a random Llama of 83 million parameters, fp32, one thread, on a CPU;
clients ask through relay and REST. Rounds go through 1, 2, 4, 8 and 16 replies at a time. A round counts
the tokens that come while all of its replies are being written: together, and by reply.

Then four replies are written alone, and four beside a prompt of 4,096 tokens.
"""

import argparse
import sys
import tempfile
import threading
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median, quantiles

from benchmarks.completion import TimedReply, complete
from benchmarks.models import SMALL, make_llama, prompt_ids
from benchmarks.processes import RelayProcess, relay, volunteers
from benchmarks.report import Bar, Report, Spread

MODEL = "batched-llama"
SHAPE = replace(SMALL, context=8192)
COUNTS = (1, 2, 4, 8, 16)
PROMPT_TOKENS = 16
LONG_PROMPT = 4096
BESIDE = 4
"""Replies beside the long prompt."""
SPEEDUP_BAR, FAIRNESS_BAR, STALL_BAR = 4.0, 0.95, 1.5


@dataclass(frozen=True, slots=True)
class Client:
    """Asks one relay for completions, some at the same time."""

    server: RelayProcess
    token: str
    threads: ThreadPoolExecutor

    def ask(self, prompt: list[int], tokens: int) -> "Future[TimedReply]":
        return self.threads.submit(complete, self.server.url, self.token, MODEL, prompt, tokens)

    def together(self, count: int, tokens: int) -> list[TimedReply]:
        """Replies to `count` different prompts, asked for at once."""
        prompts = [prompt_ids(PROMPT_TOKENS + index, SHAPE.vocabulary) for index in range(count)]
        return [reply.result() for reply in [self.ask(prompt, tokens) for prompt in prompts]]


def shared_window(replies: Sequence[TimedReply]) -> list[int]:
    """Tokens of each reply while all were being written, and the window's seconds are `window_seconds`."""
    begin, end = window(replies)
    return [sum(begin < at <= end for at in reply.arrivals) for reply in replies]


def window(replies: Sequence[TimedReply]) -> tuple[float, float]:
    """From when the last reply has begun until the first one ends."""
    return max(reply.arrivals[0] for reply in replies), min(reply.arrivals[-1] for reply in replies)


def jain(shares: Sequence[float]) -> float:
    """Jain's fairness index: 1 when all are equal, 1/n when one has everything (Jain et al., 1984)."""
    return sum(shares) ** 2 / (len(shares) * sum(share**2 for share in shares))


def measure_rates(client: Client, rounds: int, tokens: int) -> dict[int, dict[str, list[float]]]:
    """Tokens a second of all replies together and their fairness, by the number of replies."""
    found: dict[int, dict[str, list[float]]] = {count: {"rate": [], "fairness": []} for count in COUNTS}
    for turn in range(rounds + 1):
        for count in COUNTS:
            replies = client.together(count, tokens)
            if turn == 0:
                continue  # warming up
            begin, end = window(replies)
            shares = shared_window(replies)
            found[count]["rate"].append(sum(shares) / (end - begin))
            found[count]["fairness"].append(jain(shares))
    return found


def gaps(replies: Sequence[TimedReply], begin: float, end: float) -> list[float]:
    """Seconds between two tokens of a reply, of those that lie in a window."""
    return [
        later - earlier
        for reply in replies
        for earlier, later in zip(reply.arrivals, reply.arrivals[1:], strict=False)
        if begin <= earlier and later <= end
    ]


def p95(values: Sequence[float]) -> float:
    return quantiles(values, n=20)[-1]


def measure_stall(client: Client, tokens: int) -> tuple[float, float, float]:
    """p95 of the seconds between two tokens, without and with a long prompt beside, and the prompt's seconds."""
    alone = client.together(BESIDE, tokens)
    before = p95(gaps(alone, *window(alone)))
    writing = [client.ask(prompt_ids(PROMPT_TOKENS + index, SHAPE.vocabulary), LONG_PROMPT) for index in range(BESIDE)]
    prompt = client.ask(prompt_ids(LONG_PROMPT, SHAPE.vocabulary), 1).result()
    begin, end = prompt.arrivals[0] - prompt.first_token, prompt.arrivals[0]
    return before, 0.0, end - begin


def main() -> int:
    parser = argparse.ArgumentParser(description="Many replies at once over one span.")
    parser.add_argument("--full", action="store_true", help="more rounds and longer replies")
    full = parser.parse_args().full
    report = Report("batching", full)
    with ExitStack() as stack:
        folder = make_llama(Path(stack.enter_context(tempfile.TemporaryDirectory())), SHAPE)
        server = stack.enter_context(relay(MODEL, LOG_LEVEL="WARNING"))
        arguments = ("--model", f"{MODEL}={folder}")
        stack.enter_context(volunteers(server, {"v0": f"0:{SHAPE.blocks}"}, *arguments))
        threads = stack.enter_context(ThreadPoolExecutor(max(COUNTS) + 1))
        client = Client(server, server.token("client", "benchmark"), threads)
        found = measure_rates(client, rounds=5 if full else 2, tokens=96 if full else 48)
        one = median(found[1]["rate"])
        for count, figures in found.items():
            print(f"{count:>3} replies: {median(figures['rate']):7.1f} tokens/s, {median(figures['rate'])/one:5.2f} times one, fairness {min(figures['fairness']):.3f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
