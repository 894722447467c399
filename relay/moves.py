"""A volunteer and its blocks, and what it costs and has to bring to have it hold others.

Pure values and arithmetic. Does not know the rest of the swarm, sockets, SQL or time.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from itertools import accumulate, takewhile
from typing import NamedTuple

from relay.throughputs import share_of
from schema.ids import PeerId, Span
from schema.messages import ModelFacts

HORIZON_SECONDS = 3600.0
"""How long a move is expected to be of use: home machines stay for some hours."""
LEAST_GAIN = 0.05
"""Of a complete model's strength."""
AWAY_SECONDS = 30.0
"""What a move takes beside download and loading: sessions end, and the probe passes."""
DOWNLOAD_BYTES_PER_SECOND = 12.5e6
"""What a home connection is taken for: 100 Mbit/s."""
LOAD_BYTES_PER_SECOND = 500e6
"""From disk to device."""
BYTES_PER_PARAMETER = 2
"""As checkpoints hold them."""


@dataclass(frozen=True, slots=True)
class Resident:
    """A volunteer and the span that it serves, or is about to."""

    peer: PeerId
    span: Span
    blocks_per_second: float
    room: int | None = None
    """How many blocks it could hold elsewhere; None: it stays where it is."""
    cached: tuple[Span, ...] = ()
    """Blocks that it need not download, beside those that it holds."""
    settled_at: float = 0.0
    """When it was given its span."""
    is_serving: bool = True

    @property
    def share(self) -> float:
        """Tokens a second through each block that it holds."""
        return share_of(self.blocks_per_second, len(self.span))

    def length(self, blocks: int) -> int:
        """Of the span that it would hold elsewhere."""
        return min(self.room or 0, blocks)


class LastMove(NamedTuple):
    """A move that was made."""

    peer: PeerId
    at: float
    members: str
    """Who was there; see `members_of`."""


@dataclass(frozen=True, slots=True)
class Move:
    """A volunteer that shall hold another span."""

    peer: PeerId
    before: Span
    after: Span
    gain: float
    """Tokens a second of the model's strength; 0 where it stays incomplete, less where a later move gains."""
    members: str = ""
    """Who was there when it was decided; see `members_of`."""


def members_of(residents: Iterable[Resident]) -> str:
    """A short name for who is there."""
    peers = sorted(resident.peer for resident in residents)
    return blake2b("".join(peers).encode(), digest_size=16).hexdigest()


def moved_already(residents: Sequence[Resident], last: Sequence[LastMove]) -> set[PeerId]:
    """Who has moved since anybody came or went. `last`: the moves so far, the latest first.

    Who has joined anew since its move has not: the same may come together twice.
    """
    if not last:
        return set()
    here = members_of(residents)
    settled = {one.peer: one.settled_at for one in residents}
    among_these = takewhile(lambda move: move.members == here, last)
    return {move.peer for move in among_these if settled[move.peer] <= move.at}


def seconds_away(one: Resident, length: int, facts: ModelFacts) -> list[float]:
    """How long a move takes to each start: sessions end, and what is not on disk is downloaded."""
    here = {block for run in (*one.cached, one.span) for block in range(run.start, run.end)}
    missing = list(accumulate((block not in here for block in range(facts.blocks)), initial=0))
    block_bytes = BYTES_PER_PARAMETER * facts.parameters / facts.blocks
    least = AWAY_SECONDS + length * block_bytes / LOAD_BYTES_PER_SECOND
    a_block = block_bytes / DOWNLOAD_BYTES_PER_SECOND
    starts = range(facts.blocks - length + 1)
    return [least + a_block * (missing[start + length] - missing[start]) for start in starts]
