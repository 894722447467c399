"""Keys and values of one block, in memory that has room for the tokens to come.

The library's layer makes both anew for every token, which copies all that it holds. Here a token is written
behind the last one, and a copy is made only when the room is full. What attention reads are views of the
room: the same numbers in the same order, so the results are the same bits.

Owner: the thread that runs the model.
"""

from typing import Any

from torch import Tensor
from transformers.cache_utils import DynamicLayer

LEAST_ROOM = 64
"""Tokens for which there is room from the first one on."""
ROOM_BITS = 4
"""How many leading bits of a length are kept when it is rounded up: room for an eighth more at most."""


def room_for(tokens: int) -> int:
    """For how many tokens there is room where `tokens` are held: the next length of a few leading bits.

    A pure function of the length, so that memory can be booked before it is taken.
    """
    step = max(LEAST_ROOM, 1 << max(0, tokens.bit_length() - ROOM_BITS))
    return -(-tokens // step) * step


class GrowingLayer(DynamicLayer):
    """A `DynamicLayer` that writes in place, and so without gradients."""

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        self._rooms: tuple[Tensor, Tensor] | None = None

    @property
    def rooms(self) -> tuple[Tensor, ...]:
        """The memory that is held: keys and values, each [batch, heads, room, head_dim]."""
        return self._rooms or ()

    def begin_as(self, other: "GrowingLayer", tokens: int) -> None:
        """Copies the first `tokens` tokens of another layer into this one, which is new."""
        if not tokens or other.keys is None or other.values is None:
            return
        self.lazy_initialization(other.keys, other.values)
        self._rooms = (
            _with_room(other.keys, other.keys[..., :tokens, :], tokens, tokens),
            _with_room(other.values, other.values[..., :tokens, :], tokens, tokens),
        )
        self.keys, self.values = (room[..., :tokens, :] for room in self._rooms)

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Appends [batch, heads, tokens, head_dim]; all keys and values, held ones first."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        held = self.get_seq_length()
        needed = held + key_states.shape[-2]
        if self._rooms is None or needed > self._rooms[0].shape[-2]:
            self._rooms = (
                _with_room(key_states, self.keys, held, needed),
                _with_room(value_states, self.values, held, needed),
            )
        keys, values = self._rooms
        keys[..., held:needed, :] = key_states
        values[..., held:needed, :] = value_states
        self.keys, self.values = keys[..., :needed, :], values[..., :needed, :]
        return self.keys, self.values

    def reset(self) -> None:
        self._rooms = None
        super().reset()


def _with_room(states: Tensor, held: Tensor | None, count: int, needed: int) -> Tensor:
    """Room for `needed` tokens like `states`, the `count` that are `held` in it."""
    batch, heads, _, width = states.shape
    room = states.new_empty((batch, heads, room_for(needed), width))
    if count and held is not None:
        room[..., :count, :] = held
    return room
