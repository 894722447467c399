"""The proof that a volunteer serves: the same activations for everyone, and no wrong answer passes."""

from collections.abc import Callable

import pytest
import torch

from corolla.exchange import Exchange
from corolla.tensors import to_wire
from schema.errors import CorollaError, GenerationFailed, KVCacheFull, NotFinite, ShapeMismatch
from schema.frames import Flags, Frame, FrameType
from schema.ids import Span, new_session_id
from schema.messages import Probe
from schema.routes import Hop
from schema.tensors import decode_tensors, encode_tensors
from tests.corolla.fakes import ME, Hops, RecordingServer, failure, returned, route_of
from volunteer.probing import PROBE_TOKENS, pass_probe

HIDDEN = 8
ALONE = (Hop(ME, Span(0, 2)),)


@pytest.fixture
def exchange() -> Exchange:
    return Exchange()


@pytest.fixture
def hops(exchange: Exchange) -> Hops:
    """The relay, which sends a probe back to this very volunteer."""
    return Hops(exchange, ALONE)


def probe() -> Probe:
    session = new_session_id()
    return Probe(session=session.hex(), route=route_of(*ALONE, session=session))


async def test_goes_through_the_relay_to_this_very_volunteer(exchange: Exchange, hops: Hops) -> None:
    await pass_probe(exchange, probe(), HIDDEN, torch.float32)
    (frame,) = hops.frames
    assert (frame.type, frame.hop, frame.flags) == (FrameType.PROBE, 0, Flags.NONE)
    assert decode_tensors(frame.payload)[0].shape == (1, PROBE_TOKENS, HIDDEN)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
async def test_asks_every_volunteer_the_same(exchange: Exchange, hops: Hops, dtype: torch.dtype) -> None:
    for _ in range(2):
        await pass_probe(exchange, probe(), HIDDEN, dtype)
    first, second = (frame.payload for frame in hops.frames)
    assert first == second


async def test_leaves_no_session_behind(exchange: Exchange, hops: Hops) -> None:
    server = RecordingServer()
    exchange.serve(server)
    await pass_probe(exchange, probe(), HIDDEN, torch.float32)
    assert len(server.closed) == 1


def wrong(tensor: torch.Tensor) -> Callable[[Frame], Frame]:
    return lambda frame: returned(frame, encode_tensors([to_wire(tensor)]))


@pytest.mark.parametrize(
    ("reply", "kind"),
    [
        (wrong(torch.zeros(1, PROBE_TOKENS, HIDDEN + 1)), ShapeMismatch),
        (wrong(torch.zeros(1, 1, HIDDEN)), ShapeMismatch),
        (wrong(torch.full((1, PROBE_TOKENS, HIDDEN), torch.nan)), NotFinite),
        (wrong(torch.full((1, PROBE_TOKENS, HIDDEN), torch.inf)), NotFinite),
        (lambda frame: returned(frame, b"garbage"), GenerationFailed),
        (lambda frame: failure(frame, KVCacheFull("no memory")), KVCacheFull),
    ],
    ids=["another width", "too few tokens", "not a number", "infinity", "garbage", "a failure"],
)
async def test_is_not_passed_by_a_wrong_answer(
    exchange: Exchange, hops: Hops, reply: Callable[[Frame], Frame], kind: type[CorollaError]
) -> None:
    hops.replies[0] = reply
    with pytest.raises(kind):
        await pass_probe(exchange, probe(), HIDDEN, torch.float32)
