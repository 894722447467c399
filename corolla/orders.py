"""What a frame's route says about the work in it, to whoever serves blocks.

Pure. Does not know tensors, queues or the link.
"""

from dataclasses import dataclass

from schema.frames import Frame, FrameType, forked_session
from schema.ids import SessionId, Span, session_at_hop
from schema.routes import Route


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


def order_of(frame: Frame, route: Route) -> WorkOrder:
    """Raises `MalformedFrame` for a FORK that names no session."""
    is_fork = frame.type == FrameType.FORK
    return WorkOrder(
        forks=session_at_hop(route.origin, forked_session(frame.payload)) if is_fork else None,
        session=session_at_hop(route.origin, frame.session),
        span=route.hops[frame.hop].span,
        is_last=frame.hop + 1 == len(route.hops),
    )
