"""The proof that a volunteer serves, at its joining and now and then: a step through the relay to itself.

Activations come from a seed, so that every volunteer of a span can be sent the same. Does not know
how the span computes them.
"""

import asyncio
import logging
import math
from collections.abc import Callable

import torch

from corolla.exchange import Exchange
from corolla.session import RemoteSession
from corolla.tensors import from_wire, to_wire
from schema.errors import CorollaError, NotFinite, ShapeMismatch
from schema.frames import Flags, FrameType
from schema.ids import SessionId
from schema.messages import FromPeer, FromRelay, Probe, Ready, RouteGrant

PROBE_TOKENS = 4
PROBE_SEED = 20

log = logging.getLogger(__name__)


class Prover:
    """Passes the probes that come while a volunteer serves. Owned by the event loop's thread."""

    def __init__(self, exchange: Exchange, tell: Callable[[FromPeer], None]) -> None:
        self._exchange = exchange
        self._tell = tell
        self._shape: tuple[int, torch.dtype] | None = None
        """Of the activations that it is asked for; None while nothing is served."""
        self._tasks: set[asyncio.Task[None]] = set()

    def serve(self, hidden_size: int, dtype: torch.dtype) -> None:
        """Take probes from now on; the first one was passed."""
        self._shape = hidden_size, dtype

    def take(self, message: FromRelay) -> bool:
        """Begin to pass a probe. False for other messages, and while nothing is served: that is joining's."""
        if self._shape is None or not isinstance(message, Probe):
            return False
        task = asyncio.create_task(self._pass(message, *self._shape))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return True

    async def close(self) -> None:
        """The link is gone, and with it all that was asked over it."""
        self._shape = None
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _pass(self, probe: Probe, hidden_size: int, dtype: torch.dtype) -> None:
        try:
            await pass_probe(self._exchange, probe, hidden_size, dtype)
            self._tell(Ready(session=probe.session))
        except CorollaError as error:
            log.warning("a probe was not passed, so that no new sessions come: %s", error.message)


async def pass_probe(exchange: Exchange, probe: Probe, hidden_size: int, dtype: torch.dtype) -> None:
    """Send seeded activations [1, PROBE_TOKENS, hidden_size] along the probe's route and check what returns.

    Raises:
        CorollaError: what failed on the way. ShapeMismatch, NotFinite: what came back is no activation.
    """
    grant = RouteGrant(request="probe", route=probe.route, hops=[], expires=0)
    generator = torch.Generator().manual_seed(PROBE_SEED)
    sent = torch.randn(1, PROBE_TOKENS, hidden_size, generator=generator) / math.sqrt(hidden_size)
    async with RemoteSession(exchange, grant, SessionId(bytes.fromhex(probe.session))) as session:
        future = session.send([to_wire(sent.to(dtype))], kind=FrameType.PROBE, want=Flags.NONE)
        output = from_wire(await session.receive(future), "cpu", None)
    if output.shape != sent.shape:
        raise ShapeMismatch(f"the probe came back as {list(output.shape)} instead of {list(sent.shape)}")
    if not torch.isfinite(output).all():
        raise NotFinite("the probe came back with infinite or undefined values: this device computes wrongly")
