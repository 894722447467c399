"""Decode steps at a head: hidden states become a token, and the token the hidden states that go out next.

Replies are many, and the output projection is as large as several blocks: all steps that wait when the
head's thread gets to them are computed as one batch. Nobody waits for others to come. Sampling is each
reply's own. Does not know text, sessions or frames. Methods are for the event loop; what runs on the
head's thread says so.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from math import isfinite
from time import monotonic
from typing import NamedTuple, Protocol, TypeVar

import torch

from corolla.models.graphed_head import GraphedHead, Scored
from corolla.models.head import HeadModel
from corolla.sampling import Sampler, next_tokens
from corolla.tensors import (
    is_finite,
    not_finite,
    require_finite,
    require_hidden,
    rows_to_wire,
    stack_from_wire,
    wire_dtype,
)
from schema.errors import CorollaError, ShapeMismatch
from schema.tensors import WireTensor, encode_tensors

MOST_STEPS = 64
"""In one batch: logits are as wide as the vocabulary."""
QUICK_SECONDS = 0.002
"""What may be computed at once: for as long the event loop does nothing else."""
WEIGHT = 0.3
"""Of the newest batch in the average of their times."""

_T = TypeVar("_T")


class Runner(Protocol):
    """Runs head work on the thread that owns the head, and awaits it."""

    def __call__(self, work: Callable[[], _T], /) -> Awaitable[_T]: ...


class AtOnce(Protocol):
    """Runs head work at once on the event loop, if nobody else uses the head's device; whether it did."""

    def __call__(self, work: Callable[[], None], /) -> bool: ...


@dataclass(frozen=True, slots=True, eq=False)
class HeadStep:
    """One reply's step."""

    hidden: WireTensor
    """What came back of the last position, [1, 1, hidden_size]."""
    position: int
    """Of the token that is to be found."""
    sampler: Sampler
    end_tokens: frozenset[int]
    launch: Callable[[bytes], None] | None
    """Sends the token's hidden states on where they were computed, so that blocks on the same device need not
    wait until the caller has looked at the token; None: the caller sends them."""


class Advanced(NamedTuple):
    """The token after a step, and its hidden states for the wire; None for an end token."""

    token: int
    hidden: WireTensor | None


class _Waiting(NamedTuple):
    step: HeadStep
    future: "asyncio.Future[Advanced]"


class _Answer(NamedTuple):
    future: "asyncio.Future[Advanced]"
    outcome: Advanced | Exception


class HeadSteps:
    """The steps that wait for one head."""

    def __init__(
        self,
        model: HeadModel,
        hidden_size: int,
        run: Runner,
        graphed: GraphedHead | None = None,
        at_once: AtOnce | None = None,
    ) -> None:
        """`graphed`: the same head, where it is on a GPU; `at_once`: for what takes it less time than a
        switch of threads."""
        self._model = model
        self._graphed = graphed
        self._hidden_size = hidden_size
        self._run = run
        self._at_once = at_once
        self._waiting: deque[_Waiting] = deque()
        """Filled by the event loop, emptied by who computes."""
        self._seconds = 0.0
        """What a batch has taken lately."""
        self._is_due = False
        """Whether the head's thread is about to be asked for what waits."""

    async def advance(self, step: HeadStep) -> Advanced:
        """Raises ShapeMismatch or NotFinite for hidden states that are none, and what `run` raises."""
        loop = asyncio.get_running_loop()
        waiting = _Waiting(step, loop.create_future())
        self._waiting.append(waiting)
        self._ask_soon(loop)
        return await waiting.future

    def _ask_soon(self, loop: asyncio.AbstractEventLoop) -> None:
        """Replies whose steps came back together are all heard before the head's thread is asked."""
        if not self._is_due:
            self._is_due = True
            loop.call_soon(self._ask)

    def _ask(self) -> None:
        self._is_due = False
        if self._at_once is not None and self._is_quick() and self._at_once(self._compute_here):
            return
        try:
            call = asyncio.ensure_future(self._run(self._compute_waiting))
        except CorollaError as error:
            self._fail_waiting(error)
        else:
            call.add_done_callback(self._tell)

    def _is_quick(self) -> bool:
        """Whether what waits is one launch, short, after which the tokens are known."""
        if self._graphed is None or self._seconds > QUICK_SECONDS:
            return False
        dtype = wire_dtype(self._model.options.dtype)
        waiting = [one.step for one in tuple(self._waiting) if not one.future.done()]
        are_plain = all(one.sampler.is_plainly_greedy and one.hidden.dtype is dtype for one in waiting)
        return are_plain and self._graphed.is_recorded(min(len(waiting), MOST_STEPS))

    def _compute_here(self) -> None:
        self._hand_out(self._compute_waiting())
        if self._waiting:
            self._ask_soon(asyncio.get_running_loop())

    def _fail_waiting(self, error: BaseException) -> None:
        while self._waiting:
            future = self._waiting.popleft().future
            if not future.done():
                future.set_exception(error)

    def _tell(self, call: "asyncio.Future[list[_Answer]]") -> None:
        """Hands out what a call has computed; another one has to come for what it has left."""
        error = asyncio.CancelledError() if call.cancelled() else call.exception()
        if error is not None:
            self._fail_waiting(error)
            return
        self._hand_out(call.result())
        if self._waiting:
            self._ask_soon(call.get_loop())

    @staticmethod
    def _hand_out(answers: Sequence[_Answer]) -> None:
        for future, outcome in answers:
            if future.done():
                continue
            if isinstance(outcome, Exception):
                future.set_exception(outcome)
            else:
                future.set_result(outcome)

    # ---- on the head's thread, or at once -----------------------------------------------------

    def _compute_waiting(self) -> list[_Answer]:
        taken: list[_Waiting] = []
        while self._waiting and len(taken) < MOST_STEPS:
            waiting = self._waiting.popleft()
            if not waiting.future.done():
                taken.append(waiting)
        begun = monotonic()
        try:
            return self._compute_taken(taken)
        except Exception as error:  # noqa: BLE001 - raised where the steps are awaited
            return [_Answer(one.future, error) for one in taken]
        finally:
            self._seconds += WEIGHT * (monotonic() - begun - self._seconds)

    def _compute_taken(self, taken: Sequence[_Waiting]) -> list[_Answer]:
        answers: list[_Answer] = []
        ready: list[_Waiting] = []
        for waiting in taken:
            try:
                self._check(waiting.step.hidden)
            except ShapeMismatch as error:
                answers.append(_Answer(waiting.future, error))
            else:
                ready.append(waiting)
        outcomes = self._compute_finite([one.step for one in ready])
        return answers + [_Answer(one.future, outcome) for one, outcome in zip(ready, outcomes, strict=True)]

    def _compute_finite(self, steps: Sequence[HeadStep]) -> list[Advanced | Exception]:
        """Outcomes in order. Hidden states that hold NaN or infinity concern no other step."""
        if not steps:
            return []
        try:
            outcomes = self._compute_rows(steps)
            if outcomes is not None:
                return outcomes
            states = stack_from_wire([step.hidden for step in steps])
            if is_finite(states):
                return self._compute(steps, states)
            if len(steps) == 1:
                require_finite(states)
        except Exception as error:  # noqa: BLE001 - raised where the steps are awaited
            return [error] * len(steps)
        return [outcome for step in steps for outcome in self._compute_finite([step])]

    def _compute_rows(self, steps: Sequence[HeadStep]) -> list[Advanced | Exception] | None:
        """As `_compute_finite`, by graphs; None where there are none for these steps."""
        graphed, dtype = self._graphed, wire_dtype(self._model.options.dtype)
        if graphed is None or any(step.hidden.dtype is not dtype for step in steps):
            return None
        positions = [step.position for step in steps]
        scored = graphed.score([step.hidden.data for step in steps], positions)
        if scored is None:
            return None
        sampled = _sampled(steps, scored)
        tokens = [one if isinstance(one, int) else 0 for one in sampled]
        rows = scored.embedded if tokens == scored.likeliest else graphed.embed(tokens, positions)
        shape = (1, 1, self._hidden_size)
        return [
            self._sent_on(step, one, WireTensor(dtype, shape, bytes(row))) if isinstance(one, int) else one
            for step, one, row in zip(steps, sampled, rows, strict=True)
        ]

    def _compute(self, steps: Sequence[HeadStep], states: torch.Tensor) -> list[Advanced | Exception]:
        """Outcomes in order. What one step's sampler refuses concerns no other."""
        model = self._model
        logits = model.logits(states.to(model.options.device, model.options.dtype))[:, -1]
        sampled = next_tokens([step.sampler for step in steps], logits)
        found = [(step, token) for step, token in zip(steps, sampled, strict=True) if isinstance(token, int)]
        if not found:
            return [error for error in sampled if isinstance(error, Exception)]
        hidden = model.embed_tokens([token for _, token in found], [step.position for step, _ in found])
        rows = iter(rows_to_wire(hidden))
        return [
            self._sent_on(step, outcome, next(rows)) if isinstance(outcome, int) else outcome
            for step, outcome in zip(steps, sampled, strict=True)
        ]

    @staticmethod
    def _sent_on(step: HeadStep, token: int, hidden: WireTensor) -> Advanced | Exception:
        if token in step.end_tokens:
            return Advanced(token, None)
        try:
            if step.launch is not None:
                step.launch(encode_tensors([hidden]))
        except Exception as error:  # noqa: BLE001 - raised where the step is awaited
            return error
        return Advanced(token, hidden)

    def _check(self, hidden: WireTensor) -> None:
        """What came back is [1, 1, hidden]: one position was asked for, and logits of more may not fit."""
        require_hidden(hidden, self._hidden_size, batch=1)
        if hidden.shape[1] != 1:
            raise ShapeMismatch(f"a step came back with {hidden.shape[1]} positions instead of its last one")


def _sampled(steps: Sequence[HeadStep], scored: Scored) -> Sequence[int | Exception]:
    """Each step's token, or why it has none."""
    samplers = [step.sampler for step in steps]
    if all(isfinite(norm) for norm in scored.norms):
        return next_tokens(samplers, scored.logits, scored.likeliest)
    finite = [index for index, norm in enumerate(scored.norms) if isfinite(norm)]
    found = next_tokens(
        [samplers[index] for index in finite],
        scored.logits[finite],
        [scored.likeliest[index] for index in finite],
    )
    by_index = dict(zip(finite, found, strict=True))
    return [by_index.get(index, not_finite(step.hidden.shape)) for index, step in enumerate(steps)]
