"""Time to the first token of a long prompt: computed as a whole, and when it begins like an earlier one.

    python -m benchmarks.prefix [--full]

A random Llama of 83 million parameters in fp32 on one and three volunteers, one thread each. A cold prompt
has 2,000 tokens that nobody has seen, a warm one 2,000 that were asked before; both end with a message of 16
new ones. Rounds alternate. A warm prompt is also asked of volunteers that keep nothing: the tokens of both
replies must be the same.
"""

import argparse
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import torch

from benchmarks.completion import TimedReply, complete
from benchmarks.models import SEED, SMALL, make_llama
from benchmarks.processes import NOTHING_KEPT, RelayProcess, relay, volunteers
from benchmarks.report import Bar, Report, Spread
from benchmarks.swarm import even_spans

MODEL = "small-llama"
SHAPE = replace(SMALL, context=4096)
PREFIX_TOKENS = 2000
MESSAGE_TOKENS = 16
REPLY_TOKENS = 8
BAR_SHARE = 0.2
COUNTS = (1, 3)


def random_tokens() -> Iterator[list[int]]:
    """Sequences of which none begins like another."""
    generator = torch.Generator().manual_seed(SEED)
    while True:
        yield torch.randint(SHAPE.vocabulary, (PREFIX_TOKENS,), generator=generator).tolist()


class Asker:
    """Asks a swarm of `count` volunteers."""

    def __init__(self, server: RelayProcess) -> None:
        self._server = server
        self._token = server.token("client", "benchmark")

    def ask(self, prompt: list[int]) -> TimedReply:
        return complete(self._server.url, self._token, MODEL, prompt, REPLY_TOKENS)


def measure(
    server: RelayProcess, folder: Path, count: int, rounds: int
) -> tuple[dict[str, list[float]], dict[str, str]]:
    """Seconds to the first token; and what warm prompts were answered, by their message."""
    tokens = random_tokens()
    known = next(tokens)
    asker = Asker(server)
    found: dict[str, list[float]] = {"cold": [], "warm": []}
    said: dict[str, str] = {}
    with volunteers(server, even_spans(SHAPE.blocks, count), "--model", f"{MODEL}={folder}"):
        asker.ask(known)  # and everything is warmed up
        for _ in range(rounds):
            message = next(tokens)[:MESSAGE_TOKENS]
            cold, warm = asker.ask(next(tokens) + message), asker.ask(known + message)
            found["cold"].append(cold.first_token)
            found["warm"].append(warm.first_token)
            said[str(message)] = warm.text
    return found, said


def computed_as_a_whole(server: RelayProcess, folder: Path, count: int) -> tuple[str, str]:
    """The first warm prompt's message, and its answer by volunteers that keep nothing."""
    tokens = random_tokens()
    known, message = next(tokens), next(tokens)[:MESSAGE_TOKENS]
    arguments = ("--model", f"{MODEL}={folder}", *NOTHING_KEPT)
    with volunteers(server, even_spans(SHAPE.blocks, count), *arguments):
        return str(message), Asker(server).ask(known + message).text


def main() -> int:
    parser = argparse.ArgumentParser(description="Seconds to the first token of a prompt known in part.")
    parser.add_argument("--full", action="store_true", help="more rounds")
    full = parser.parse_args().full
    report = Report("prefix", full)
    print(f"{'volunteers':>10} {'cold':>8} {'warm':>8} {'warm / cold':>12}")
    with ExitStack() as stack:
        folder = make_llama(Path(stack.enter_context(tempfile.TemporaryDirectory())), SHAPE)
        server = stack.enter_context(relay(MODEL, LOG_LEVEL="WARNING"))
        for count in COUNTS:
            found, said = measure(server, folder, count, rounds=9 if full else 4)
            message, expected = computed_as_a_whole(server, folder, count)
            if said[message] != expected:
                sys.exit(f"a warm prompt is answered {said[message]!r}, not {expected!r}")
            spreads = {name: Spread.of(values) for name, values in found.items()}
            cold, warm = spreads["cold"].median, spreads["warm"].median
            share = warm / cold
            print(f"{count:>10} {cold:6.2f} s {warm:6.2f} s {share:12.3f}")
            report.figures[f"{count} volunteers, seconds to the first token"] = spreads
            name = f"warm / cold time to the first token, {count} volunteers"
            report.bars.append(Bar(name, round(share, 3), "<=", BAR_SHARE))
    report.print_last_line()
    return 0


if __name__ == "__main__":
    sys.exit(main())
