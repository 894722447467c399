"""What a step costs beside its compute, a hop.

    python -m benchmarks.overhead [--full]

A model with hidden size 64 and 12 blocks on one, two and three volunteers. The same spans and head
run in this process, one thread, without any frame: what the swarm's step takes longer is what
relay, sockets, threads and codecs cost. Rounds alternate.
"""

import argparse
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

import torch

from benchmarks.completion import complete
from benchmarks.models import TINY, make_llama, prompt_ids
from benchmarks.processes import NOTHING_KEPT, RelayProcess, relay, volunteers
from benchmarks.report import Bar, Report, Spread
from benchmarks.swarm import even_spans
from corolla.models.head import HeadModel
from corolla.models.loading import LoadOptions
from corolla.models.source import ModelSource
from corolla.models.span import SpanModel

MODEL = "tiny-llama"
PROMPT_TOKENS = 16
BAR_MILLISECONDS = 1.5


class LocalChain:
    """The same spans and head as the swarm's, called one after the other in this process."""

    def __init__(self, folder: Path, spans: dict[str, str]) -> None:
        source = ModelSource.open(str(folder))
        options = LoadOptions(kernels="fastest")  # as volunteers do
        self._head = HeadModel.load(source, options)
        borders = [tuple(map(int, span.split(":"))) for span in spans.values()]
        self._spans = [SpanModel.load(source, start, end, options) for start, end in borders]

    def step_seconds(self, prompt: list[int], tokens: int) -> float:
        """Mean seconds of a decode step of a greedy reply."""
        caches = [span.new_cache() for span in self._spans]
        token = self._step(torch.tensor([prompt]), 0, caches)
        begun = time.perf_counter()
        for index in range(tokens - 1):
            token = self._step(torch.tensor([[token]]), len(prompt) + index, caches)
        return (time.perf_counter() - begun) / (tokens - 1)

    def _step(self, ids: torch.Tensor, position: int, caches: list) -> int:
        hidden = self._head.embed(ids, position=position)
        for span, cache in zip(self._spans, caches, strict=True):
            hidden = span.forward(hidden, cache)
        return int(self._head.logits(hidden[:, -1:]).argmax())


def measure(
    server: RelayProcess, folder: Path, count: int, rounds: int, tokens: int
) -> dict[str, list[float]]:
    """Seconds a step in the swarm and in this process, and their difference a hop."""
    spans = even_spans(TINY.blocks, count)
    chain = LocalChain(folder, spans)
    prompt = prompt_ids(PROMPT_TOKENS, TINY.vocabulary)
    client = server.token("client", "benchmark")
    found: dict[str, list[float]] = {"step": [], "compute": [], "overhead a hop": []}
    with volunteers(server, spans, "--model", f"{MODEL}={folder}", *NOTHING_KEPT):
        for turn in range(rounds + 1):
            step = complete(server.url, client, MODEL, prompt, tokens).step
            compute = chain.step_seconds(prompt, tokens)
            if turn == 0:
                continue  # both were warming up
            found["step"].append(step)
            found["compute"].append(compute)
            found["overhead a hop"].append((step - compute) / count)
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description="Milliseconds a step and a hop that are not compute.")
    parser.add_argument("--full", action="store_true", help="more rounds and longer replies")
    full = parser.parse_args().full
    torch.set_num_threads(1)
    report = Report("overhead", full)
    print(f"{'volunteers':>10} {'step':>9} {'compute':>9} {'overhead a hop':>15}")
    with ExitStack() as stack:
        folder = make_llama(Path(stack.enter_context(tempfile.TemporaryDirectory())), TINY)
        server = stack.enter_context(relay(MODEL, LOG_LEVEL="WARNING"))
        for count in (1, 2, 3):
            found = measure(server, folder, count, rounds=9 if full else 5, tokens=400 if full else 150)
            spreads = {name: Spread.of([1000 * value for value in values]) for name, values in found.items()}
            medians = [spread.median for spread in spreads.values()]
            print(f"{count:>10} {medians[0]:6.2f} ms {medians[1]:6.2f} ms {medians[2]:12.2f} ms")
            report.figures[f"{count} volunteers, milliseconds"] = spreads
            name = f"milliseconds a hop beside compute, {count} volunteers"
            report.bars.append(Bar(name, round(medians[2], 3), "<=", BAR_MILLISECONDS))
    report.print_last_line()
    return 0


if __name__ == "__main__":
    sys.exit(main())
