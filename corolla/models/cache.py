"""The KV cache of one batch of sequences on one span.

A `transformers` cache has a layer per block of the whole model, and the decoder sizes its masks by
some of them. Here the layers of the span are the library's own; every other one is a placeholder that
stores nothing and counts as long as the span's own, so that masks and positions come out as in the whole
model whatever layer the decoder asks. The position is kept here, because recurrent layers do not know it.

Owner: the thread that runs the model. Knows nothing of memory budgets or of other sessions.
"""

import functools
import inspect
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import DynamicCache, PreTrainedConfig
from transformers.cache_utils import Cache, DynamicLayer, DynamicSlidingWindowLayer

from corolla.models.errors import RollbackRefused
from corolla.models.families import Family
from corolla.models.growing import GrowingLayer

ROLLBACK_TOKENS = 64
"""How many tokens a sliding window can always give back: more than any draft is long."""


class Clock:
    """How many tokens a cache holds; shared by the placeholders of one cache."""

    def __init__(self) -> None:
        self.position = 0


class _Placeholder:
    """Mixed into a library's layer class: the layer of a block that is elsewhere."""

    _clock: Clock
    number_of_states: int

    @property
    def cumulative_length(self) -> int:
        return self._clock.position

    @property
    def has_previous_state(self) -> dict[int, bool]:
        return dict.fromkeys(range(self.number_of_states), self._clock.position > 0)

    def get_seq_length(self) -> int:
        return self._clock.position


@functools.cache
def _placeholder_class(layer_class: type) -> type:
    return type(f"Absent{layer_class.__name__}", (_Placeholder, layer_class), {})


def placeholder(layer: Any, clock: Clock) -> Any:
    """`layer` with nothing in it, as long as `clock` says."""
    absent = object.__new__(_placeholder_class(type(layer)))
    absent.__dict__.update(vars(layer), _clock=clock)
    return absent


def cache_argument(decoder: nn.Module) -> str:
    """What the decoder's `forward` calls its cache."""
    accepted = inspect.signature(decoder.forward).parameters
    return "past_key_values" if "past_key_values" in accepted else "cache_params"


class SpanCache:
    """Keys and values, or recurrent states, of blocks `[start, end)` for `batch` equally long sequences."""

    def __init__(self, config: PreTrainedConfig, family: Family, start: int, end: int, batch: int) -> None:
        self.start = start
        self.end = end
        self.batch = batch
        self._config = config
        self._family = family
        self._clock = Clock()
        self.layers: Cache = DynamicCache(config=config)
        """What the decoder is called with: the library's cache, one layer per block of the whole model."""
        self.own: list[Any] = [_growing(layer) for layer in self.layers.layers[start:end]]
        """The layers of this cache's blocks, in order."""
        self._sliding = [layer for layer in self.own if isinstance(layer, DynamicSlidingWindowLayer)]
        self.layers.layers = [
            self.own[index - start] if start <= index < end else placeholder(layer, self._clock)
            for index, layer in enumerate(self.layers.layers)
        ]
        if family.can_roll_back:
            for layer in self._sliding:
                layer.activate_past_recording()

    @property
    def position(self) -> int:
        """Tokens held, padding included."""
        return self._clock.position

    @property
    def nbytes(self) -> int:
        """Bytes of memory that this cache holds."""
        storages = {
            tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes()
            for layer in self.own
            for tensor in (layer.rooms if isinstance(layer, GrowingLayer) else layer_tensors(layer))
        }
        return sum(storages.values())

    def advance(self, tokens: int) -> None:
        """Counts `tokens` that a forward pass has appended, and drops what no window reaches any more."""
        self._clock.position += tokens
        for layer in self._sliding:
            _trim(layer)

    def begin(self, tokens: int) -> None:
        """Before a pass over `tokens` tokens: memory is taken as they come."""

    def close(self) -> None:
        """Frees the memory. The cache is of no more use."""
        self.own = []
        self.layers.layers = []

    def drop_unfinished(self) -> None:
        """Forgets what blocks have appended in a pass that broke off; not for recurrent states."""
        for layer in self.own:
            surplus = layer.get_seq_length() - self.position
            if surplus > 0:
                _cut(layer, surplus)

    def fork(self, position: int) -> "SpanCache":
        """A cache of its own that holds a copy of the first `position` tokens. Raises as `truncate`."""
        drop = self.require_cut(position)
        copy = SpanCache(self._config, self._family, self.start, self.end, self.batch)
        with torch.inference_mode():
            for ours, theirs in zip(self.own, copy.own, strict=True):
                if isinstance(theirs, GrowingLayer):
                    theirs.begin_as(ours, position)
                else:
                    vars(theirs).update(_copied(vars(ours)))
                    if drop:
                        _cut(theirs, drop)
        copy._clock.position = position
        return copy

    def truncate(self, position: int) -> None:
        """Forgets every token from `position` on.

        Raises `RollbackRefused` where the family has a recurrent state, which keeps no history, and where
        a sliding window has already dropped what it would need (after more than `ROLLBACK_TOKENS` tokens).
        """
        drop = self.require_cut(position)
        if drop:
            for layer in self.own:
                _cut(layer, drop)
            self._clock.position = position

    def require_cut(self, position: int) -> int:
        """How many tokens are to be dropped to end at `position`. Raises as `truncate`."""
        drop = self.position - position
        if drop < 0 or position < 0:
            raise RollbackRefused(f"The cache holds {self.position} tokens; it cannot be cut to {position}.")
        if drop == 0:
            return 0
        if not self._family.can_roll_back:
            raise RollbackRefused(
                f"Models of type {self._family.model_type} keep a recurrent state without history. "
                "Start a new cache and run the tokens again."
            )
        if any(_kept(layer) - drop < _needed(layer, position) for layer in self._sliding):
            raise RollbackRefused(
                f"A sliding window has dropped tokens that position {position} attends to. "
                "Start a new cache and run the tokens again."
            )
        return drop


def layer_tensors(layer: Any) -> list[Tensor]:
    """The keys and values, or states, that a cache layer holds."""
    values = list(vars(layer).values())
    values += [item for value in values if isinstance(value, dict) for item in value.values()]
    return [value for value in values if isinstance(value, Tensor) and value.dim() > 0]


def _copied(value: Any) -> Any:
    """What a layer is made of, its tensors copied."""
    if isinstance(value, Tensor):
        return value.clone()
    if isinstance(value, dict):
        return {key: _copied(one) for key, one in cast("dict[Any, Any]", value).items()}
    if isinstance(value, list):
        return [_copied(one) for one in cast("list[Any]", value)]
    return value


def _growing(layer: Any) -> Any:
    """A layer of plain keys and values with room to grow; any other as it is."""
    return GrowingLayer() if type(layer) is DynamicLayer else layer


def _kept(layer: DynamicSlidingWindowLayer) -> int:
    return layer.keys.shape[-2] if layer.keys is not None else 0


def _needed(layer: DynamicSlidingWindowLayer, position: int) -> int:
    """How many of the tokens before `position` the next step attends to."""
    return min(position, layer.sliding_window - 1)


def _trim(layer: DynamicSlidingWindowLayer) -> None:
    """Keeps the window and the rollback margin; waits until twice the margin has gathered.

    Copies what it keeps: a view would hold the memory of what it drops.
    """
    keep = layer.sliding_window - 1 + ROLLBACK_TOKENS
    if _kept(layer) > keep + ROLLBACK_TOKENS and layer.keys is not None and layer.values is not None:
        layer.keys = layer.keys[..., -keep:, :].clone()
        layer.values = layer.values[..., -keep:, :].clone()


def _cut(layer: Any, drop: int) -> None:
    """Drops the newest tokens. The library's `crop` would also shrink a sliding layer to its bare window."""
    if not isinstance(layer, DynamicSlidingWindowLayer):
        layer.crop(-drop)
    elif layer.keys is not None and layer.values is not None:
        layer.keys = layer.keys[..., :-drop, :]
        layer.values = layer.values[..., :-drop, :]
        layer.cumulative_length -= drop
