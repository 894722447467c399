"""A swarm without machines: volunteers that come, load, serve, are moved and go, in simulated time.

Placement and moves are the relay's own functions; or newcomers are placed by Petals' rule and never moved.
The same seed gives both the same volunteers at the same times. Where the figures come from:

- Sessions: the Weibull distribution fitted to BitTorrent peers, scale 295.93 and shape 0.66 (minutes: a
  median of 170, a mean of 397), trace T3'05 of a survey of peer-to-peer traces (Delft University of
  Technology, Parallel and Distributed Systems report, table 14). Volunteers stay longer, if anything. Peers
  come as a Poisson process (Stutzbach and Rejaie, Understanding churn in peer-to-peer networks, IMC 2006).
- Machines: the 14 servers of Petals' own measurement over the Internet (2 RTX 3060, 4 RTX 2080 Ti,
  2 RTX 3090, 2 A4000, 4 A5000; Borzunov et al., ACL 2023), with their vendors' memory and bandwidth; owners
  give a quarter to all of the memory.

Does not know how long anything takes in reality.
"""

import heapq
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from relay.moves import LastMove, Move, Resident
from relay.placement import choose_span
from relay.rebalancing import next_move
from relay.throughputs import holes, share_of, throughputs, with_span
from schema.ids import PeerId, Span
from schema.messages import ModelFacts

SESSION_SCALE_SECONDS, SESSION_SHAPE = 295.93 * 60, 0.66
MEAN_SESSION_SECONDS = 397 * 60
MACHINES = ((12, 360),) * 2 + ((11, 616),) * 4 + ((24, 936),) * 2 + ((16, 448),) * 2 + ((24, 768),) * 4
"""Gigabytes of memory, and gigabytes a second of its bandwidth."""
BLOCK_GIGABYTES = 0.55
"""A block of 70 billion parameters in 80 blocks in 4 bits, and its keys and values."""
BANDWIDTH_SHARE = 0.4
"""Of the bandwidth that decoding uses."""
RETURNING = 0.8
"""Of newcomers that were there before, and have on their disk what they had then."""
PASS_SECONDS = 60.0
"""From one look at what should move to the next."""
MANY = 1000
"""Of more volunteers than this, five times as long: they change by less in that time."""
MOVES_SEEN = 200
"""As the relay reads of its table."""
MODEL = ModelFacts(
    name="70b",
    digest="0" * 64,
    family="llama",
    blocks=80,
    hidden_size=8192,
    parameters=70_000_000_000,
    context=4096,
)
DOWNLOAD_BYTES_PER_SECOND = 12.5e6
BLOCK_BYTES = 2 * MODEL.parameters / MODEL.blocks
"""As a checkpoint has it."""

Place = Callable[[Sequence[float], int, float, Sequence[Span]], Span]


def petals_rule(before: Sequence[float], length: int, speed: float, cached: Sequence[Span]) -> Span:
    """The window whose throughputs, sorted from the least, are the smallest."""
    starts = range(len(before) - length + 1)
    start = min(starts, key=lambda one: sorted(before[one : one + length]))
    return Span(start, start + length)


@dataclass(frozen=True, slots=True)
class Host:
    """A machine, whether it is there or not."""

    peer: PeerId
    room: int
    speed: float
    cached: tuple[Span, ...] = ()


@dataclass(slots=True)
class Outcome:
    """What became of a swarm."""

    samples: int = 0
    covered: int = 0
    """Samples at which every block was served."""
    weakest: list[float] = field(default_factory=lambda: list[float]())
    """Tokens a second of the weakest block, at each sample."""
    bound: list[float] = field(default_factory=lambda: list[float]())
    """The same if all that is served were spread evenly: more is not possible."""
    volunteer_hours: float = 0.0
    changes: int = 0
    """Volunteers that came or went."""
    moves: int = 0
    returns: int = 0
    """Moves back to where a volunteer was before, with nobody having come or gone since it left there."""

    @property
    def mean_weakest(self) -> float:
        return sum(self.weakest) / max(1, len(self.weakest))


class SimulatedSwarm:
    """`count` volunteers on average, as long as `run` is iterated."""

    def __init__(self, count: int, seed: int, place: Place = choose_span, *, moves: bool = True) -> None:
        self._pass_seconds = PASS_SECONDS if count <= MANY else 5 * PASS_SECONDS
        self.outcome = Outcome()
        self.residents: dict[PeerId, Resident] = {}
        self.now = 0.0
        self._random = random.Random(seed)
        self._count, self._place, self._moves = count, place, moves
        self._away: list[Host] = []
        self._hosts: dict[PeerId, Host] = {}
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._number = 0
        self._each: list[float] = [0.0] * MODEL.blocks
        self._last: list[LastMove] = []
        """The latest first."""
        self._left: dict[PeerId, tuple[Span, int]] = {}
        """The span that a volunteer was moved from, and how many had come and gone by then."""
        for _ in range(count):  # those that are there already
            self._join(self._newcomer(), self._session_met() * self._random.random(), loads=False)
        self._schedule(self._arrival_gap(), self._arrive)

    def run(self, hours: float) -> Iterator[None]:
        """Simulated time, a pass at a time."""
        while self.now < hours * 3600:
            until = self.now + self._pass_seconds
            while self._events and self._events[0][0] <= until:
                self.now, _, happen = heapq.heappop(self._events)
                happen()
            self.now = until
            self._count_each()
            if self._moves:
                self._rebalance()
            self._sample()
            yield

    def serving(self) -> list[Resident]:
        return [one for one in self.residents.values() if one.is_serving]

    # ---- events -------------------------------------------------------------------------------

    def _schedule(self, seconds: float, happen: Callable[[], None]) -> None:
        self._number += 1
        heapq.heappush(self._events, (self.now + seconds, self._number, happen))

    def _arrive(self) -> None:
        returns = self._away and self._random.random() < RETURNING
        place = self._random.randrange(len(self._away)) if returns else 0
        host = self._away.pop(place) if returns else self._newcomer()
        self._join(host, self._session())
        self._schedule(self._arrival_gap(), self._arrive)

    def _join(self, host: Host, session: float, *, loads: bool = True) -> None:
        span = self._place(self._each, host.room, host.speed, host.cached)
        self._hosts[host.peer] = host
        one = Resident(host.peer, span, host.speed, host.room, host.cached, self.now, not loads)
        self.residents[host.peer] = one
        self._add(one, 1)
        self.outcome.changes += 1
        if loads:
            self._load(one)
        self._schedule(session, lambda: self._leave(host.peer))

    def _load(self, one: Resident) -> None:
        have = {block for run in one.cached for block in range(run.start, run.end)}
        missing = len(one.span) - len(have.intersection(range(one.span.start, one.span.end)))
        seconds = 60 + missing * BLOCK_BYTES / DOWNLOAD_BYTES_PER_SECOND
        self._schedule(seconds, lambda: self._serve(one))

    def _serve(self, one: Resident) -> None:
        if self.residents.get(one.peer) is one:
            cached = _joined((*one.cached, one.span))
            self.residents[one.peer] = replace(one, is_serving=True, cached=cached)

    def _leave(self, peer: PeerId) -> None:
        one = self.residents.pop(peer)
        self._away.append(replace(self._hosts.pop(peer), cached=one.cached))
        self._left.pop(peer, None)
        self._add(one, -1)
        self.outcome.changes += 1

    def _rebalance(self) -> None:
        residents = list(self.residents.values())
        move = next_move(residents, MODEL, self._last, self.now)
        if move is None:
            return
        one = self.residents[move.peer]
        moved = replace(one, span=move.after, settled_at=self.now, is_serving=False)
        self.residents[move.peer] = moved
        self._last = [LastMove(move.peer, self.now, move.members), *self._last[: MOVES_SEEN - 1]]
        self._note(move)
        self._load(moved)
        self._count_each()

    def _note(self, move: Move) -> None:
        outcome = self.outcome
        outcome.moves += 1
        outcome.returns += self._left.get(move.peer) == (move.after, outcome.changes)
        self._left[move.peer] = (move.before, outcome.changes)

    # ---- figures ------------------------------------------------------------------------------

    def _add(self, one: Resident, sign: int) -> None:
        """Until all are counted anew."""
        share = sign * share_of(one.blocks_per_second, len(one.span))
        self._each = with_span(self._each, one.span, share)

    def _count_each(self) -> None:
        held = ((one.span, one.blocks_per_second) for one in self.residents.values())
        self._each = throughputs(MODEL.blocks, held)

    def _sample(self) -> None:
        serving = self.serving()
        each = throughputs(MODEL.blocks, ((one.span, one.blocks_per_second) for one in serving))
        outcome = self.outcome
        outcome.samples += 1
        outcome.covered += not holes(each)
        outcome.weakest.append(min(each))
        outcome.bound.append(sum(each) / MODEL.blocks)
        outcome.volunteer_hours += len(self.residents) * self._pass_seconds / 3600

    def _newcomer(self) -> Host:
        self._number += 1
        memory, bandwidth = self._random.choice(MACHINES)
        room = int(memory * self._random.uniform(0.25, 1) / BLOCK_GIGABYTES)
        spread = self._random.lognormvariate(0, 0.3)
        speed = BANDWIDTH_SHARE * bandwidth / BLOCK_GIGABYTES * spread
        return Host(PeerId(f"{self._number:016x}"), min(MODEL.blocks, max(1, room)), speed)

    def _session(self) -> float:
        return self._random.weibullvariate(SESSION_SCALE_SECONDS, SESSION_SHAPE)

    def _session_met(self) -> float:
        """One that is met at some time: the longer, the more often."""
        drawn = self._random.gammavariate(1 + 1 / SESSION_SHAPE, 1)
        return float(SESSION_SCALE_SECONDS * drawn ** (1 / SESSION_SHAPE))

    def _arrival_gap(self) -> float:
        return self._random.expovariate(self._count / MEAN_SESSION_SECONDS)


def _joined(runs: Sequence[Span]) -> tuple[Span, ...]:
    """The same blocks in order and apart."""
    found: list[Span] = []
    for run in sorted(runs):
        if found and run.start <= found[-1].end:
            found[-1] = Span(found[-1].start, max(found[-1].end, run.end))
        else:
            found.append(run)
    return tuple(found)
