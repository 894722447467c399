"""A real relay in the test's event loop: uvicorn as the `serve` command sets it up, on port 0."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import uvicorn
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy.ext.asyncio import create_async_engine
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.asyncio.client import ClientConnection, connect

from relay.app import create_app
from relay.bus import Bus
from relay.commands.serve import server_config
from relay.services import Services
from relay.settings import Settings
from schema.credentials import TokenKind
from schema.ids import Span, model_key, new_instance_key, new_session_id
from schema.protocol import MAX_FRAME_BYTES
from schema.routes import Hop, Route, sign_route
from tests.relay.core.peers import FACTS, MODEL, Journey, ScriptedPeer
from tests.relay.core.waiting import eventually


def sqlite_url(file: Path) -> str:
    return f"sqlite+aiosqlite:///{file}"


@asynccontextmanager
async def running_relay(
    database: Path,
    protocol: type[asyncio.Protocol] | None = None,
    bus: Bus | None = None,
    **settings: Any,
) -> AsyncIterator["RunningRelay"]:
    """A relay on a free port and a SQLite file; its peers are hung up before it stops."""
    defaults: dict[str, Any] = {
        "models": (MODEL,),
        "heartbeat_seconds": 60.0,
        "database_url": sqlite_url(database),
    }
    app = create_app(Settings(port=0, **(defaults | settings)), bus)
    server = uvicorn.Server(server_config(Settings(port=0), app))
    server.config.ws = protocol or server.config.ws
    server.config.load()
    server.lifespan = server.config.lifespan_class(server.config)
    await server.startup()
    try:
        async with AsyncExitStack() as peers:
            port = server.servers[0].sockets[0].getsockname()[1]
            yield RunningRelay(port, server.lifespan.state["services"], peers, server)
    finally:
        await _stop(server)


async def _stop(server: uvicorn.Server) -> None:
    """What `Server.shutdown` does, without its pauses."""
    for listener in server.servers:
        listener.close()
    for connection in list(server.server_state.connections):
        if connection.transport.is_closing():
            connection.transport.abort()  # it waits for somebody to read; `shutdown` would fail here
        else:
            connection.shutdown()
    await eventually(lambda: not server.server_state.connections and not server.server_state.tasks)
    await server.lifespan.shutdown()


async def _hang_up(dialled: ClientConnection) -> None:
    """End a connection without waiting for the other side."""
    dialled.transport.abort()
    await dialled.wait_closed()


@dataclass(frozen=True)
class RunningRelay:
    """A relay that tests dial, and whose inside they may look at."""

    port: int
    services: Services
    peers: AsyncExitStack
    server: uvicorn.Server

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def refusals(self, code: str) -> int:
        """How often something was refused for this reason."""
        return self.services.metrics.refusals[code]

    def unfinished_bytes(self) -> int:
        """Bytes that have come of WebSocket messages whose end has not."""
        sockets = [
            one for one in self.server.server_state.connections if isinstance(one, WebSocketsSansIOProtocol)
        ]
        return sum(len(one.conn.reader.buffer) for one in sockets)

    async def token(self, kind: TokenKind = "volunteer", name: str = "tester") -> str:
        return str(await self.services.store.create_token(kind, name, self.url))

    async def socket(self, token: str | None = None, **options: Any) -> ClientConnection:
        """A WebSocket on `/ws/peer` that has said nothing yet."""
        headers = {"Authorization": f"Bearer {token or await self.token()}"}
        dialled = await connect(
            f"ws://127.0.0.1:{self.port}/ws/peer",
            additional_headers=headers,
            compression=None,
            max_size=MAX_FRAME_BYTES,
            ping_interval=None,
            close_timeout=1.0,
            proxy=None,
            **options,
        )
        self.peers.push_async_callback(_hang_up, dialled)
        return dialled

    async def dial(
        self,
        token: str | None = None,
        *,
        kind: TokenKind = "volunteer",
        name: str = "tester",
        instance: str | None = None,
        **options: Any,
    ) -> "ScriptedPeer":
        """A peer that has been welcomed."""
        token = token or await self.token(kind)
        peer = ScriptedPeer(await self.socket(token, **options), token, instance or new_instance_key())
        await peer.shake_hands(name)
        return peer

    async def serving(self, start: int = 0, end: int = FACTS.blocks, **options: Any) -> "ScriptedPeer":
        """A volunteer that serves blocks `[start, end)`. `head`: and the head."""
        head = options.pop("head", False)
        peer = await self.dial(**options)
        await peer.join(start, end, head=head)
        return peer

    def journey(
        self,
        origin: "ScriptedPeer",
        *hops: "ScriptedPeer",
        lives: float = 3600.0,
        secret: bytes | None = None,
    ) -> "Journey":
        """A session with a signed route; every hop takes one block."""
        session = new_session_id()
        stops = tuple(Hop(hop.id, Span(index, index + 1)) for index, hop in enumerate(hops))
        route = Route(origin.id, stops, model_key(MODEL), int(time.time() + lives))
        return Journey(session, sign_route(route, session, secret or self.services.secret))

    async def metric(self, name: str, **labels: str) -> float:
        """One sample of `GET /metrics`."""
        async with httpx.AsyncClient(base_url=self.url) as client:
            text = (await client.get("/metrics")).text
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                if sample.name == f"corolla_{name}" and sample.labels == labels:
                    return sample.value
        raise AssertionError(f"no sample {name} {labels}")


@asynccontextmanager
async def database_away(relay: RunningRelay) -> AsyncIterator[None]:
    """Let every query fail as it does when the database cannot be reached."""
    store = relay.services.store
    nowhere = create_async_engine("sqlite+aiosqlite:////no such folder/corolla.sqlite3")
    engine, store._engine = store._engine, nowhere
    try:
        yield
    finally:
        store._engine = engine
        await nowhere.dispose()
