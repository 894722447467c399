"""One volunteer as a process: logging, signals, the device thread, and the exit code.

Does not know the command line (volunteer/config.py) nor what a volunteer does (volunteer/node.py).
"""

import asyncio
import gc
import logging
import sys
from contextlib import AsyncExitStack

import torch
import uvloop

from schema.errors import CorollaError
from volunteer import signals
from volunteer.config import Config
from volunteer.device import DeviceThread
from volunteer.hardware import choose_device
from volunteer.load import MachineLoad, watching
from volunteer.loading import Loader
from volunteer.node import Node
from volunteer.pausing import Limits, Pauser
from volunteer.refusals import Refusals, telling
from volunteer.versions import program_version

log = logging.getLogger(__name__)


def run(config: Config) -> int:
    """Serve until a signal, or until it cannot go on; the process's exit code."""
    # Libraries are hundreds of thousands of objects that live for ever: searching them for garbage again and
    # again would stall tokens, and leaving took a second of it.
    gc.freeze()
    logging.basicConfig(
        level=config.log_level, format="%(asctime)s %(levelname)s %(message)s", datefmt="%H:%M:%S"
    )
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    try:
        uvloop.run(_serve(config))
    except CorollaError as error:
        print(f"volunteer: {error.message}", file=sys.stderr)
        return 1
    return 0


async def _serve(config: Config) -> None:
    """Run a volunteer until SIGINT or SIGTERM. Raises CorollaError when it cannot go on."""
    loader = Loader(config)
    async with DeviceThread() as device:
        node = Node(config, f"corolla {program_version()}", loader, device)
        percent = config.pause_when_busy
        pauser = Pauser(node.set_pause, None if percent is None else Limits(percent))

        def leave() -> None:
            log.info("asked to leave; asked again it goes at once")
            node.stop()

        signals.listen(asyncio.get_running_loop(), leave, pauser.ask, pauser.release)
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(telling(Refusals(lambda: device.stats().failures)))
            if percent is not None:
                load = MachineLoad(choose_device(config.device), lambda: device.stats().busy_seconds)
                await stack.enter_async_context(watching(load, pauser))
            await node.run()
