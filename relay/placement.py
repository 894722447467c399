"""Which span a newcomer loads: a pure function over the swarm and what the newcomer can hold.

The span that raises the model's weakest blocks most: candidates are compared by the block
throughputs after the join, sorted from the weakest, so that holes are filled before anything is
doubled. Does not know sockets, time or SQL: the caller runs it inside one transaction.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from statistics import median

from schema.errors import JoinRefused
from schema.ids import Span
from schema.messages import ModelOffer

UNMEASURED_SPEED = 1.0
"""Blocks per second of volunteers none of which has measured; swarms of these are ranked by count."""
SLOWEST, FASTEST = 1e-3, 1e6
"""Blocks per second between which a volunteer is believed: none makes its blocks look like holes, or like
blocks that will never need another."""


@dataclass(frozen=True, slots=True)
class Held:
    """A span that some volunteer serves or is about to."""

    model: str
    span: Span
    head: bool
    blocks_per_second: float


@dataclass(frozen=True, slots=True)
class Placement:
    """What a newcomer shall load."""

    model: str
    span: Span
    head: bool


def place(
    offers: Sequence[ModelOffer], speed: float, held: Iterable[Held], priority: Sequence[str]
) -> Placement:
    """The placement of one newcomer.

    `offers`: what it can hold of each model. `speed`: its blocks per second, 0 when not measured.
    `priority`: the models that this swarm serves, the most wanted first; the first incomplete one
    that the newcomer can help is chosen, else the one whose weakest block is weakest.

    Raises:
        JoinRefused: it offers no model of this swarm, or can hold no block of any.
    """
    everyone = list(held)
    typical = _typical(everyone)
    speed = speed or typical
    everyone = [one if one.blocks_per_second else replace(one, blocks_per_second=typical) for one in everyone]
    useful = [offer for offer in offers if offer.facts.name in priority and offer.max_blocks > 0]
    if offers and not any(offer.facts.name in priority for offer in offers):
        offered = ", ".join(offer.facts.name for offer in offers)
        raise JoinRefused(
            f"the relay serves {', '.join(priority) or 'no model'}, not {offered}: leave --model out, "
            "or ask its operator to add the model to MODELS"
        )
    if not useful:
        raise JoinRefused(
            "this volunteer can hold no block of any model that the swarm serves "
            f"({', '.join(priority) or 'none'}): free memory, allow more with --memory, "
            "or offer one of these with --model"
        )
    useful.sort(key=lambda offer: priority.index(offer.facts.name))
    chosen = min(useful, key=lambda offer: _weakest(offer, everyone))
    mine = [other for other in everyone if other.model == chosen.facts.name]
    span = _span_for(chosen, speed, mine)
    needs_head = span.start == 0 or not any(other.head for other in mine)
    return Placement(chosen.facts.name, span, chosen.can_hold_head and needs_head)


def _throughputs(blocks: int, held: Iterable[Held]) -> list[float]:
    """Tokens per second of each block: a volunteer's speed is shared by the blocks of its span."""
    totals = [0.0] * blocks
    for other in held:
        share = _believed(other.blocks_per_second) / len(other.span)
        for block in range(other.span.start, min(other.span.end, blocks)):
            totals[block] += share
    return totals


def _typical(held: Iterable[Held]) -> float:
    """What is supposed of a volunteer that has not measured yet: else it would look slow beside others."""
    measured = [other.blocks_per_second for other in held if other.blocks_per_second]
    return median(measured) if measured else UNMEASURED_SPEED


def _believed(speed: float) -> float:
    return min(max(speed, SLOWEST), FASTEST)


def _weakest(offer: ModelOffer, everyone: Iterable[Held]) -> float:
    mine = (other for other in everyone if other.model == offer.facts.name)
    return min(_throughputs(offer.facts.blocks, mine))


def _span_for(offer: ModelOffer, speed: float, held: Iterable[Held]) -> Span:
    blocks = offer.facts.blocks
    if offer.wanted_start is not None or offer.wanted_end is not None:
        return _wanted_span(offer, offer.wanted_start, offer.wanted_end)
    length = min(offer.max_blocks, blocks)
    before = _throughputs(blocks, held)
    share = _believed(speed) / length

    def after(start: int) -> list[float]:
        raised = [value + share * (start <= block < start + length) for block, value in enumerate(before)]
        return sorted(raised)

    start = max(range(blocks - length + 1), key=after)
    return Span(start, start + length)


def _wanted_span(offer: ModelOffer, start: int | None, end: int | None) -> Span:
    if start is None or end is None:
        raise JoinRefused("a wanted span needs both its start and its end: give both, or neither")
    if not start < end <= offer.facts.blocks:
        raise JoinRefused(
            f"blocks {start}:{end} are not in {offer.facts.name!r}, which has blocks 0:{offer.facts.blocks}"
        )
    if end - start > offer.max_blocks:
        raise JoinRefused(
            f"blocks {start}:{end} were asked for, but only {offer.max_blocks} blocks fit: "
            "ask for fewer, or quantize"
        )
    return Span(start, end)
