"""A volunteer that also writes replies for a benchmark in its own process, without the relay's REST.

    python -m benchmarks.driven_head SOCKET [volunteer's arguments]

It is the whole volunteer, with the same head, the same thread for it and the same link. Whoever connects to
the Unix socket at SOCKET sends a line, the bodies of chats; the head writes all of them at once with
`corolla.generation.generate`, and a line goes back when all are there: when each was asked for, and when its
pieces came. Nothing is sent meanwhile. Does not know what is compared.
"""

import asyncio
import logging
import os
import sys
import time
from contextlib import aclosing
from pathlib import Path

import msgspec
import torch
import uvloop

from corolla.generation import generate
from corolla.reply import TextDelta
from schema.api import ChatCompletionRequest
from schema.generation import GenerationRequest
from volunteer import signals
from volunteer.config import Config, parse_config
from volunteer.device import DeviceThread
from volunteer.head_service import HeadService
from volunteer.loading import Loader
from volunteer.node import Node

LINE_BYTES = 1 << 24


class Timed(msgspec.Struct):
    """A reply's pieces of text. Times are on the clock of `time.monotonic`, which all processes share."""

    asked: float
    texts: list[str] = msgspec.field(default_factory=lambda: list[str]())
    arrivals: list[float] = msgspec.field(default_factory=lambda: list[float]())
    """When each piece came."""


class DrivenHeads(HeadService):
    """The head of a volunteer, for whoever is in its process too."""

    async def write(self, bodies: list[GenerationRequest]) -> list[Timed]:
        """Replies to all of them at once."""
        return await asyncio.gather(*map(self._timed, bodies))

    async def _timed(self, body: GenerationRequest) -> Timed:
        timed = Timed(time.monotonic())
        async with aclosing(generate(self._head_of(body.model), self._exchange, body, None)) as events:
            async for event in events:
                if isinstance(event, TextDelta) and event.text:
                    timed.texts.append(event.text)
                    timed.arrivals.append(time.monotonic())
        return timed


class DrivenNode(Node):
    """The volunteer, with such a head."""

    def __init__(self, config: Config, loader: Loader, device: DeviceThread) -> None:
        super().__init__(config, "benchmark", loader, device)
        self.heads = DrivenHeads(self._exchange, self._tell)
        self._heads = self.heads


async def serve(socket: Path, config: Config) -> None:
    async with DeviceThread() as device:
        node = DrivenNode(config, Loader(config), device)

        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while line := await reader.readline():
                asked = msgspec.json.decode(line, type=list[ChatCompletionRequest])
                bodies = [body for chat in asked for body in chat.to_generations()]
                writer.write(msgspec.json.encode(await node.heads.write(bodies)) + b"\n")
                await writer.drain()
            writer.close()

        def unused() -> None:
            """Nobody pauses it."""

        signals.listen(asyncio.get_running_loop(), node.stop, unused, unused)
        async with await asyncio.start_unix_server(answer, socket, limit=LINE_BYTES):
            await node.run()


def main() -> int:
    config = parse_config(sys.argv[2:], os.environ)
    logging.basicConfig(level=config.log_level, format="%(asctime)s %(levelname)s %(message)s")
    torch.set_num_threads(config.threads or 1)
    uvloop.run(serve(Path(sys.argv[1]), config))
    return 0


if __name__ == "__main__":
    sys.exit(main())
