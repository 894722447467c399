"""Sequences of noise in a stage, driven as the sessions of others are: what is measured is what they get.

Each takes part as a session of its own, with steps as they come in frames, so that it pays for all that a
session pays for: checks, memory, batches, the copy to the host. Runs nothing while the stage has sessions of
others; that is the caller's to see to. Owner: the device thread.
"""

import math
from time import monotonic

import torch

from corolla.models.facts import ModelFacts
from corolla.tensors import to_wire
from schema.frames import FrameType
from schema.ids import SessionId, new_session_id
from schema.limits import MAX_PAYLOAD_BYTES
from schema.tensors import encode_tensors
from volunteer.stage import MAX_TOKENS, Stage
from volunteer.work import Work

FILL_TOKENS = 512
"""Of a slice that brings a sequence to its length, if so many fit into half of a payload."""


class Noise:
    """Some sequences of one stage. What they hold from a step's position on is forgotten."""

    def __init__(self, stage: Stage, facts: ModelFacts, dtype: torch.dtype) -> None:
        """`facts`: of the stage's model in `dtype`."""
        self.facts = facts
        self._stage = stage
        self._dtype = dtype
        self._generator = torch.Generator().manual_seed(0)
        self._sequences: list[SessionId] = []
        self._payloads: list[bytes] = []
        """A token for each sequence: with the same one for all, all would ask the same experts."""

    @property
    def blocks(self) -> int:
        return len(self._stage.span)

    @property
    def can_go_back(self) -> bool:
        """Whether sequences can forget any number of tokens: sliding windows have dropped those before."""
        return self.facts.can_roll_back and not any(self.facts.kv_tokens_at_most)

    def room_for_steps(self, context: int, most: int) -> int:
        """How many steps, up to `most`, a sequence that holds `context` tokens can take."""
        longest = self.facts.max_position
        return most if longest is None else min(most, longest - context)

    @property
    def fill_tokens(self) -> int:
        """Of a slice that `fill` takes."""
        each = self.facts.hidden_size * self._dtype.itemsize
        return max(1, min(FILL_TOKENS, MAX_PAYLOAD_BYTES // 2 // each))

    @property
    def count(self) -> int:
        """Sequences that are open."""
        return len(self._sequences)

    def open(self, count: int) -> None:
        """Adds empty sequences until there are `count`."""
        while len(self._sequences) < count:
            self._sequences.append(new_session_id())
            self._payloads.append(self._tokens(1))

    def fill(self, sequence: int, begin: int, tokens: int) -> None:
        """Gives one sequence, which holds `begin` tokens, so many more. Raises CorollaError."""
        work = self._work(sequence, begin, FrameType.PREFILL, self._tokens(tokens))
        self.run([work])

    def step(self, count: int, position: int) -> list[Work]:
        """A decode step of the first `count` sequences at a position, to be `run`."""
        return [self._work(each, position, FrameType.STEP, self._payloads[each]) for each in range(count)]

    def prompt(self, tokens: int) -> list[Work]:
        """A prompt of the first sequence, to be `run`; what that held is forgotten."""
        return [self._work(0, 0, FrameType.PREFILL, self._tokens(tokens))]

    def run(self, works: list[Work]) -> None:
        """Computes what `step` or `prompt` has made, at once. Raises CorollaError."""
        for result in self._stage.run(works, MAX_TOKENS, monotonic()):
            if result.error is not None:
                raise result.error

    def close(self) -> None:
        """Frees all sequences."""
        for session in self._sequences:
            self._stage.close(session)
        self._sequences.clear()
        self._payloads.clear()

    def _work(self, sequence: int, position: int, kind: FrameType, payload: bytes) -> Work:
        session = self._sequences[sequence]
        return Work(kind, session, 0, position, 0, self._stage.span, payload)

    def _tokens(self, count: int) -> bytes:
        """Of about the size of real ones, as the probe's: larger ones overflow in half precision."""
        hidden = torch.randn(1, count, self.facts.hidden_size, generator=self._generator)
        return encode_tensors([to_wire((hidden / math.sqrt(self.facts.hidden_size)).to(self._dtype))])
