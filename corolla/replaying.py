"""Has a session go on as what a broken one was: sends the frames that corolla/resuming.py plans.

Does not decide whether to, nor what becomes of the broken session.
"""

from collections.abc import Sequence
from functools import partial

from corolla.resuming import Resumption
from corolla.session import RemoteSession, Step
from schema.frames import FrameType
from schema.resuming import Replay, Resume, encode_replay, encode_resume
from schema.tensors import WireTensor, encode_tensors

RESUME_SECONDS = 5.0
"""How long hops may take to go on with a broken session: older ones skip that frame without a word."""


async def resume(
    session: RemoteSession, plan: Resumption, missed: Sequence[WireTensor], rest: Sequence[WireTensor]
) -> WireTensor:
    """Begins a session as what another one of its driver was; the last position's hidden states.

    `missed`: embeddings of the tokens before `plan.position`, in slices; of no use where no stop is new.
    `rest`: those of all further tokens. Errors as `RemoteSession.receive`.
    """
    session.begin_at(plan.position)
    posts = [partial(_post_resume, session, plan)]
    position = 0
    for hidden in missed if plan.new else ():
        posts.append(partial(_post_replay, session, plan, hidden, position))
        position += hidden.shape[1]
    return await session.in_window([*posts, *session.slices(rest)], RESUME_SECONDS)


def _post_resume(session: RemoteSession, plan: Resumption) -> Step:
    payload = encode_resume(Resume(plan.broken, plan.new))
    return session.post_beside(FrameType.RESUME, payload, plan.position)


def _post_replay(session: RemoteSession, plan: Resumption, hidden: WireTensor, position: int) -> Step:
    states = encode_tensors([hidden]) if 0 in plan.new else b""
    payload = encode_replay(Replay(plan.new, hidden.shape[1], states))
    return session.post_beside(FrameType.REPLAY, payload, position)
