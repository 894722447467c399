"""Measures a span as it is served: decode steps by batch and context, and parts of prompts by size.

The first figure, one sequence's steps, is what the swarm is told. All together have `TABLE_SECONDS` of the
device, however often they are interrupted. What cannot be measured in what is left of them, would keep a
request waiting for too long, or has no memory, is left out, as is everything larger. Between two runs a
measurement makes way for whoever wants the device, and is gone on with later.

Runs on the device thread, while no session is served. Does not keep the table or decide when to measure.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from time import perf_counter

from schema.errors import CorollaError
from volunteer.noise import Noise
from volunteer.throughput import DecodeStep, PromptPart, Spread, Table

TABLE_SECONDS = 3.0
"""For everything."""
FIRST_SECONDS = 0.5
"""For the figure that the swarm is told."""
CELL_SECONDS = 0.12
"""For each of the others, if `MIN_RUNS` do not take longer."""
MOST_RUN_SECONDS = 0.5
"""How long a run may be expected to take: who comes meanwhile waits for its end."""
WARMUP_RUNS = 3
MIN_RUNS = 4
MAX_RUNS = 100
"""With those to warm up, a short sequence stays within 128 tokens and a long one within 2,048, which are the
sizes of CUDA graphs."""
BATCHES = (1, 2, 4, 8, 16)
"""As many as the scheduler takes together, and less."""
CONTEXTS = (0, 1920)
"""Tokens held before the first step."""
PARTS = (32, 128, 512)
"""Tokens of a prompt's part."""
ROWS_FOR_ONE = 4
"""A guess: one token takes as long as so many of a prompt's part, at least."""

log = logging.getLogger(__name__)
IsWanted = Callable[[], bool]
"""Whether somebody waits for the device."""


@dataclass(frozen=True, slots=True)
class _Steps:
    """Decode steps that are to be measured."""

    batch: int
    context: int


@dataclass(frozen=True, slots=True)
class _Part:
    """Parts of prompts that are to be measured."""

    tokens: int


FIRST = _Steps(BATCHES[0], CONTEXTS[0])
PLAN: tuple[_Steps | _Part, ...] = (
    *(_Steps(batch, CONTEXTS[0]) for batch in BATCHES),
    *map(_Part, PARTS),
    *(_Steps(batch, CONTEXTS[1]) for batch in BATCHES),
)
"""What is most worth knowing goes first."""


class _Wanted(Exception):
    """Somebody else needs the device."""


class _LeftOut(Exception):
    """Something cannot be measured here, and nothing larger of its kind."""


class Measurement:
    """One table in the making."""

    def __init__(self, noise: Noise) -> None:
        self.table = Table()
        self._noise = noise
        self._plan = list(PLAN)
        self._context = 0
        """What the open sequences hold."""
        self._spent = 0.0
        self._begun = 0.0
        self._is_wanted: IsWanted = _never

    def begin(self) -> None:
        """Measures what the swarm is told, of a new measurement. Whoever waits for the device waits."""
        self._run(_never, 1)

    def go_on(self, is_wanted: IsWanted) -> bool:
        """Measures more until all is measured or `is_wanted`; whether all is."""
        self._run(is_wanted, len(self._plan))
        return not self._plan

    def _run(self, is_wanted: IsWanted, cells: int) -> None:
        self._begun, self._is_wanted = perf_counter(), is_wanted
        try:
            for cell in self._plan[:cells]:
                if cell in self._plan:
                    self._measure(cell)
                    self._plan.remove(cell)
        except _Wanted:
            pass
        finally:
            self._noise.close()
            self._spent += perf_counter() - self._begun

    def _measure(self, cell: _Steps | _Part) -> None:
        try:
            match cell:
                case _Steps():
                    self.table = self._steps(cell, FIRST_SECONDS if cell == FIRST else CELL_SECONDS)
                case _Part():
                    self.table = self._parts(cell)
        except (CorollaError, _LeftOut) as error:
            log.debug("%s is not measured: %s", cell, error)
            self._noise.close()
            self._plan = [other for other in self._plan if other == cell or not _is_larger(other, cell)]

    def _steps(self, cell: _Steps, seconds: float) -> Table:
        noise, blocks = self._noise, self._noise.blocks
        runs = noise.room_for_steps(cell.context, WARMUP_RUNS + MAX_RUNS) - WARMUP_RUNS
        if runs < MIN_RUNS:
            raise _LeftOut("the model has no such positions")
        if cell != FIRST:  # that is needed, however long it takes
            self._check_time(self._step_guess(cell), WARMUP_RUNS + MIN_RUNS, self._fill_guess(cell))
        self._fill(cell)
        position = cell.context

        def step() -> float:
            nonlocal position
            works = noise.step(cell.batch, position)
            position += 1
            return self._timed(lambda: noise.run(works))

        times = timed_runs(step, WARMUP_RUNS, runs, seconds)
        measured = Spread.of(times, blocks)
        if not noise.can_go_back:
            noise.close()  # the next steps begin where these did
        return self.table.adding(DecodeStep(batch=cell.batch, context=cell.context, seconds=measured))

    def _parts(self, cell: _Part) -> Table:
        noise = self._noise
        if noise.room_for_steps(0, cell.tokens) < cell.tokens:
            raise _LeftOut("the model has no such positions")
        self._check_time(self._part_guess(cell.tokens), 1 + MIN_RUNS)
        noise.open(1)

        def part() -> float:
            works = noise.prompt(cell.tokens)
            return self._timed(lambda: noise.run(works))

        times = timed_runs(part, 1, MAX_RUNS, CELL_SECONDS)
        noise.close()
        measured = Spread.of(times, noise.blocks)
        return self.table.adding_part(PromptPart(tokens=cell.tokens, seconds=measured))

    def _held(self, cell: _Steps) -> int:
        """How many sequences hold the cell's context from the cell before."""
        return self._noise.count if self._context == cell.context else 0

    def _fill(self, cell: _Steps) -> None:
        """Sequences that hold the cell's context."""
        held = self._held(cell)
        if not held:
            self._noise.close()
        self._context = cell.context
        self._noise.open(cell.batch)
        slice_tokens = self._noise.fill_tokens if self._noise.facts.can_chunk_prefill else cell.context
        for sequence in range(held, cell.batch):
            for begin in range(0, cell.context, slice_tokens or 1):
                self._make_way()
                self._noise.fill(sequence, begin, min(slice_tokens, cell.context - begin))

    def _timed(self, run: Callable[[], None]) -> float:
        self._make_way()
        begun = perf_counter()
        run()
        return perf_counter() - begun

    def _make_way(self) -> None:
        if self._is_wanted():
            raise _Wanted

    def _check_time(self, run: float, runs: int, before: float = 0.0) -> None:
        """Raises _LeftOut if `runs` runs of `run` seconds, and what is `before` them, take too long."""
        left = TABLE_SECONDS - self._spent - (perf_counter() - self._begun)
        if run > MOST_RUN_SECONDS or before + run * runs > left:
            raise _LeftOut(f"a run may take {run:.2f} s, and {max(left, 0.0):.1f} s are left")

    # ---- what it may take, seconds of the span -------------------------------------------------

    def _step_guess(self, cell: _Steps) -> float:
        """At most as long as so many steps of the next smaller batch."""
        known = [step for step in self.table.decode if step.batch <= cell.batch]
        if not known:
            return 0.0
        nearest = max(known, key=lambda step: (step.context == cell.context, step.batch))
        return nearest.seconds.median * self._noise.blocks * cell.batch / nearest.batch

    def _part_guess(self, tokens: int) -> float:
        if not self.table.prefill:
            alone = self.table.decode_seconds(1, CONTEXTS[0]) or 0.0
            return alone * self._noise.blocks * tokens / ROWS_FOR_ONE
        nearest = self.table.prefill[-1]
        return nearest.seconds.median * self._noise.blocks * tokens / nearest.tokens

    def _fill_guess(self, cell: _Steps) -> float:
        sequences = max(0, cell.batch - self._held(cell))
        return sequences * self._part_guess(cell.context) if cell.context else 0.0


def timed_runs(run: Callable[[], float], warmup: int, most: int, seconds: float) -> list[float]:
    """Seconds of several runs, each of which says its own: as many as take `seconds`, within limits."""
    for _ in range(warmup):
        run()
    times: list[float] = []
    while len(times) < most and (len(times) < MIN_RUNS or sum(times) < seconds):
        times.append(run())
    return times


def _is_larger(other: _Steps | _Part, cell: _Steps | _Part) -> bool:
    """Whether what stands against `cell` stands against `other` too."""
    match other, cell:
        case _Part(), _Part():
            return other.tokens > cell.tokens
        case _Steps(), _Steps():
            return other.batch >= cell.batch and other.context >= cell.context
        case _:
            return False


def _never() -> bool:
    return False
