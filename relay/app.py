"""The relay as a Starlette application: its routes, and the lifespan that owns everything.

Does not know how anything works: it builds the parts (relay/services.py) and connects them to paths.
"""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from hashlib import blake2b
from importlib.metadata import PackageNotFoundError, version

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.types import Receive, Scope

from relay import jobs, pages, rest, sessions, sockets
from relay.bus import Bus, InProcessBus
from relay.counting import CountRequests
from relay.forwarding import Forwarder
from relay.hub import Hub
from relay.joining import Joining
from relay.metrics import Metrics
from relay.neighbours import Neighbours
from relay.outcomes import Outcomes
from relay.peer import Send
from relay.probing import Probing
from relay.replicas import Replicas
from relay.replies import Replies
from relay.revocation import Revocation
from relay.routing import Routing
from relay.services import Services
from relay.settings import Settings
from relay.standings import Standings
from relay.store import Store
from relay.swarm import Swarm
from schema.errors import CorollaError

log = logging.getLogger(__name__)


class RawASGI:
    """An ASGI function as an object: Starlette takes functions for request handlers."""

    def __init__(self, app: Callable[[Scope, Receive, Send], Awaitable[None]]) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._app(scope, receive, send)


def create_app(settings: Settings, bus: Bus | None = None) -> Starlette:
    """The relay with these settings; its parts live as long as the lifespan.

    `bus`: to other replicas, in place of the one that the settings name.
    """

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncGenerator[dict[str, Services]]:
        async with Store.open(settings) as store:
            services = await build_services(settings, store, bus)
            await store.remove_replica(settings.replica)  # left behind by a process of this name that died
            await services.replicas.neighbours.open()
            await jobs.meet_replicas(services)
            tasks = [asyncio.create_task(jobs.repeat(job, services)) for job in jobs.JOBS]
            tasks.append(asyncio.create_task(services.replicas.announce_changes()))
            try:
                yield {"services": services}
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
                await services.replicas.neighbours.close()
                await _write_evidence(services)
                await _remove_rows(services)

    return Starlette(
        routes=[
            WebSocketRoute("/ws/peer", RawASGI(sockets.peer_endpoint)),
            WebSocketRoute("/ws/chat", RawASGI(pages.page_endpoint)),
            Route("/v1/chat/completions", rest.chat_completions, methods=["POST"]),
            Route("/v1/completions", rest.completions, methods=["POST"]),
            Route("/v1/models", rest.models),
            Route("/api/swarm", rest.swarm),
            Route("/api/volunteers/{id}", rest.volunteer),
            Route("/api/session", sessions.SessionEndpoint),
            Route("/healthz", rest.healthz),
            Route("/readyz", rest.readyz),
            Route("/metrics", rest.metrics),
            Route("/", pages.index),
            Mount("/static", pages.WebFiles(directory=pages.WEB)),
        ],
        middleware=[Middleware(CountRequests)],
        exception_handlers={
            CorollaError: rest.on_error,
            HTTPException: rest.on_http_exception,
            Exception: rest.on_error,
        },
        lifespan=lifespan,
    )


async def build_services(settings: Settings, store: Store, bus: Bus | None = None) -> Services:
    """The parts of one replica, wired."""
    secret = await store.relay_secret()
    await store.seed_models(settings.models)
    metrics = Metrics()
    hub = Hub(settings.heartbeat_seconds)
    swarm = Swarm((record.name, record.facts) for record in await store.list_models())
    outcomes = Outcomes()
    standings = Standings(store, outcomes, swarm)
    forwarder = Forwarder(hub, metrics, secret, outcomes)
    routing = Routing(swarm, secret, settings.route_seconds)
    replicas = Replicas(hub, swarm, forwarder, outcomes, settings.queue_bytes)
    neighbours = Neighbours(
        bus or _open_bus(settings, secret), replicas, metrics, settings.replica, settings.queue_bytes
    )
    replies = Replies(hub, swarm, metrics, secret, neighbours.key)
    replicas.use(neighbours, replies)
    metrics.watch_queues(lambda: sum(peer.queued_bytes for peer in hub))
    metrics.watch_volunteers(lambda: Counter(volunteer.shown_state for volunteer in swarm.volunteers_here()))
    metrics.watch_outcomes(outcomes)
    return Services(
        settings=settings,
        software=f"corolla {_version()}",
        started=int(time.time()),
        secret=secret,
        store=store,
        metrics=metrics,
        hub=hub,
        swarm=swarm,
        outcomes=outcomes,
        standings=standings,
        forwarder=forwarder,
        routing=routing,
        joining=Joining(store, swarm, routing, forwarder, settings, standings),
        revocation=Revocation(store, hub, time.time()),
        probing=Probing(swarm, routing, forwarder, metrics, settings.probe_seconds),
        replies=replies,
        replicas=replicas,
        stopping=asyncio.Event(),
    )


def _open_bus(settings: Settings, secret: bytes) -> Bus:
    if settings.bus_url is None:
        return InProcessBus()
    from relay.nats_bus import NatsBus  # where no bus is configured, its library need not be there

    swarm = blake2b(b"swarm", key=secret, digest_size=6).hexdigest()
    return NatsBus(settings.bus_url, swarm)


async def _write_evidence(services: Services) -> None:
    try:
        await services.standings.write(time.time())
    except CorollaError as error:
        log.warning("what was seen last of volunteers is lost: %s", error.message)


async def _remove_rows(services: Services) -> None:
    try:
        await services.store.remove_replica(services.settings.replica)
    except CorollaError as error:
        log.warning("the volunteers' rows stay until they are stale: %s", error.message)


def _version() -> str:
    try:
        return version("corolla")
    except PackageNotFoundError:
        return "unreleased"
