"""Trains the demonstration model from scratch, on text that this folder generates.

`python -m examples.demo_model.train --help` tells the options.

One process trains; the others write rows ahead of it, in the order of their numbers, so the run sees the same
text every time. Writes the checkpoint in the transformers format, with `loss.csv` beside it.
"""

import argparse
import csv
import json
import math
import multiprocessing
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import TextIO

import torch
from safetensors.torch import save_file
from torch import Tensor
from transformers import LlamaConfig

from .attention import SparseMasks, attend_densely, attend_sparsely, dense_mask
from .chart import draw_loss
from .model import DemoModel, demo_config
from .muon import Muon
from .packing import Packer, Rows
from .tokenizer import CONTEXT, save_tokenizer, train_tokenizer, training_texts

SEED = "corolla 1"
TOKENIZER_CHATS = 20_000
SHIPPED_STEPS = 2268
"""What the shipped model was trained for: about 149 million tokens."""
AHEAD = 400
"""Steps whose rows may wait, so that the writers do not take the processor from the training process."""
COMPILING = 3
"""Steps after which compilation is over and the clock of a timed run starts."""


@dataclass(frozen=True)
class Plan:
    """What a run does: `steps` steps, or fewer when `until` comes first (in seconds since the epoch).

    The rates given are the highest: they rise for `warm` steps and fall to zero over the last `cool` share of
    the run.
    """

    out: Path
    steps: int
    rows: int
    workers: int
    device: str
    until: float = math.inf
    matrix_rate: float = 0.02
    vector_rate: float = 0.004
    warm: int = 60
    cool: float = 0.65

    def share_done(self, step: int, started: float) -> float:
        """How much of the run is over before `step`; `started` is when the first steps were compiled."""
        timed = 0.0 if math.isinf(self.until) else (time.time() - started) / max(1.0, self.until - started)
        return max(step / self.steps, timed)

    def share_of_rate(self, step: int, done: float) -> float:
        """The factor on the rates at `step`."""
        return max(0.0, min(1.0, (step + 1) / self.warm, (1 - done) / self.cool))


@cache
def _packer(folder: Path, rows: int) -> Packer:
    """The one packer of this process."""
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    return Packer(folder, SEED, rows)


def _make_chunk(folder: Path, rows: int, number: int) -> Rows:
    return _packer(folder, rows).chunk(number)


def _numbered(steps: int, room: threading.Semaphore) -> Iterator[int]:
    """Step numbers, held back while there is no room for more rows."""
    for number in range(steps):
        room.acquire()
        yield number


@contextmanager
def batches(plan: Plan) -> Iterator[Iterator[Rows]]:
    """The rows of every step in order, written by processes that stay at most `AHEAD` steps ahead.

    Enter it before CUDA starts: the processes are forked.
    """
    room = threading.Semaphore(AHEAD)
    with multiprocessing.get_context("fork").Pool(plan.workers, os.nice, (10,)) as pool:
        chunks = pool.imap(partial(_make_chunk, plan.out, plan.rows), _numbered(plan.steps, room))

        def taken() -> Iterator[Rows]:
            for rows in chunks:
                room.release()
                yield rows

        try:
            yield taken()
        finally:
            room.release(plan.steps)  # lets the pool's feeding thread end


def export(model: DemoModel, folder: Path) -> int:
    """Write the configuration files and `model.safetensors` (fp16); return the bytes of the weights."""
    tensors = {
        name: tensor.detach().to("cpu", torch.float16).contiguous()
        for name, tensor in model.state_dict().items()
    }
    path = folder / "model.safetensors"
    save_file(tensors, path, metadata={"format": "pt"})
    config = model.config.to_dict() | {"architectures": ["LlamaForCausalLM"], "dtype": "float32"}
    for key in ("transformers_version", "torch_dtype", "_name_or_path"):
        config.pop(key, None)
    (folder / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
    generation = {
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 0,
        "do_sample": False,
        "max_new_tokens": 400,
    }
    (folder / "generation_config.json").write_text(json.dumps(generation, indent=2) + "\n")
    return path.stat().st_size


class Optimizer:
    """Muon for the matrices inside the blocks, AdamW for the embedding and the norms."""

    def __init__(self, model: DemoModel, plan: Plan) -> None:
        self._plan = plan
        matrices = [p for p in model.model.layers.parameters() if p.ndim == 2]
        others = [p for p in model.parameters() if all(p is not matrix for matrix in matrices)]
        self._muon = Muon(matrices, plan.matrix_rate)
        self._adam = torch.optim.AdamW(
            others, lr=plan.vector_rate, betas=(0.9, 0.95), weight_decay=0.0, fused=plan.device == "cuda"
        )

    def step(self, share: float) -> None:
        """One update at `share` of the highest rates; clears the gradients."""
        self._muon.rate = self._plan.matrix_rate * share
        self._adam.param_groups[0]["lr"] = self._plan.vector_rate * share
        self._muon.step()
        self._adam.step()
        self._adam.zero_grad(set_to_none=True)


class LossLog:
    """Writes `loss.csv` and says how it goes. Reads the loss from the device only every `EVERY` steps."""

    EVERY = 50

    def __init__(self, file: TextIO, tokens_per_step: int) -> None:
        self._file = file
        self._rows = csv.writer(file, lineterminator="\n")
        self._rows.writerow(["step", "tokens", "loss"])
        self._tokens_per_step = tokens_per_step
        self._losses: list[Tensor] = []
        self._started = time.monotonic()

    def add(self, step: int, loss: Tensor) -> None:
        """Note the loss of `step`, counted from 1."""
        self._losses.append(loss.detach())
        if step % self.EVERY == 0:
            self.write(step)

    def write(self, step: int) -> None:
        """Write the mean of the losses since the last time."""
        if not self._losses:
            return
        mean, tokens = float(torch.stack(self._losses).mean()), step * self._tokens_per_step
        self._losses.clear()
        self._rows.writerow([step, tokens, f"{mean:.4f}"])
        self._file.flush()
        seconds = time.monotonic() - self._started
        print(f"step {step} loss {mean:.4f} {seconds:.0f} s {tokens / seconds:,.0f} tokens/s", flush=True)


def train(plan: Plan, config: LlamaConfig, ready: Iterator[Rows], log: LossLog) -> DemoModel:
    """Run `plan` on the rows that are `ready`."""
    torch.manual_seed(1)
    cuda = plan.device == "cuda"
    model = DemoModel(config, attend_sparsely if cuda else attend_densely).to(plan.device)
    if cuda:
        torch.set_float32_matmul_precision("high")
        for block in model.model.layers:
            block.compile()
    mask_of = SparseMasks(plan.rows, CONTEXT) if cuda else dense_mask
    optimizer = Optimizer(model, plan)
    started, steps = time.time(), 0
    for step, rows in enumerate(ready):
        if step == COMPILING:
            started = time.time()
        done = plan.share_done(step, started)
        if done >= 1:
            break
        parts = (
            torch.from_numpy(part).to(plan.device) for part in (rows.tokens, rows.labels, rows.documents)
        )
        tokens, labels, documents = (part.long() for part in parts)
        with torch.autocast(plan.device, torch.bfloat16, enabled=cuda):
            loss = model(tokens, labels, mask_of(documents))
        loss.backward()
        optimizer.step(plan.share_of_rate(step, done))
        steps = step + 1
        log.add(steps, loss)
    log.write(steps)
    return model


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder for tokenizer, weights and loss.csv")
    parser.add_argument("--steps", type=int, default=SHIPPED_STEPS)
    parser.add_argument("--rows", type=int, default=32, help="rows of 2048 tokens in one step")
    parser.add_argument("--workers", type=int, default=max(1, (os.cpu_count() or 2) - 4), help="text writers")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument(
        "--until", type=float, default=math.inf, help="end by then, in seconds since the epoch"
    )
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    if not (args.out / "tokenizer.json").exists():
        save_tokenizer(train_tokenizer(training_texts(SEED, TOKENIZER_CHATS)), args.out)
    plan = Plan(args.out, args.steps, args.rows, args.workers, args.device, args.until)
    torch.set_num_threads(1)
    with batches(plan) as ready, (args.out / "loss.csv").open("w", newline="") as file:
        model = train(plan, demo_config(), ready, LossLog(file, plan.rows * CONTEXT))
        size = export(model, args.out)
    draw_loss(args.out / "loss.csv", args.out / "loss.svg")
    print(f"wrote {args.out}: {size:,} bytes of weights")


if __name__ == "__main__":
    main()
