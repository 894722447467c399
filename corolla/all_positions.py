"""A prompt of which every position's hidden states come back, not the last one's alone.

For scores of tokens that are given, and for embeddings. Slices travel as in `RemoteSession.prefill`; what has
come back of one is handed over before the next one is waited for, so that a long prompt's states are never
all here. Does not know what is made of them.
"""

from collections import deque
from collections.abc import Awaitable, Callable, Sequence

from corolla.session import PREFILL_WINDOW, RemoteSession, Step
from schema.errors import InvalidRequest, NotFinite, ShapeMismatch
from schema.frames import Flags, FrameType
from schema.tensors import WireTensor

States = Callable[[int, WireTensor], Awaitable[None]]
"""Takes the hidden states [1, tokens, hidden] of a slice, and the position of its first token. May raise
ShapeMismatch and NotFinite."""


async def prefill_all(session: RemoteSession, slices: Sequence[WireTensor], take: States) -> WireTensor:
    """A prompt in slices; `take` is given what comes back, in order. The last position's hidden states.

    Errors as `RemoteSession.receive`, and those of `take`, of which the last hop is to blame.
    """
    if not slices:
        raise InvalidRequest("there is nothing to prefill: give at least one token")
    waiting, pending = deque(slices), deque[tuple[int, Step]]()
    states = waiting[-1]
    try:
        while waiting or pending:
            if waiting and len(pending) < PREFILL_WINDOW:
                position = session.position
                step = session.send([waiting.popleft()], kind=FrameType.PREFILL, want=Flags.NONE)
                pending.append((position, step))
                continue
            position, step = pending.popleft()
            states = await session.receive(step)
            end = pending[0][0] if pending else session.position
            await _hand_over(session, position, end, states, take)
    finally:
        for _, step in pending:
            step.cancel()
    return _last_of(states)


async def _hand_over(
    session: RemoteSession, position: int, end: int, states: WireTensor, take: States
) -> None:
    """What came back for the positions `[position, end)`."""
    try:
        if len(states.shape) != 3 or states.shape[1] != end - position:
            raise ShapeMismatch(f"{end - position} positions came back as {list(states.shape)}")
        await take(position, states)
    except (ShapeMismatch, NotFinite) as error:
        session.blame_last_hop(error)
        raise


def _last_of(states: WireTensor) -> WireTensor:
    """The last position of [1, tokens, hidden]."""
    data = memoryview(states.data).cast("B")
    return WireTensor(
        states.dtype, (1, 1, states.shape[2]), data[-(len(data) // states.shape[1]) :], states.role
    )
