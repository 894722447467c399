"""What a frame's route says about the work in it, to whoever serves blocks.

Pure. Does not know tensors, queues or the link.
"""

from dataclasses import dataclass, replace

from schema.frames import Frame, FrameType, forked_session
from schema.ids import SessionId, Span, session_at_hop
from schema.resuming import Replay, decode_replay, decode_resume
from schema.routes import Route

_TOLD_BY_PAYLOAD = frozenset({int(FrameType.FORK), int(FrameType.RESUME), int(FrameType.REPLAY)})
"""Types of frames whose payload says more of the work than the route does."""


@dataclass(frozen=True, slots=True)
class WorkOrder:
    """What a route says about a step for this process, beside the frame."""

    session: SessionId
    """The name to keep its KV cache under; see `session_at_hop`."""
    span: Span
    """The blocks to run."""
    is_last: bool
    """Whether the output goes back to the driver: only then do the frame's flags say what to send."""
    forks: SessionId | None = None
    """Of a FORK: the kept session that it names, as it is named here."""
    resumes: SessionId | None = None
    """Of a RESUME: the broken session, as it is named here; None for a stop that is new."""
    replay: Replay | None = None
    """Of a REPLAY: what it carries; for a stop that is not new, without the states."""
    is_next_new: bool = False
    """Of a RESUME or a REPLAY: whether the next stop has to be sent what it has missed."""


def order_of(frame: Frame, route: Route) -> WorkOrder:
    """Raises `MalformedFrame` for a FORK, RESUME or REPLAY that does not carry what it should."""
    order = WorkOrder(
        session=session_at_hop(route.origin, frame.session),
        span=route.hops[frame.hop].span,
        is_last=frame.hop + 1 == len(route.hops),
    )
    if frame.type not in _TOLD_BY_PAYLOAD:
        return order
    if frame.type == FrameType.FORK:
        return replace(order, forks=session_at_hop(route.origin, forked_session(frame.payload)))
    if frame.type == FrameType.RESUME:
        resume = decode_resume(frame.payload)
        broken = None if frame.hop in resume.new else session_at_hop(route.origin, resume.broken)
        return replace(order, resumes=broken, is_next_new=frame.hop + 1 in resume.new)
    replay = decode_replay(frame.payload)
    is_next_new = frame.hop + 1 in replay.new
    if frame.hop not in replay.new:
        replay = replay._replace(states=b"")
    return replace(order, replay=replay, is_next_new=is_next_new)
