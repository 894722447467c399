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
from starlette.requests import ClientDisconnect
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.types import Receive, Scope

from relay import (
    docs,
    events,
    jobs,
    joining_guide,
    operators_api,
    own_api,
    pages,
    petals_api,
    rest,
    sessions,
    sockets,
    swarm_api,
    tokens_api,
    web_files,
)
from relay.admission import Admission, Limits
from relay.allowances import Allowances
from relay.batches import batches_api, files_api
from relay.batches.running import Batches
from relay.batches.storage import open_storage
from relay.batches.uploads import Uploading
from relay.bus import Bus, InProcessBus
from relay.contributions import Contributions
from relay.counting import CountRequests
from relay.feed import Feed
from relay.forwarding import Forwarder
from relay.handing_out import HandingOut
from relay.history import HistoryOfSwarm
from relay.hub import Hub
from relay.joining import Joining
from relay.kept_replies import KeepLimits, KeptReplies
from relay.leaderboard import Leaderboard
from relay.metrics import Metrics
from relay.neighbours import Neighbours
from relay.open_pages import OpenPages
from relay.outcomes import Outcomes
from relay.peer import Send
from relay.pictures import Pictures
from relay.probing import Probing
from relay.quarantine import Quarantine
from relay.refusals import Refusals
from relay.replicas import Replicas
from relay.replies import Accounts, Replies
from relay.revocation import Revocation
from relay.routing import Routing
from relay.services import Services
from relay.settings import Settings
from relay.standings import Standings
from relay.store import Store
from relay.swarm import Swarm
from relay.usage import UsageAccount
from schema.awake import StayingAwake
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
            await store.renew_lease(time.time())
            await services.replicas.neighbours.open()
            await jobs.meet_replicas(services)
            await services.quarantine.look()
            tasks = [asyncio.create_task(jobs.repeat(job, services)) for job in jobs.JOBS]
            tasks.append(asyncio.create_task(services.replicas.announce_changes()))
            tasks.append(asyncio.create_task(services.feed.run()))
            tasks.append(asyncio.create_task(services.batches.run(services)))
            try:
                yield {"services": services}
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
                await services.kept_replies.close()
                await services.replicas.neighbours.close()
                await _write_evidence(services)
                await _write_usage(services)
                await _remove_rows(services)

    return Starlette(
        routes=[
            WebSocketRoute("/ws/peer", RawASGI(sockets.peer_endpoint)),
            WebSocketRoute("/ws/chat", RawASGI(pages.page_endpoint)),
            WebSocketRoute("/api/v2/generate", RawASGI(petals_api.generate_endpoint)),
            Route("/api/v1/generate", petals_api.generate, methods=["GET", "POST"]),
            Route("/v1/chat/completions", rest.ask, methods=["POST"]),
            Route("/v1/completions", rest.ask, methods=["POST"]),
            Route("/v1/responses", rest.ask, methods=["POST"]),
            Route("/v1/embeddings", rest.embeddings, methods=["POST"]),
            Route("/v1/models", rest.models),
            Route("/v1/models/{id:path}", rest.model),
            Route(files_api.FILES, files_api.FilesEndpoint),
            Route(files_api.FILE, files_api.FileEndpoint),
            Route(files_api.CONTENT, files_api.file_content),
            Route(batches_api.BATCHES, batches_api.BatchesEndpoint),
            Route(batches_api.BATCH, batches_api.batch),
            Route(batches_api.CANCEL, batches_api.cancel, methods=["POST"]),
            Route(batches_api.SECRET, batches_api.webhook_secret),
            Route("/api/swarm", swarm_api.swarm),
            Route("/api/models", swarm_api.models),
            Route("/api/models/{id:path}", swarm_api.model),
            Route("/api/volunteers", swarm_api.volunteers),
            Route("/api/volunteers/{id}", swarm_api.volunteer),
            Route("/api/volunteers/{id}/quarantine", operators_api.quarantine, methods=["POST"]),
            Route("/api/volunteers/{id}/restore", operators_api.restore, methods=["POST"]),
            Route("/api/admin/volunteers", operators_api.volunteers),
            Route("/api/admin/volunteers/{id}", operators_api.volunteer),
            Route("/api/route", swarm_api.route),
            Route("/api/events", events.events),
            Route("/api/history", swarm_api.history),
            Route("/api/leaderboard", swarm_api.leaderboard),
            Route("/api/sessions", own_api.sessions),
            Route("/api/tokens", tokens_api.TokensEndpoint),
            Route("/api/tokens/me", tokens_api.OwnTokenEndpoint),
            Route("/api/tokens/me/usage", tokens_api.own_usage),
            Route("/api/tokens/{id}", tokens_api.TokenEndpoint),
            Route("/api/tokens/{id}/usage", tokens_api.usage),
            Route("/api/session", sessions.SessionEndpoint),
            Route("/api/join", joining_guide.guide),
            Route("/api/join/refusal", joining_guide.refusal),
            Route("/healthz", rest.healthz),
            Route("/readyz", rest.readyz),
            Route("/metrics", rest.metrics),
            Route("/openapi.json", docs.openapi),
            Route("/docs", docs.docs),
            *(Route(path, web_files.page(name)) for path, name in web_files.PAGES.items()),
            Mount("/static", web_files.WebFiles(directory=web_files.WEB)),
        ],
        middleware=[Middleware(CountRequests)],
        exception_handlers={
            CorollaError: rest.on_error,
            ClientDisconnect: rest.on_client_left,
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
    awake = StayingAwake(settings.awake_seconds) if settings.awake_seconds else None
    forwarder = Forwarder(hub, metrics, secret, outcomes, awake)
    routing = Routing(swarm, secret, settings.route_seconds)
    refusals = Refusals()
    replicas = Replicas(hub, swarm, forwarder, refusals, settings.queue_bytes)
    neighbours = Neighbours(
        bus or _open_bus(settings, secret), replicas, metrics, settings.replica, settings.queue_bytes
    )
    usage, contributions = UsageAccount(), Contributions(store, outcomes, swarm)
    metrics.watch_dropped(lambda: {"usage": usage.dropped, "contributions": contributions.dropped})
    history = HistoryOfSwarm(swarm, time.time())
    accounts = Accounts(metrics, usage, history, outcomes)
    replies = Replies(hub, swarm, secret, neighbours.key, accounts)
    replicas.use(neighbours, replies)
    refusals.use(neighbours)
    keep = KeepLimits(settings.keep_seconds, settings.kept_replies, settings.kept_bytes)
    kept_replies = KeptReplies(keep, metrics)
    metrics.watch_queues(lambda: sum(peer.queued_bytes for peer in hub))
    metrics.watch_volunteers(lambda: Counter(volunteer.shown_state for volunteer in swarm.volunteers_here()))
    metrics.watch_outcomes(outcomes)
    admission = Admission(
        Limits(
            settings.head_replies, settings.waiting_replies, settings.token_replies, settings.waiting_seconds
        ),
        swarm.head_count,
    )
    metrics.watch_admission(lambda: (admission.waiting, admission.waited))
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
        contributions=contributions,
        leaderboard=Leaderboard(store),
        forwarder=forwarder,
        routing=routing,
        joining=Joining(store, swarm, routing, forwarder, settings, standings),
        refusals=refusals,
        revocation=Revocation(store, (hub, kept_replies, replies), time.time()),
        quarantine=Quarantine(store, swarm, hub),
        probing=Probing(swarm, routing, forwarder, metrics, settings.probe_seconds),
        replies=replies,
        kept_replies=kept_replies,
        open_pages=OpenPages(settings.pages, settings.token_pages),
        admission=admission,
        allowances=Allowances(store, usage),
        handing_out=HandingOut(settings),
        replicas=replicas,
        usage=usage,
        feed=Feed(swarm),
        pictures=Pictures(swarm),
        history=history,
        storage=open_storage(settings),
        uploading=Uploading(),
        batches=Batches(store, swarm, admission, settings),
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
        await services.contributions.write()
    except CorollaError as error:
        log.warning("what was seen last of volunteers is lost: %s", error.message)


async def _write_usage(services: Services) -> None:
    try:
        await services.usage.write(services.store)
    except CorollaError as error:
        log.warning("what tokens have used last is lost: %s", error.message)


async def _remove_rows(services: Services) -> None:
    try:
        await services.store.remove_replica(services.settings.replica)
    except CorollaError as error:
        log.warning("the volunteers' rows stay until this replica's lease ends: %s", error.message)


def _version() -> str:
    try:
        return version("corolla")
    except PackageNotFoundError:
        return "unreleased"
