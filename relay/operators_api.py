"""What operators see of volunteers, and decide about them. For admins' tokens.

    POST /api/volunteers/{id}/quarantine   keep it out of routes; POST .../restore: no longer
    GET  /api/admin/volunteers             as everybody sees them, with tokens and quarantines
    GET  /api/admin/volunteers/{id}        one of them, with all its quarantines

Handlers parse, call and encode.
"""

import time
from collections.abc import Iterable, Mapping

from msgspec import UNSET
from starlette.requests import Request
from starlette.responses import Response

from relay.access import require_admin
from relay.http import json_response, parse_body, parse_query
from relay.overview import volunteer_page
from relay.records import QuarantineRecord
from relay.reports import NO_VOLUNTEER
from relay.services import Services, services_of
from schema.errors import NotFound
from schema.ids import PeerId, is_peer_id
from schema.operators import AdminVolunteer, AdminVolunteerPage, Decision, QuarantineInfo
from schema.overview import VolunteerQuery

MOST_QUARANTINED = 1000
_HEADERS = {"Cache-Control": "no-store"}


async def quarantine(request: Request) -> Response:
    """`POST /api/volunteers/{id}/quarantine`."""
    admin, services = await require_admin(request), services_of(request.scope)
    peer = await _known(request, services)
    reason = (await parse_body(request, Decision)).reason
    return json_response(info(await services.quarantine.put(peer, reason, admin.id, time.time())))


async def restore(request: Request) -> Response:
    """`POST /api/volunteers/{id}/restore`."""
    admin, services = await require_admin(request), services_of(request.scope)
    peer = await _known(request, services)
    reason = (await parse_body(request, Decision)).reason
    return json_response(info(await services.quarantine.end(peer, reason, admin.id, time.time())))


async def volunteers(request: Request) -> Response:
    """`GET /api/admin/volunteers`."""
    await require_admin(request)
    services = services_of(request.scope)
    page = volunteer_page(services.swarm, parse_query(request, VolunteerQuery))
    quarantined = await services.store.quarantined()
    known = {one.peer: one for one in quarantined}
    peers = [PeerId(one.id) for one in page.volunteers]
    tokens = await services.store.tokens_of(peers)
    shown = [_shown(services, peer, tokens, [known[peer]] if peer in known else []) for peer in peers]
    every = [info(one) for one in quarantined[:MOST_QUARANTINED]]
    return json_response(
        AdminVolunteerPage(volunteers=shown, next=page.next, quarantined=every), headers=_HEADERS
    )


async def volunteer(request: Request) -> Response:
    """`GET /api/admin/volunteers/{id}`."""
    await require_admin(request)
    services = services_of(request.scope)
    peer = await _known(request, services)
    past = await services.store.quarantines_of(peer)
    return json_response(
        _shown(services, peer, await services.store.tokens_of([peer]), past), headers=_HEADERS
    )


def info(record: QuarantineRecord) -> QuarantineInfo:
    """A quarantine as it is shown."""
    return QuarantineInfo(
        volunteer=record.peer,
        at=record.at,
        reason=record.reason,
        by=record.by,
        ended_at=record.ended_at,
        end_reason=record.end_reason,
        ended_by=record.ended_by,
    )


async def _known(request: Request, services: Services) -> PeerId:
    """The volunteer that is asked about. Raises NotFound: nothing is known of it."""
    peer = PeerId(request.path_params["id"])
    if not is_peer_id(peer):
        raise NotFound(NO_VOLUNTEER.format(peer))
    if services.swarm.get(peer) is None and not await services.store.has_seen(peer):
        raise NotFound(NO_VOLUNTEER.format(peer))
    return peer


def _shown(
    services: Services,
    peer: PeerId,
    tokens: Mapping[PeerId, tuple[str, str]],
    quarantines: Iterable[QuarantineRecord],
) -> AdminVolunteer:
    token, name = tokens.get(peer, (UNSET, UNSET))
    here, status = services.swarm.get(peer), services.swarm.volunteer_status(peer)
    return AdminVolunteer(
        id=peer,
        volunteer=UNSET if status is None else status,
        token=token,
        token_name=name,
        memory=UNSET if here is None else here.memory,
        since=UNSET if here is None else here.joined_at,
        quarantines=[info(one) for one in quarantines],
    )
