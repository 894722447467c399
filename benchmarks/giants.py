"""Models at their full size on GPUs: BLOOM-176B and the shapes of Llama-2-70B, over three volunteers or more.

    python -m benchmarks.giants [--model bloom-176b] [--quantization nf4] [--devices cuda:0,cuda:1]
                                [--spans 0:17,17:35,35:52,52:70] [--near] [--full]

Weights are noise, which a config is enough for. Prints decode steps a second of one reply after prompts of
128 and 2,048 tokens, and tokens a second of forward passes over 1 and 64 sequences of 128 tokens, whose
hidden states come from a client and return to it. First as this machine is, then with a round trip of 100 ms
between any two peers: the relay starts again behind a forwarder (`benchmarks.delay`) that takes its place,
and that adds 25 ms each way between a peer and the relay. `--near` leaves that second part out.

The bars are Petals' published figures (Borzunov et al., "Petals: Collaborative Inference and Fine-tuning of
Large Models", 2023, for BLOOM-176B on three A100), times five where the round trip is short.
"""

import argparse
import asyncio
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import median
from urllib.parse import urlsplit

import torch
from transformers import AutoModelForCausalLM, BloomConfig, LlamaConfig, PreTrainedConfig

from benchmarks.completion import complete
from benchmarks.delay import delayed
from benchmarks.gpu import copy_bytes_per_second
from benchmarks.models import prompt_ids
from benchmarks.processes import RelayProcess, free_port, relay, serving_relay, volunteers
from benchmarks.report import Bar, Report, Spread
from corolla.exchange import Exchange
from corolla.link import LinkOptions, RelayLink, dial
from corolla.session import open_session
from corolla.tensors import to_wire
from schema.frames import Header
from schema.messages import FromRelay

CONTEXTS = (128, 2048)
BATCHES = (1, 64)
FORWARD_TOKENS = 128
"""Of each sequence of a forward pass."""
ROWS = 2
"""Sequences of one frame of a forward pass: half of what a frame has room for at BLOOM's width."""
QUEUE_BYTES = 512 << 20
"""What may wait for one peer at the relay: the hidden states of all sequences at once."""
ONE_WAY_SECONDS = 0.025
"""Between a peer and the relay, which makes 100 ms from peer to peer and back."""
START_SECONDS = 420.0
"""Noise is drawn, and quantized, at the size of the model."""
RECONNECT_SECONDS = 60.0
"""Volunteers dial again after up to 15 s, and the relay may hold their old places for a while."""
BITS = {"none": 16, "int8": 8, "nf4": 4}


@dataclass(frozen=True, slots=True)
class Published:
    """Petals' figures: decode steps a second by context, forward tokens a second by batch."""

    steps: Mapping[int, float]
    forward: Mapping[int, float]


@dataclass(frozen=True, slots=True)
class Giant:
    """A model, how it is spread, and what to reach."""

    config: PreTrainedConfig
    spans: tuple[str, ...]
    near: Published
    """With less than 5 ms of round trip, at 1 Gbit/s."""
    far: Published
    """With 100 ms, at 100 Mbit/s."""
    times: float
    """How often the near figures are to be reached."""


GIANTS = {
    "bloom-176b": Giant(
        BloomConfig(
            vocab_size=250_880,
            hidden_size=14_336,
            n_layer=70,
            n_head=112,
            architectures=["BloomForCausalLM"],
            dtype="bfloat16",
            bos_token_id=None,
            eos_token_id=None,
        ),
        ("0:20", "20:45", "45:70"),
        Published({128: 1.71, 2048: 1.54}, {1: 70.0, 64: 253.6}),
        Published({128: 1.23, 2048: 1.11}, {1: 19.7, 64: 112.2}),
        times=5.0,
    ),
    "llama-70b": Giant(
        LlamaConfig(
            vocab_size=32_000,
            hidden_size=8192,
            intermediate_size=28_672,
            num_hidden_layers=80,
            num_attention_heads=64,
            num_key_value_heads=8,
            max_position_embeddings=4096,
            architectures=["LlamaForCausalLM"],
            dtype="bfloat16",
            bos_token_id=None,
            eos_token_id=None,
        ),
        ("0:26", "26:53", "53:80"),
        Published({128: 6.0}, {}),
        Published({}, {}),
        times=1.0,
    ),
}


class Driver:
    """A client of the relay with an exchange; what a link delivers to."""

    def __init__(self) -> None:
        self.exchange = Exchange()

    def on_frame(self, header: Header, message: bytes) -> None:
        self.exchange.on_frame(header, message)

    def on_message(self, message: FromRelay) -> None:
        self.exchange.on_message(message)


@dataclass(frozen=True, slots=True)
class Bench:
    """A swarm that serves one giant, and how to reach it."""

    server: RelayProcess
    peers_url: str
    """Where drivers and volunteers dial."""
    token: str
    model: str
    giant: Giant

    def steps_per_second(self, context: int, tokens: int) -> float:
        prompt = prompt_ids(context, self.giant.config.vocab_size)
        return 1 / complete(self.server.url, self.token, self.model, prompt, tokens).step

    def forward_rate(self, batch: int) -> float:
        """Tokens a second of a pass over `batch` sequences."""
        return batch * FORWARD_TOKENS / asyncio.run(self._forward(batch))

    async def _forward(self, batch: int) -> float:
        driver = Driver()
        link = await dial(LinkOptions(self.peers_url, self.token, "driver", "benchmarks"))
        driver.exchange.attach(link)
        running = asyncio.create_task(link.run(driver))
        try:
            return await self._timed(driver.exchange, batch)
        finally:
            await _closed(link, running)

    async def _timed(self, exchange: Exchange, batch: int) -> float:
        hidden = torch.randn(min(batch, ROWS), FORWARD_TOKENS, self.giant.config.hidden_size)
        wire = to_wire(hidden.to(torch.bfloat16))

        async def part() -> None:
            async with await open_session(exchange, self.model) as session:
                await session.forward([wire])

        begun = time.perf_counter()
        await asyncio.gather(*(part() for _ in range(-(-batch // ROWS))))
        return time.perf_counter() - begun


async def _closed(link: RelayLink, running: "asyncio.Task[None]") -> None:
    link.close()
    await running


@contextmanager
def behind_delay(server: RelayProcess) -> Iterator[RelayProcess]:
    """The same relay on another port, with a delay at its old one: volunteers find it there again."""
    server.process.terminate()
    server.process.wait()
    port = free_port()
    moved = server.environment | {"PORT": str(port), "PUBLIC_URL": f"http://127.0.0.1:{port}"}
    with serving_relay(moved, server.folder) as far, delayed(far.url, urlsplit(server.url).port or 0) as link:
        link.seconds = ONE_WAY_SECONDS
        yield far


def measure(bench: Bench, rounds: int, tokens: int) -> dict[str, list[float]]:
    """Steps and tokens a second, by what was measured; the first round warms up."""
    ways: dict[str, Callable[[], float]] = {
        **{f"steps, context {one}": partial(bench.steps_per_second, one, tokens) for one in CONTEXTS},
        **{f"forward, batch {one}": partial(bench.forward_rate, one) for one in BATCHES},
    }
    found: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(rounds + 1):
        for name, way in ways.items():
            value = way()
            print(f"{name:>20}: {value:8.2f} a second{'' if turn else ', warming up'}", flush=True)
            if turn:
                found[name].append(value)
    return found


def bars(found: Mapping[str, list[float]], published: Published, times: float, suffix: str) -> list[Bar]:
    due = {
        **{f"steps, context {one}": value for one, value in published.steps.items()},
        **{f"forward, batch {one}": value for one, value in published.forward.items()},
    }
    return [
        Bar(f"{name}, per second, {suffix}", round(median(found[name]), 2), ">=", round(times * value, 2))
        for name, value in due.items()
    ]


def _note(report: Report, found: Mapping[str, list[float]], suffix: str) -> None:
    report.figures |= {f"{name}, {suffix}": Spread.of(values) for name, values in found.items()}


def floor_steps_per_second(config: PreTrainedConfig, quantization: str) -> float:
    """How often the weights can be read in a second: blocks in their width, the head in 16 bits."""
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    tables = sum(one.numel() for name, one in model.named_parameters() if "embed" in name or "head" in name)
    blocks = sum(one.numel() for one in model.parameters()) - tables
    read = blocks * BITS[quantization] / 8 + 2 * config.vocab_size * config.hidden_size
    return copy_bytes_per_second() / read


def main() -> int:
    parser = argparse.ArgumentParser(description="BLOOM-176B and Llama-70B at full size, over volunteers.")
    parser.add_argument("--model", choices=sorted(GIANTS), default="bloom-176b")
    parser.add_argument("--quantization", choices=sorted(BITS), default="nf4")
    parser.add_argument("--devices", default="cuda:0", help="of the volunteers, one after the other")
    parser.add_argument("--spans", help="in place of three: 0:17,17:35,35:52,52:70")
    parser.add_argument("--memory", default="52GB", help="of each volunteer")
    parser.add_argument("--near", action="store_true", help="only as this machine is, without a delay")
    parser.add_argument("--full", action="store_true", help="more rounds and longer replies")
    given = parser.parse_args()
    if not torch.cuda.is_available():
        print("benchmarks.giants needs a CUDA device and a torch that can use it", file=sys.stderr)
        return 2
    giant, devices = GIANTS[given.model], given.devices.split(",")
    if given.spans:
        giant = replace(giant, spans=tuple(given.spans.split(",")))
    report = Report(f"giants {given.model} {given.quantization}", given.full)
    rounds, tokens = (5, 64) if given.full else (2, 24)
    # Three processes share a GPU that the model nearly fills: what one has freed, another may need.
    os.environ.setdefault("PYTORCH_CUDA_ALLOC_CONF", "expandable_segments:True")
    floor = floor_steps_per_second(giant.config, given.quantization)
    torch.cuda.empty_cache()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        giant.config.save_pretrained(folder)
        server = stack.enter_context(relay(given.model, LOG_LEVEL="WARNING", QUEUE_BYTES=str(QUEUE_BYTES)))
        common = ("--model", f"{given.model}={folder}", "--weights", "random", "--relay", server.url)
        limits = ("--quantization", given.quantization, "--memory", given.memory)
        spans = {f"v{index}": span for index, span in enumerate(giant.spans)}
        each = {
            name: ("--device", devices[index * len(devices) // len(spans)])
            for index, name in enumerate(spans)
        }
        stack.enter_context(volunteers(server, spans, *common, *limits, each=each, seconds=START_SECONDS))
        bench = Bench(server, server.url, server.token("client", "benchmark"), given.model, giant)
        near = measure(bench, rounds, tokens)
        _note(report, near, "near")
        report.bars += bars(near, giant.near, giant.times, "near")
        if not given.near:
            far_server = stack.enter_context(behind_delay(server))
            far_server.wait_until_serving(spans.keys(), seconds=RECONNECT_SECONDS)
            far = measure(replace(bench, server=far_server), rounds, tokens)
            _note(report, far, "100 ms")
            report.bars += bars(far, giant.far, 1.0, "100 ms of round trip")
    report.figures["bandwidth floor, steps per second"] = floor
    print(f"floor {floor:.1f} steps/s; reached {median(near['steps, context 128']) / floor:.2f} of it")
    report.print_last_line()
    return 0


if __name__ == "__main__":
    sys.exit(main())
