"""The swarm in detail, as people are shown it: who holds what of a model, which way a session would take.

Pure: reads the swarm, makes shapes of schema/overview.py. Grants nothing: a route that is shown is unsigned.
"""

import heapq
from collections import Counter
from collections.abc import Iterable

from msgspec import UNSET
from msgspec.structs import asdict

from relay.planner import plan
from relay.records import Leader
from relay.sizes import bytes_of_blocks
from relay.swarm import Swarm, Volunteer
from schema.errors import ModelUnavailable
from schema.history import Leaderboard, LeaderboardEntry
from schema.ids import PeerId, Span
from schema.overview import (
    BlocksHeld,
    ModelDetail,
    RouteHop,
    RoutePreview,
    SpanHeld,
    VolunteerPage,
    VolunteerQuery,
)
from schema.swarm import Contribution


def model_detail(swarm: Swarm, model: str, volunteers: Iterable[Volunteer]) -> ModelDetail:
    """One model with its coverage. `volunteers`: those of the swarm that were given blocks of it.

    Raises:
        NotFound: this swarm does not serve it.
    """
    status, facts = swarm.model_status(model), swarm.facts(model)
    spans = _spans(volunteers)
    if facts is None:
        return ModelDetail(**asdict(status), spans=spans)
    return ModelDetail(
        **asdict(status),
        family=facts.family,
        parameters=facts.parameters,
        block_bytes=bytes_of_blocks(facts, [Span(0, 1)]) or UNSET,
        coverage=_coverage([swarm.candidates(model).held().get(block, 0) for block in range(facts.blocks)]),
        spans=spans,
    )


def _coverage(holders: list[int]) -> list[BlocksHeld]:
    """`holders`: how many serve each block."""
    found: list[BlocksHeld] = []
    start = 0
    for end in range(1, len(holders) + 1):
        if end == len(holders) or holders[end] != holders[start]:
            found.append(BlocksHeld(start=start, end=end, holders=holders[start]))
            start = end
    return found


def _spans(volunteers: Iterable[Volunteer]) -> list[SpanHeld]:
    held, serving = Counter[tuple[int, int, bool]](), Counter[tuple[int, int, bool]]()
    for one in volunteers:
        place = one.placement
        key = place.span.start, place.span.end, place.head
        held[key] += 1
        serving[key] += one.shown_state == "serving"
    return [
        SpanHeld(start=start, end=end, head=head, volunteers=count, serving=serving[start, end, head])
        for (start, end, head), count in sorted(held.items())
    ]


def volunteer_page(swarm: Swarm, query: VolunteerQuery) -> VolunteerPage:
    """Volunteers by id, as far as the query lets them through."""
    wanted = (
        one
        for one in swarm.volunteers()
        if (query.model is UNSET or one.placement.model == query.model)
        and (query.state is UNSET or one.shown_state == query.state)
        and (query.after is UNSET or one.peer.id > query.after)
    )
    found = heapq.nsmallest(query.limit + 1, wanted, key=lambda one: one.peer.id)
    shown = [status for one in found[: query.limit] if (status := swarm.volunteer_status(one.peer.id))]
    return VolunteerPage(
        volunteers=shown, next=found[query.limit - 1].peer.id if len(found) > query.limit else None
    )


def shown_leaders(swarm: Swarm, leaders: Iterable[Leader]) -> Leaderboard:
    """Those that have done most, with the scores that they have now."""
    return Leaderboard(
        volunteers=[
            LeaderboardEntry(
                id=one.peer,
                name=one.name or one.peer,
                blocks_steps=one.blocks_steps,
                replies=one.replies,
                score=_score(swarm, one.peer),
                hours=one.hours,
            )
            for one in leaders
        ]
    )


def contribution(done: Leader | None) -> Contribution:
    """What a volunteer has done; None: nothing."""
    if done is None:
        return Contribution(blocks_steps=0, replies=0, hours=0)
    return Contribution(blocks_steps=done.blocks_steps, replies=done.replies, hours=done.hours)


def _score(swarm: Swarm, peer: PeerId) -> float | None:
    volunteer = swarm.get(peer)
    return None if volunteer is None else round(volunteer.score, 3)


def preview(swarm: Swarm, model: str) -> RoutePreview:
    """The way that a session of the least busy head would take now.

    Raises:
        NotFound: this swarm does not serve it. ModelUnavailable: it cannot answer now; says why.
    """
    head = swarm.require_heads(model)[0]
    facts = swarm.facts(model)
    if facts is None:
        raise ModelUnavailable(f"no volunteer has joined for {model!r} yet")
    found = plan(swarm.candidates(model), Span(0, facts.blocks), head.peer.id)
    hops = [
        RouteHop(
            volunteer=leg.peer,
            name=_name(swarm, leg.peer),
            start=leg.start,
            end=leg.end,
            seconds=leg.candidate.price.of(leg.end - leg.start),
        )
        for leg in found.legs
    ]
    return RoutePreview(
        model=model, head=head.peer.id, head_name=head.peer.name, hops=hops, seconds=found.seconds
    )


def _name(swarm: Swarm, peer: PeerId) -> str:
    volunteer = swarm.get(peer)
    return volunteer.peer.name if volunteer else peer
