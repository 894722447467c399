"""Brings the steps of a session that overtook each other on their way back into their order.

A connection keeps the order of what it carries. But when a peer goes from one replica of the relay to
another, what is under way to it may come over both, and the slices of a prompt follow each other without a
wait. They change a KV cache one behind the other, so one that comes early is held until the one before it is
there.

Only what may be sent without waiting for an answer is held: slices of prompts, and what comes before them.
Pure: who owns it lets go of what has been held for too long. Does not know routes or links.
"""

from collections import OrderedDict
from dataclasses import dataclass, field

from schema.frames import Frame, FrameType
from schema.ids import PeerId, SessionId

HOLD_SECONDS = 1.0
"""How long a step may wait for the one before it; after that it is computed as it is, or refused by name."""
MOST_SESSIONS = 4096
"""Whose steps are counted; the longest unused is forgotten first."""
MOST_HELD = 64
"""Steps of one session; more than any driver has under way."""

Key = tuple[PeerId, SessionId]
"""A session by its driver and its own id."""
_PIPELINED = frozenset(
    {int(FrameType.PREFILL), int(FrameType.FORK), int(FrameType.RESUME), int(FrameType.REPLAY)}
)


@dataclass(slots=True)
class _Session:
    expected: int = 0
    epoch: int = 0
    held: dict[int, Frame] = field(default_factory=lambda: dict[int, Frame]())


class StepOrder:
    """The next step of each session that passes a hop."""

    def __init__(self) -> None:
        self._sessions: OrderedDict[Key, _Session] = OrderedDict()

    def __len__(self) -> int:
        return len(self._sessions)

    def arrived(self, key: Key, frame: Frame) -> list[Frame]:
        """What may be computed now that this step is here, in order; nothing where it has come early."""
        session = self._sessions.get(key)
        if session is None:
            session = self._sessions[key] = _Session()
            if len(self._sessions) > MOST_SESSIONS:
                self._sessions.popitem(last=False)
        else:
            self._sessions.move_to_end(key)
        is_early = frame.step > session.expected and frame.type in _PIPELINED
        if is_early and frame.epoch == session.epoch and len(session.held) < MOST_HELD:
            session.held[frame.step] = frame
            return []
        session.epoch = max(session.epoch, frame.epoch)
        session.expected = max(session.expected, frame.step + 1)
        return [frame, *_following(session)]

    def is_held(self, key: Key, frame: Frame) -> bool:
        """Whether this step still waits for the one before it."""
        session = self._sessions.get(key)
        return session is not None and session.held.get(frame.step) is frame

    def let_go(self, key: Key) -> list[Frame]:
        """What has waited of a session, in order: the step before it does not come."""
        session = self._sessions.get(key)
        if session is None or not session.held:
            return []
        session.expected = min(session.held)
        return _following(session)

    def forget(self, key: Key) -> None:
        """The session is over."""
        self._sessions.pop(key, None)


def _following(session: _Session) -> list[Frame]:
    """What was held and is next now."""
    frames: list[Frame] = []
    while (frame := session.held.pop(session.expected, None)) is not None:
        frames.append(frame)
        session.expected += 1
    return frames
