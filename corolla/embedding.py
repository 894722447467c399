"""Vectors of texts: the mean of what a model makes of a text's tokens, scaled to length 1.

Each text is a prefill of which all positions come back. A few are under way at once; vectors come in the
texts' order. Does not know who asks.
"""

import asyncio
import math
import time
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from corolla.beginning import Beginner, Prompt
from corolla.exchange import Exchange
from corolla.generation import Completed, Head, embedded
from corolla.models.head import HeadModel
from corolla.tensors import from_wire, require_finite, require_hidden
from schema.errors import ContextTooLong, InvalidRequest, NotFinite
from schema.generation import Timing, Usage
from schema.tensors import WireTensor

AT_ONCE = 4
"""Texts under way: enough to keep the hops of a usual route busy, and no more caches than that."""


@dataclass(frozen=True, slots=True)
class TextVector:
    """What has become of one text."""

    index: int
    tokens: int
    vector: bytes
    """float32, little-endian, of length 1."""


class _Mean:
    """The mean of a text's states. `take` and `vector` are for the head's thread."""

    def __init__(self, model: HeadModel) -> None:
        self._model = model
        self._sums: dict[int, tuple[Tensor, int]] = {}

    @torch.inference_mode()
    def take(self, position: int, states: WireTensor) -> None:
        """The last block's hidden states of a slice. A slice that comes again takes the place of the first.

        Raises:
            ShapeMismatch, NotFinite: they are none.
        """
        require_hidden(states, self._model.hidden_size, batch=1)
        hidden = from_wire(states)
        require_finite(hidden)
        if position == 0:
            self._sums.clear()  # another route may cut the text into other slices
        options = self._model.options
        normed = self._model.normed(hidden.to(options.device, options.dtype))
        self._sums[position] = (normed[0].double().sum(dim=0).cpu(), normed.shape[1])

    def vector(self) -> bytes:
        """Raises NotFinite for a mean without a direction."""
        sums = [one for one, _ in self._sums.values()]
        mean = torch.stack(sums).sum(dim=0) / sum(count for _, count in self._sums.values())
        length = mean.norm().item()
        if not math.isfinite(length) or length == 0:
            raise NotFinite("the text has no vector: its states add up to nothing, or are not finite")
        return (mean / length).float().numpy().astype("<f4").tobytes()


async def embed_texts(
    head: Head, exchange: Exchange, model: str, inputs: Sequence[str | list[int]]
) -> AsyncGenerator[TextVector | Completed]:
    """A vector for each input, in order, and then `Completed`.

    Closing the iterator before that ends what is under way.

    Raises:
        InvalidRequest, ContextTooLong: an input that cannot be embedded; nothing is sent then.
        CorollaError: why a vector cannot be found.
    """
    started = time.monotonic()
    texts = [await head.codec.aside(partial(encode_input, head, one)) for one in inputs]
    first_at = 0.0
    work = [partial(_vector, head, exchange, model, *one) for one in enumerate(texts)]
    async with aclosing(_in_order(work)) as vectors:
        async for found in vectors:
            first_at = first_at or time.monotonic()
            yield found
    tokens = sum(map(len, texts))
    timing = Timing(first_token=first_at - started, total=time.monotonic() - started)
    yield Completed("stop", Usage(tokens, 0, tokens), timing)


def encode_input(head: Head, text: str | list[int]) -> list[int]:
    """The tokens of a text that fits the model. Raises as `embed_texts`."""
    tokens = head.codec.encode_prompt(text, head.context, "input")
    if not tokens:
        raise InvalidRequest("an input is empty: there is nothing to embed", param="input")
    if len(tokens) > head.context:
        raise ContextTooLong(
            f"an input has {len(tokens)} tokens and the model {head.context} positions: cut it into pieces",
            param="input",
        )
    return tokens


async def _vector(head: Head, exchange: Exchange, model: str, index: int, tokens: list[int]) -> TextVector:
    mean = _Mean(head.model)

    async def take(position: int, states: WireTensor) -> None:
        await head.run(partial(mean.take, position, states))

    prompt = Prompt(model, "", tokens, partial(embedded, head), take)
    async with Beginner(exchange, None).begin(prompt):
        vector = await head.run(mean.vector)
    return TextVector(index, len(tokens), vector)


async def _in_order(work: Sequence[Callable[[], Awaitable[TextVector]]]) -> AsyncGenerator[TextVector]:
    """The outcomes of all, `AT_ONCE` of which are done at a time. The first failure ends all."""
    waiting, pending = deque(work), deque[asyncio.Future[TextVector]]()
    try:
        while waiting or pending:
            while waiting and len(pending) < AT_ONCE:
                pending.append(asyncio.ensure_future(waiting.popleft()()))
            found = await pending[0]
            pending.popleft()
            yield found
    finally:
        for task in pending:
            task.cancel()
        await asyncio.gather(*pending, return_exceptions=True)
