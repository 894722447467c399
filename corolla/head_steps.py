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
from typing import NamedTuple, Protocol, TypeVar

import torch

from corolla.models.head import HeadModel
from corolla.sampling import Sampler, next_tokens
from corolla.tensors import from_wire, require_finite, require_hidden, to_wire
from schema.errors import CorollaError, ShapeMismatch
from schema.tensors import WireTensor, encode_tensors

MOST_STEPS = 64
"""In one batch: logits are as wide as the vocabulary."""

_T = TypeVar("_T")


class Runner(Protocol):
    """Runs head work on the thread that owns the head, and awaits it."""

    def __call__(self, work: Callable[[], _T], /) -> Awaitable[_T]: ...


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
    """Sends the token's hidden states on from the head's thread, so that blocks on its own device need not
    wait until another thread has looked at the token; None: the caller sends them."""


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

    def __init__(self, model: HeadModel, hidden_size: int, run: Runner) -> None:
        self._model = model
        self._hidden_size = hidden_size
        self._run = run
        self._waiting: deque[_Waiting] = deque()
        """Filled by the event loop, emptied by the head's thread."""
        self._calls: set[asyncio.Future[list[_Answer]]] = set()

    async def advance(self, step: HeadStep) -> Advanced:
        """Raises ShapeMismatch or NotFinite for hidden states that are none, and what `run` raises."""
        waiting = _Waiting(step, asyncio.get_running_loop().create_future())
        self._waiting.append(waiting)
        try:
            call = asyncio.ensure_future(self._run(self._compute_waiting))
        except CorollaError:
            self._waiting.remove(waiting)
            raise
        self._calls.add(call)
        call.add_done_callback(lambda done: self._tell(done, waiting.future))
        return await waiting.future

    def _tell(self, call: "asyncio.Future[list[_Answer]]", caller: "asyncio.Future[Advanced]") -> None:
        """Hands out what a call has computed, which may be nothing, or others' steps too."""
        self._calls.discard(call)
        error = asyncio.CancelledError() if call.cancelled() else call.exception()
        if error is not None and not caller.done():
            caller.set_exception(error)
        for future, outcome in [] if error is not None else call.result():
            if future.done():
                continue
            if isinstance(outcome, Exception):
                future.set_exception(outcome)
            else:
                future.set_result(outcome)

    # ---- on the head's thread -----------------------------------------------------------------

    def _compute_waiting(self) -> list[_Answer]:
        taken: list[_Waiting] = []
        while self._waiting and len(taken) < MOST_STEPS:
            waiting = self._waiting.popleft()
            if not waiting.future.done():
                taken.append(waiting)
        answers, ready, states = [], [], []
        for waiting in taken:
            try:
                states.append(self._checked(waiting.step.hidden))
            except Exception as error:  # noqa: BLE001 - raised where the step is awaited
                answers.append(_Answer(waiting.future, error))
            else:
                ready.append(waiting)
        if ready:
            try:
                outcomes = self._compute([one.step for one in ready], states)
            except Exception as error:  # noqa: BLE001 - as above
                outcomes = [error] * len(ready)
            answers += [_Answer(one.future, outcome) for one, outcome in zip(ready, outcomes, strict=True)]
        return answers

    def _compute(
        self, steps: Sequence[HeadStep], states: Sequence[torch.Tensor]
    ) -> list[Advanced | Exception]:
        """Outcomes in order. What one step's sampler refuses concerns no other."""
        model = self._model
        joined = torch.cat(list(states)).to(model.options.device, model.options.dtype)
        logits = model.logits(joined)[:, -1]
        sampled = next_tokens([step.sampler for step in steps], logits)
        found = [(step, token) for step, token in zip(steps, sampled, strict=True) if isinstance(token, int)]
        if not found:
            return [error for error in sampled if isinstance(error, Exception)]
        hidden = model.embed_tokens([token for _, token in found], [step.position for step, _ in found])
        rows = iter(hidden.split(1))
        return [
            self._sent_on(step, outcome, next(rows)) if isinstance(outcome, int) else outcome
            for step, outcome in zip(steps, sampled, strict=True)
        ]

    @staticmethod
    def _sent_on(step: HeadStep, token: int, hidden: torch.Tensor) -> Advanced | Exception:
        if token in step.end_tokens:
            return Advanced(token, None)
        wire = to_wire(hidden)
        try:
            if step.launch is not None:
                step.launch(encode_tensors([wire]))
        except Exception as error:  # noqa: BLE001 - as above
            return error
        return Advanced(token, wire)

    def _checked(self, hidden: WireTensor) -> torch.Tensor:
        """What came back, [1, 1, hidden]: one position was asked for, and logits of more may not fit."""
        require_hidden(hidden, self._hidden_size, batch=1)
        if hidden.shape[1] != 1:
            raise ShapeMismatch(f"a step came back with {hidden.shape[1]} positions instead of its last one")
        states = from_wire(hidden)
        require_finite(states)
        return states
