"""A model class that builds only a part of the model: some blocks, or everything but the blocks.

The part stays inside the model's own transformers code. A subclass is made at run time; after the
library's `__init__` has built the whole structure on the meta device, every block outside the part
is replaced by an `AbsentBlock` and, unless the head is wanted, every other module with weights by an
`AbsentModule`. Names and indices stay global, so masks, layer types, rotary tables and checkpoint
conversions work as in the whole model.

Activations enter and leave through a `Seam`: the first block of a pass takes its input from there,
whatever the decoder computed before it (embedding scale, position embeddings, embedding norm), and the
last one leaves its output there, whatever the decoder does after it. A pass may use only some of the
local blocks; the others then hand on what they are given, like absent ones.

Knows nothing of checkpoints, caches or families.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel

from corolla.models.errors import FamilyRefused


class FirstBlockReached(Exception):
    """Leaves a decoder without blocks where its first block would run."""


class Seam:
    """Where hidden states enter and leave a partial model. Owner: the thread that runs the model."""

    def __init__(self) -> None:
        self.first = self.last = 0
        """The blocks of the pass, both included."""
        self.entering: Tensor | None = None
        """What the first block of the pass takes; None: leave with `FirstBlockReached`."""
        self.leaving: Tensor | None = None
        """What the last block of the pass gave, or what reached the first one."""


@dataclass(frozen=True)
class Part:
    """Which part of a model to build: blocks `[start, end)`, and with or without the head."""

    start: int
    end: int
    head: bool
    blocks_return_tuples: bool
    seam: Seam = field(default_factory=Seam)


class AbsentBlock(nn.Module):
    """Stands for a block that is elsewhere: has its plain attributes, no weights, and hands on what enters.

    It ignores what the decoder gives it: in front of the span that is overwritten at the first local block,
    and in the head the last block's output comes through the seam.
    """

    def __init__(self, block: nn.Module, part: Part) -> None:
        super().__init__()
        for name, value in vars(block).items():
            if not name.startswith("_") and name != "training":
                setattr(self, name, value)
        self._seam = part.seam
        self._returns_tuples = part.blocks_return_tuples

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Skips the hooks of `nn.Module`: this runs once per absent block and step."""
        entering = self._seam.entering
        if entering is None:
            self._seam.leaving = _hidden_states(args, kwargs)
            raise FirstBlockReached
        return (entering, None) if self._returns_tuples else entering


class AbsentModule(nn.Module):
    """Stands for an embedding, norm or projection whose result nobody reads.

    Hidden states are handed on. Anything else gives a scalar zero, which adds to any shape.
    """

    def __call__(self, first: Any = None, *args: Any, **kwargs: Any) -> Any:
        if isinstance(first, Tensor) and first.is_floating_point() and first.dim() > 2:
            return first
        return torch.zeros(())


class VisibleBlocks(nn.ModuleList):
    """The list of blocks as the decoder sees it when it runs: only the first `visible` of them.

    What comes after the last local block is never called. Slicing gives a tuple at once, where a
    `ModuleList` would build a new module in every step.
    """

    def __init__(self, blocks: nn.ModuleList, visible: int) -> None:
        super().__init__(blocks)
        self._visible = tuple(blocks)[:visible]

    def __iter__(self) -> Iterator[nn.Module]:
        return iter(self._visible)

    def __getitem__(self, index: Any) -> Any:
        return self._visible[index]


def find_decoder(model: nn.Module, block_count: int) -> tuple[str, str]:
    """Path of the decoder in `model`, and the name of its list of blocks.

    The decoder is the module that directly owns a `ModuleList` of `block_count` children.
    Raises `FamilyRefused` if there is none, or more than one.
    """
    found: list[tuple[str, str]] = []
    for path, module in model.named_modules():
        if any(path.startswith(f"{outer}.{name}.".lstrip(".")) for outer, name in found):
            continue  # inside a block: a list of experts may be as long as the list of blocks
        for name, child in module.named_children():
            if isinstance(child, nn.ModuleList) and len(child) == block_count:
                found.append((path, name))
    if len(found) != 1:
        where = ", ".join(f"{path}.{name}".lstrip(".") for path, name in found) or "nowhere"
        raise FamilyRefused(
            f"{type(model).__name__} should own exactly one list of {block_count} blocks; found: {where}. "
            "This architecture cannot be split by the general technique; list it as refused."
        )
    return found[0]


def partial_class(model_class: type[PreTrainedModel], block_count: int, part: Part) -> type[PreTrainedModel]:
    """A subclass of `model_class` whose instances hold only `part`.

    It keeps the original's name and `__module__`: the library looks up its checkpoint conversions by
    them, and takes a class from elsewhere for custom code, without conversions.
    """

    def build(self: PreTrainedModel, config: PreTrainedConfig, *args: Any, **kwargs: Any) -> None:
        model_class.__init__(self, config, *args, **kwargs)
        _prune(self, block_count, part)

    origin = {"__module__": model_class.__module__, "__qualname__": model_class.__qualname__}
    made = type(model_class.__name__, (model_class,), {"__init__": build, **origin})
    return cast(type[PreTrainedModel], made)


def hide_blocks(model: nn.Module, block_count: int, visible: int) -> tuple[nn.Module, tuple[nn.Module, ...]]:
    """Hides all but the first `visible` blocks from the decoder; returns it and those blocks."""
    path, list_name = find_decoder(model, block_count)
    decoder = model.get_submodule(path)
    blocks = VisibleBlocks(cast(nn.ModuleList, getattr(decoder, list_name)), visible)
    setattr(decoder, list_name, blocks)
    return decoder, tuple(blocks)


def join_seam(model: nn.Module, block_count: int, part: Part) -> nn.Module:
    """Ties the local blocks of a loaded partial model to its seam; returns the decoder to call."""
    decoder, blocks = hide_blocks(model, block_count, part.end)
    for index in range(part.start, part.end):
        # Wrapping `forward` costs one call; hooks would send every call through the slow path of `nn.Module`.
        blocks[index].forward = _at_seam(part, index, blocks[index].forward)
    return decoder


def _prune(model: PreTrainedModel, block_count: int, part: Part) -> None:
    path, list_name = find_decoder(model, block_count)
    blocks = cast(nn.ModuleList, getattr(model.get_submodule(path), list_name))
    for index in range(block_count):
        if not part.start <= index < part.end:
            blocks[index] = AbsentBlock(blocks[index], part)
    if not part.head:
        for parent, name, module in list(_beside(model, path, blocks)):
            if any(True for _ in module.parameters()):
                setattr(parent, name, AbsentModule())
    kept = set(model.state_dict())
    tied = model.all_tied_weights_keys
    model.all_tied_weights_keys = {one: other for one, other in tied.items() if one in kept and other in kept}


def _beside(model: nn.Module, path: str, blocks: nn.ModuleList) -> Iterator[tuple[nn.Module, str, nn.Module]]:
    """Every module on the way to `blocks` that does not contain them, as (parent, name, module)."""
    parent = model
    for step in [*path.split("."), ""] if path else [""]:
        for name, child in parent.named_children():
            if child is not blocks and name != step:
                yield parent, name, child
        if step:
            parent = cast(nn.Module, getattr(parent, step))


def _at_seam(part: Part, index: int, forward: Callable[..., Any]) -> Callable[..., Any]:
    """The `forward` of local block `index`, which takes part only in passes that the seam includes it in."""
    seam = part.seam

    def run(*args: Any, **kwargs: Any) -> Any:
        if not seam.first <= index <= seam.last:
            return (seam.entering, None) if part.blocks_return_tuples else seam.entering
        if index == seam.first:
            if args:
                args = (seam.entering, *args[1:])
            else:
                kwargs["hidden_states"] = seam.entering
        output = forward(*args, **kwargs)
        if index == seam.last:
            seam.leaving = output if isinstance(output, Tensor) else output[0]
        return output

    return run


def _hidden_states(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    return args[0] if args else kwargs["hidden_states"]
