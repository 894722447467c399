"""`python -m volunteer --measure`: loads what a volunteer would load, and prints how fast it is computed.

For somebody who wonders whether a machine is worth connecting. It is measured as a volunteer measures, and
kept where a volunteer finds it when it joins. Needs no relay.
"""

import asyncio
import logging
import sys

import torch

from schema import messages
from schema.errors import CorollaError, JoinRefused
from schema.ids import Span
from volunteer.config import BUNDLED_MODELS, Config
from volunteer.device import DeviceThread
from volunteer.loading import Candidate, LoadedPart, Loader


def run(config: Config) -> int:
    """Measures and prints; the process's exit code."""
    logging.basicConfig(level=config.log_level, format="%(levelname)s %(message)s")
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    try:
        asyncio.run(_measure(config))
    except CorollaError as error:
        print(f"volunteer: {error.message}", file=sys.stderr)
        return 1
    return 0


async def _measure(config: Config) -> None:
    loader = Loader(config)
    for candidate in loader.consider(tuple(BUNDLED_MODELS)):
        span = _span(config, candidate)
        print(f"{candidate.name}, blocks {span}, on {loader.device_name}")
        async with DeviceThread() as device:
            part = await loader.load(
                device, candidate, _assignment(candidate, span), lambda done, total: None
            )
            await _print_table(part)


async def _print_table(part: LoadedPart) -> None:
    gauge = part.gauge
    if gauge.is_from_disk:
        print(f"  earlier: {gauge.table.throughput}")
        await gauge.measure_anew()
    else:
        await gauge.finish()
    print(f"  now: {gauge.table.throughput}")
    for line in gauge.table.lines():
        print(f"  {line}")


def _span(config: Config, candidate: Candidate) -> Span:
    """What the owner insists on, or as much from the model's beginning as would be offered."""
    most = min(candidate.fit.max_blocks, config.max_blocks or candidate.fit.max_blocks)
    if config.blocks is not None:
        return config.blocks
    if not most:
        raise JoinRefused(f"no block of {candidate.name} fits into this machine's memory")
    return Span(0, most)


def _assignment(candidate: Candidate, span: Span) -> messages.Assignment:
    return messages.Assignment(model=candidate.name, start=span.start, end=span.end, head=False)
