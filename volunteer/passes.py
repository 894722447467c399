"""Forward passes: whole sequences through a span's blocks, of which nothing is kept.

Passes over the same blocks whose sequences are equally long run as one batch. One that cannot be computed
takes none of the others with it. Owner: the device thread. Knows neither sessions nor KV caches.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch

from corolla.models.facts import ModelFacts
from corolla.models.span import SpanModel
from corolla.tensors import require_finite
from schema.errors import NotServing, PositionMismatch
from schema.ids import Span
from volunteer.steps import StepInput, answer_of, read_unproven
from volunteer.work import Result, Work


class _Pass(NamedTuple):
    work: Work
    entering: StepInput


def run_passes(works: Sequence[Work], model: SpanModel, facts: ModelFacts) -> dict[Work, Result | Exception]:
    """What became of each: its answer, or why there is none."""
    found: dict[Work, Result | Exception] = {}
    together: dict[tuple[Span, int] | Work, list[_Pass]] = {}
    for work in works:
        try:
            one = _Pass(work, _read(work, model, facts))
        except Exception as error:  # noqa: BLE001 - what is wrong with one pass concerns no other
            found[work] = error
            continue
        is_alone = one.entering.mask is not None
        kind = work if is_alone else (work.span, one.entering.hidden.shape[1])
        together.setdefault(kind, []).append(one)
    for passes in together.values():
        found |= _run_together(passes, model)
    return found


def require_blocks(work: Work, span: Span) -> None:
    """Raises NotServing for blocks that are not in `span`."""
    if not span.start <= work.span.start < work.span.end <= span.end:
        raise NotServing(f"blocks {work.span} are wanted, but this volunteer serves {span}")


def _read(work: Work, model: SpanModel, facts: ModelFacts) -> StepInput:
    require_blocks(work, Span(model.start, model.end))
    if work.position:
        raise PositionMismatch(f"a forward pass begins at position 0, not at {work.position}")
    return read_unproven(work, facts, model.options)


def _run_together(passes: list[_Pass], model: SpanModel) -> dict[Work, Result | Exception]:
    """Runs passes as one batch; if that fails, each by itself."""
    try:
        return dict(_run(passes, model))
    except Exception as error:  # noqa: BLE001 - told to the driver by name
        if len(passes) == 1:
            return {passes[0].work: error}
    return {one.work: result for one in passes for result in _run_together([one], model).values()}


def _run(passes: list[_Pass], model: SpanModel) -> list[tuple[Work, Result]]:
    """Raises what is wrong with any of them: of several, it does not say with which."""
    sizes = [one.entering.hidden.shape[0] for one in passes]
    hidden = torch.cat([one.entering.hidden for one in passes]).to(model.options.device)
    mask = passes[0].entering.mask
    if mask is not None:
        mask = mask.to(model.options.device, torch.int64)
    span = passes[0].work.span
    with torch.inference_mode():
        require_finite(hidden)
        leaving = model.forward(hidden, None, mask, (span.start, span.end))
        require_finite(leaving)
        outputs = leaving.cpu().split(sizes)
    return [
        (work, Result(work, answer_of(output, work.flags), tokens=output.shape[0] * output.shape[1]))
        for (work, _), output in zip(passes, outputs, strict=True)
    ]
