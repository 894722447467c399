"""A swarm on a GPU against eager `transformers` on the same one.

    python -m benchmarks.gpu [--full]

Llama-8B shapes with random weights in bf16, on one volunteer with the head, then on three that share the
GPU, through a real relay on loopback that stays awake between steps (`AWAKE_SECONDS`, as operators of a
swarm in one room would have it). Rounds alternate with `generate` in this process. Prints tokens a
second of one reply and of 16 at once, and how near one volunteer comes to the bandwidth floor: the time in
which the weights can be read once, at the speed at which memory is copied.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch
from transformers import AutoModelForCausalLM, LlamaConfig

from benchmarks.completion import TimedReply, complete
from benchmarks.models import prompt_ids
from benchmarks.processes import NOTHING_KEPT, RelayProcess, relay, volunteers
from benchmarks.report import Bar, Report, Spread
from benchmarks.swarm import local_steps_per_second

MODEL = "llama-8b-shapes"
CONFIG = LlamaConfig(
    hidden_size=4096,
    intermediate_size=14336,
    num_hidden_layers=32,
    num_attention_heads=32,
    num_key_value_heads=8,
    vocab_size=128_256,
    max_position_embeddings=8192,
    architectures=["LlamaForCausalLM"],
    dtype="bfloat16",
    bos_token_id=None,
    eos_token_id=None,
)
ONE = {"v0": "0:32"}
THREE = {"v0": "0:11", "v1": "11:22", "v2": "22:32"}
PROMPT_TOKENS = 128
MANY = 16
EAGER_BAR, MANY_BAR, THREE_BAR = 2.3, 10.0, 0.85


@dataclass(frozen=True, slots=True)
class Client:
    """Asks a relay for completions, up to `MANY` at once."""

    server: RelayProcess
    token: str
    threads: ThreadPoolExecutor

    def ask(self, length: int, tokens: int) -> "Future[TimedReply]":
        prompt = prompt_ids(length, CONFIG.vocab_size)
        return self.threads.submit(complete, self.server.url, self.token, MODEL, prompt, tokens)

    def one(self, tokens: int) -> float:
        """Decode steps a second of one reply."""
        return 1 / self.ask(PROMPT_TOKENS, tokens).result().step

    def many(self, tokens: int) -> float:
        """Tokens a second of all replies, while all are being written.

        Raises RuntimeError where there is no such time.
        """
        asked = [self.ask(PROMPT_TOKENS - index, tokens) for index in range(MANY)]
        replies = [one.result() for one in asked]
        begin = max(reply.arrivals[0] for reply in replies)
        end = min(reply.arrivals[-1] for reply in replies)
        if begin >= end:
            raise RuntimeError(
                f"replies of {tokens} tokens are too short: one had ended before all had begun"
            )
        return sum(begin < at <= end for reply in replies for at in reply.arrivals) / (end - begin)


def eager_rate(model: Any, tokens: int) -> float:
    """Decode steps a second of `generate`, prefill taken out."""
    rate, _ = local_steps_per_second(model, prompt_ids(PROMPT_TOKENS, CONFIG.vocab_size), tokens)
    return rate


def copy_bytes_per_second() -> float:
    """Bytes read and written a second by copying 4 GiB on the GPU."""
    source = torch.zeros(4 << 30, dtype=torch.uint8, device="cuda")
    target = torch.empty_like(source)
    seconds: list[float] = []
    for _ in range(10):
        torch.cuda.synchronize()
        begun = time.perf_counter()
        target.copy_(source)
        torch.cuda.synchronize()
        seconds.append(time.perf_counter() - begun)
    return 2 * source.nbytes / median(seconds)


def alternate(rounds: int, ways: dict[str, Callable[[], float]]) -> dict[str, list[float]]:
    """Each way measured once a round, after a round of warming up."""
    found: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(rounds + 1):
        for name, measure in ways.items():
            value = measure()
            print(f"{name:>12}: {value:8.1f} tokens/s{'' if turn else ', warming up'}", flush=True)
            if turn:
                found[name].append(value)
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description="A swarm on a GPU against eager transformers.")
    parser.add_argument("--full", action="store_true", help="more rounds and longer replies")
    full = parser.parse_args().full
    if not torch.cuda.is_available():
        print("benchmarks.gpu needs a CUDA device and a torch that can use it", file=sys.stderr)
        return 2
    tokens, rounds = (512, 7) if full else (128, 3)
    report = Report("gpu", full)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        CONFIG.save_pretrained(folder)
        server = stack.enter_context(relay(MODEL, LOG_LEVEL="WARNING", AWAKE_SECONDS="0.01"))
        threads = stack.enter_context(ThreadPoolExecutor(MANY))
        client = Client(server, server.token("client", "benchmark"), threads)
        weights = ("--model", f"{MODEL}={folder}", "--weights", "random")
        arguments = (*weights, "--device", "cuda", *NOTHING_KEPT)
        with torch.device("cuda"):
            model = AutoModelForCausalLM.from_config(CONFIG, dtype=torch.bfloat16).eval()
        floor = copy_bytes_per_second() / sum(one.nbytes for one in model.parameters())
        with volunteers(server, ONE, *arguments):
            found = alternate(
                rounds,
                {
                    "eager": lambda: eager_rate(model, tokens),
                    "one": lambda: client.one(tokens),
                    "many": lambda: client.many(4 * tokens),
                },
            )
        with volunteers(server, THREE, *arguments):
            found |= {
                f"three, {name}": values
                for name, values in alternate(
                    rounds, {"one": lambda: client.one(tokens), "many": lambda: client.many(4 * tokens)}
                ).items()
            }
    rates = {name: median(values) for name, values in found.items()}
    for name, values in found.items():
        print(f"{name:>12}: {rates[name]:8.1f} tokens/s ({min(values):.1f} to {max(values):.1f})")
    print(f"floor {floor:.1f} steps/s; one reply reaches {rates['one'] / floor:.2f} of it")
    report.figures |= {name: Spread.of(values) for name, values in found.items()}
    report.figures["bandwidth floor, steps per second"] = Spread.of([floor])
    report.bars += [
        Bar("one reply/eager generate", round(rates["one"] / rates["eager"], 3), ">=", EAGER_BAR),
        Bar("16 replies/one reply", round(rates["many"] / rates["one"], 3), ">=", MANY_BAR),
        Bar("three volunteers/one", round(rates["three, one"] / rates["one"], 3), ">=", THREE_BAR),
    ]
    report.print_last_line()
    return 0


if __name__ == "__main__":
    sys.exit(main())
