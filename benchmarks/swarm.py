"""A swarm against plain `transformers` on the same machine.

    python -m benchmarks.swarm [--full]

A random Llama of 83 million parameters in fp32, one thread a process, a prompt of 128 tokens.
`generate` in this process and a completion through relay and volunteers alternate; their tokens
must be the same.

A volunteer computes with the fastest CPU kernels that it finds, `generate` with torch's own. So that it
shows what the swarm itself costs, every round is also measured with volunteers that use torch's own.
"""

import argparse
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import LlamaForCausalLM

from benchmarks.completion import complete
from benchmarks.models import SMALL, make_llama, prompt_ids
from benchmarks.processes import NOTHING_KEPT, RelayProcess, relay, volunteers
from benchmarks.report import Bar, Report, Spread

MODEL = "small-llama"
PROMPT_TOKENS = 128
KERNELS = ("fastest", "library")
"""What volunteers compute with by default, and what `generate` computes with."""
BARS = {1: 0.95, 2: 0.92, 3: 0.90}


def even_spans(blocks: int, count: int) -> dict[str, str]:
    """Names and spans of `count` volunteers that share `blocks` blocks."""
    borders = [round(index * blocks / count) for index in range(count + 1)]
    return {f"v{index}": f"{borders[index]}:{borders[index + 1]}" for index in range(count)}


def local_steps_per_second(model: Any, prompt: list[int], tokens: int) -> tuple[float, str]:
    """Decode steps a second of `generate`, prefill taken out, and the tokens as text.

    `model`: a causal LM; the library's own types do not let `generate` be called on one.
    """
    arrivals: list[float] = []

    class Clock:
        """A streamer that notes when tokens come; the prompt comes first."""

        def put(self, value: torch.Tensor) -> None:
            arrivals.append(time.perf_counter())

        def end(self) -> None:
            pass

    with torch.no_grad():
        output = model.generate(
            torch.tensor([prompt], device=model.device),
            max_new_tokens=tokens,
            do_sample=False,
            streamer=Clock(),
        )
    text = "".join(f"{token} " for token in output[0, len(prompt) :].tolist())
    return (len(arrivals) - 2) / (arrivals[-1] - arrivals[1]), text


@dataclass(frozen=True, slots=True)
class Local:
    """The model in this process, and how long to measure."""

    folder: Path
    model: Any
    rounds: int
    tokens: int


def compare(server: RelayProcess, local: Local, count: int, kernels: str) -> dict[str, list[float]]:
    """Ratios swarm/local, and both rates, over alternating rounds."""
    prompt, tokens = prompt_ids(PROMPT_TOKENS, SMALL.vocabulary), local.tokens
    token = server.token("client", "benchmark")
    found: dict[str, list[float]] = {"swarm": [], "local": [], "ratio": []}
    arguments = ("--model", f"{MODEL}={local.folder}", "--kernels", kernels, *NOTHING_KEPT)
    with volunteers(server, even_spans(SMALL.blocks, count), *arguments):
        for turn in range(local.rounds + 1):
            reply = complete(server.url, token, MODEL, prompt, tokens)
            rate, text = local_steps_per_second(local.model, prompt, tokens)
            if reply.text != text:
                raise RuntimeError(f"the swarm's tokens differ:\n{reply.text}\n{text}")
            if turn == 0:
                continue  # both were warming up
            found["swarm"].append(1 / reply.step)
            found["local"].append(rate)
            found["ratio"].append(1 / reply.step / rate)
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description="A swarm against plain transformers.")
    parser.add_argument("--full", action="store_true", help="more rounds and longer replies")
    full = parser.parse_args().full
    torch.set_num_threads(1)
    report = Report("swarm", full)
    print(f"{'volunteers':>10} {'kernels':>8} {'swarm steps/s':>14} {'local steps/s':>14} {'ratio':>6}")
    with ExitStack() as stack:
        folder = make_llama(Path(stack.enter_context(tempfile.TemporaryDirectory())), SMALL)
        model = LlamaForCausalLM.from_pretrained(folder).eval()
        local = Local(folder, model, rounds=9 if full else 4, tokens=96 if full else 48)
        server = stack.enter_context(relay(MODEL, LOG_LEVEL="WARNING"))
        for count, bar in BARS.items():
            for kernels in KERNELS:
                found = compare(server, local, count, kernels)
                spreads = {name: Spread.of(values) for name, values in found.items()}
                swarm, alone, ratio = (spread.median for spread in spreads.values())
                print(f"{count:>10} {kernels:>8} {swarm:14.1f} {alone:14.1f} {ratio:6.2f}")
                report.figures[f"{count} volunteers, {kernels} kernels"] = spreads
                if kernels == "fastest":
                    name = f"swarm/local steps per second, {count} volunteers"
                    report.bars.append(Bar(name, round(ratio, 3), ">=", bar))
    report.print_last_line()
    return 0


if __name__ == "__main__":
    sys.exit(main())
