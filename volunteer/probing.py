"""The proof that a volunteer serves: a step through the relay to itself and back.

Activations come from a seed, so that every volunteer of a span can be sent the same. Does not know
how the span computes them.
"""

import math

import torch

from corolla.exchange import Exchange
from corolla.session import RemoteSession
from corolla.tensors import from_wire, to_wire
from schema.errors import NotFinite, ShapeMismatch
from schema.frames import Flags, FrameType
from schema.ids import SessionId
from schema.messages import Probe, RouteGrant

PROBE_TOKENS = 4
PROBE_SEED = 20


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
