"""Which span a newcomer loads: a pure function over the swarm and what the newcomer can hold.

The span that raises the model's weakest blocks most: candidates are compared by the block
throughputs after the join, sorted from the weakest, so that holes are filled before anything is
doubled. Among spans that are about as good, the one of which most is on the newcomer's disk already.
Does not know sockets, time or SQL: the caller runs it inside one transaction.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain, repeat
from statistics import median

from relay.throughputs import share_of, summed, with_span
from schema.errors import JoinRefused
from schema.ids import Span
from schema.messages import ModelOffer

UNMEASURED_SPEED = 1.0
"""Blocks per second of volunteers none of which has measured; swarms of these are ranked by count."""
STICKINESS = 0.9
"""A span of which more is on the newcomer's disk is taken if each block is left at least this much as strong,
the weakest compared with the weakest and so on."""


@dataclass(frozen=True, slots=True)
class Held:
    """A span that some volunteer serves or is about to; or several of them."""

    model: str
    span: Span
    head: bool
    blocks_per_second: float
    """Of each, in the mean; 0 when not measured."""
    volunteers: int = 1


@dataclass(frozen=True, slots=True)
class Placement:
    """What a newcomer shall load."""

    model: str
    span: Span
    head: bool
    room: int | None = field(default=None, compare=False)
    """How many blocks it could hold elsewhere; None: it stays where it is."""
    cached: tuple[Span, ...] = field(default=(), compare=False)
    """The blocks that it need not download."""


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
    typical = typical_speed(
        chain.from_iterable(repeat(other.blocks_per_second, other.volunteers) for other in everyone)
    )
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
    room = chosen.room or None
    head = chosen.can_hold_head and needs_head
    return Placement(chosen.facts.name, span, head, room, cached_spans(chosen))


def typical_speed(speeds: Iterable[float]) -> float:
    """What is supposed of a volunteer that has not measured yet: else it would look slow beside others."""
    measured = [speed for speed in speeds if speed]
    return median(measured) if measured else UNMEASURED_SPEED


def _weakest(offer: ModelOffer, everyone: Iterable[Held]) -> float:
    return min(_throughputs(offer.facts.blocks, (one for one in everyone if one.model == offer.facts.name)))


def _throughputs(blocks: int, held: Iterable[Held]) -> list[float]:
    """As `relay.throughputs.throughputs`."""
    return summed(
        blocks, ((one.span, one.volunteers * share_of(one.blocks_per_second, len(one.span))) for one in held)
    )


def _span_for(offer: ModelOffer, speed: float, held: Iterable[Held]) -> Span:
    blocks = offer.facts.blocks
    if offer.wanted_start is not None or offer.wanted_end is not None:
        return _wanted_span(offer, offer.wanted_start, offer.wanted_end)
    length = min(offer.max_blocks, blocks)
    before = _throughputs(blocks, held)
    return choose_span(before, length, speed, cached_spans(offer))


def choose_span(before: Sequence[float], length: int, speed: float, cached: Sequence[Span] = ()) -> Span:
    """The span of that length which leaves the weakest blocks strongest, or one as good that is on disk."""
    spans = [Span(start, start + length) for start in range(len(before) - length + 1)]
    share = share_of(speed, length)
    after = [sorted(with_span(before, span, share)) for span in spans]
    best = max(range(len(spans)), key=after.__getitem__)
    if not cached:
        return spans[best]
    as_good = [number for number in range(len(spans)) if _is_as_good(after[number], after[best])]
    return spans[max(as_good, key=lambda number: (common_blocks(spans[number], cached), after[number]))]


def _is_as_good(some: Sequence[float], best: Sequence[float]) -> bool:
    return all(one >= STICKINESS * other for one, other in zip(some, best, strict=True))


def common_blocks(span: Span, cached: Iterable[Span]) -> int:
    """How many blocks of a span are in the others, which do not overlap."""
    return sum(max(0, min(span.end, one.end) - max(span.start, one.start)) for one in cached)


def cached_spans(offer: ModelOffer) -> tuple[Span, ...]:
    """The blocks that the volunteer need not download, one run of them after the other.

    Raises:
        JoinRefused: they are not runs of this model's blocks, in order.
    """
    reached = 0
    found: list[Span] = []
    for run in offer.cached or ():
        if not reached <= run.start < run.end <= offer.facts.blocks:
            raise JoinRefused(f"{run.start}:{run.end} of the blocks on disk is no run of blocks in order")
        found.append(Span(run.start, run.end))
        reached = run.end
    return tuple(found)


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
