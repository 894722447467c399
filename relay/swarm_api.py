"""`/api`: the swarm, its models, its volunteers, its last day, and the way that a session would take.

Everything but a volunteer's evidence is read from memory. What a version tells to be the same is
not sent again (RFC 9110 section 13.1.2). Does not know how anything is found out.
"""

import time
from collections import defaultdict

import msgspec
from msgspec.structs import replace
from starlette.requests import Request
from starlette.responses import Response

from relay.access import require_viewer
from relay.http import json_response, parse_query
from relay.overview import contribution, model_detail, preview, shown_leaders, volunteer_page
from relay.reports import NO_VOLUNTEER, report
from relay.services import Services, services_of
from relay.swarm import Volunteer
from schema.errors import NotFound
from schema.history import HistoryQuery, LeaderboardQuery
from schema.ids import PeerId, is_peer_id
from schema.overview import ModelDetails, RouteQuery, VolunteerQuery


async def swarm(request: Request) -> Response:
    """`GET /api/swarm`: everything, for everyone who may chat."""
    await require_viewer(request)
    services = services_of(request.scope)
    return _unchanged(request, services) or _answer(services, services.swarm.status())


async def models(request: Request) -> Response:
    """`GET /api/models`: every model with who holds what of it."""
    await require_viewer(request)
    services = services_of(request.scope)
    if (same := _unchanged(request, services)) is not None:
        return same
    placed: defaultdict[str, list[Volunteer]] = defaultdict(list)
    for one in services.swarm.volunteers():
        placed[one.placement.model].append(one)
    names = services.swarm.priority
    return _answer(
        services, ModelDetails(models=[model_detail(services.swarm, name, placed[name]) for name in names])
    )


async def model(request: Request) -> Response:
    """`GET /api/models/{id}`: one of them."""
    await require_viewer(request)
    services, name = services_of(request.scope), request.path_params["id"]
    services.swarm.facts(name)  # before `If-None-Match`: what is not there has no version
    placed = (one for one in services.swarm.volunteers() if one.placement.model == name)
    return _unchanged(request, services) or _answer(services, model_detail(services.swarm, name, placed))


async def volunteers(request: Request) -> Response:
    """`GET /api/volunteers`: a page of them."""
    await require_viewer(request)
    services, query = services_of(request.scope), parse_query(request, VolunteerQuery)
    return _unchanged(request, services) or _answer(services, volunteer_page(services.swarm, query))


async def volunteer(request: Request) -> Response:
    """`GET /api/volunteers/{id}`: a volunteer's score, and why."""
    await require_viewer(request)
    services = services_of(request.scope)
    peer = PeerId(request.path_params["id"])
    if not is_peer_id(peer):
        raise NotFound(NO_VOLUNTEER.format(peer))
    now = time.time()
    evidence = await services.standings.evidence(peer, now)
    here = services.swarm.get(peer)
    done = await services.contributions.of(peer, now)
    if here is None and not evidence and done is None:
        raise NotFound(NO_VOLUNTEER.format(peer))
    status = services.swarm.volunteer_status(peer)
    found = replace(report(peer, evidence, now, status), contribution=contribution(done))
    if here is not None:
        found = replace(found, memory=here.memory, since=here.joined_at)
    return json_response(found)


async def route(request: Request) -> Response:
    """`GET /api/route`: which way a session would take now."""
    await require_viewer(request)
    query = parse_query(request, RouteQuery)
    return json_response(preview(services_of(request.scope).swarm, query.model))


async def leaderboard(request: Request) -> Response:
    """`GET /api/leaderboard`: the volunteers that have done most for others."""
    await require_viewer(request)
    services, query = services_of(request.scope), parse_query(request, LeaderboardQuery)
    board = await services.leaderboard.of(query.days, time.time())
    version = f"l{board.version}"
    return _unchanged(request, services, version) or _answer(
        services, shown_leaders(services.swarm, board.leaders), version
    )


async def history(request: Request) -> Response:
    """`GET /api/history`: the last minutes, and what happened with volunteers in them."""
    await require_viewer(request)
    services, query = services_of(request.scope), parse_query(request, HistoryQuery)
    version = f"h{services.history.version}"
    return _unchanged(request, services, version) or _answer(
        services, services.history.shown(query.minutes), version
    )


def _tag(services: Services, version: str | None) -> str:
    """Another one of each replica, and after a restart. Weak: figures of load may differ.

    `version`: of what is shown; None: the swarm's.
    """
    shown = services.swarm.version if version is None else version
    return f'W/"{services.replicas.neighbours.key}-{shown}"'


def _headers(services: Services, version: str | None) -> dict[str, str]:
    return {"ETag": _tag(services, version), "Cache-Control": "private, no-cache"}


def _unchanged(request: Request, services: Services, version: str | None = None) -> Response | None:
    """304 where the client has what it would be sent."""
    known = {tag.strip() for tag in request.headers.get("if-none-match", "").split(",")}
    is_known = not known.isdisjoint((_tag(services, version), "*"))
    return Response(status_code=304, headers=_headers(services, version)) if is_known else None


def _answer(services: Services, body: msgspec.Struct, version: str | None = None) -> Response:
    return json_response(body, headers=_headers(services, version))
