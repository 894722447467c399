"""`python -m relay serve`: the relay behind uvicorn, until a signal ends it.

Knows how sockets are set up. Does not know what is served on them: that is relay/app.py.
"""

import argparse
import signal
import socket
import sys
from typing import Any, cast

import uvicorn

from relay.commands.base import run_with_store
from relay.errors import OperatorError
from relay.extras import missing_extras
from relay.garbage import GarbageCollection
from relay.handover import hand_over
from relay.http_protocol import HttpProtocol
from relay.logs import configure_logs
from relay.services import Services
from relay.settings import Settings
from relay.store import Store
from relay.websocket import WebSocketProtocol
from schema.protocol import MAX_FRAME_BYTES

SWITCH_SECONDS = 0.5e-3
"""How long a thread computes before another one may: frames wait for it, and Python's own 5 ms is long."""
GRACE_SECONDS = 5
"""How long what is left after `DRAIN_SECONDS` may take to be closed; platforms kill after 10 to 30 s."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(run=serve)


def serve(settings: Settings, arguments: argparse.Namespace) -> int:
    """Serve until SIGINT or SIGTERM. The exit code is 1 when the server could not start.

    Raises:
        DatabaseRefused, Unavailable: before anything is served.
        OperatorError: the address is taken, a library is missing, or something else failed and is in the log.
    """
    from relay.app import create_app

    missing = next(missing_extras(settings), None)
    if missing is not None:
        raise OperatorError(f"{missing.variable} needs the extra {missing.extra}: {missing.remedy}")
    configure_logs(settings)
    sys.setswitchinterval(SWITCH_SECONDS)
    run_with_store(settings, Store.ping)
    # uvicorn repeats a signal when it has shut down: being told to stop, and stopping, is no failure.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    server = RelayServer(server_config(settings, create_app(settings)))
    try:
        server.run()
    except KeyboardInterrupt:
        return 0
    except SystemExit as error:  # how uvicorn gives up; it has logged the cause
        if not server.is_prepared:
            raise OperatorError("the relay cannot start: what the log says above is why") from error
        taken = f"cannot listen on {settings.host} port {settings.port}"
        raise OperatorError(f"{taken}: stop what listens there, or set HOST and PORT to others") from error
    return 0 if server.started else 1


class RelayServer(uvicorn.Server):
    """uvicorn's server, which hands over before it closes anything, and looks for garbage in small steps."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self._garbage = GarbageCollection(lambda: len(self.server_state.connections))

    @property
    def is_prepared(self) -> bool:
        """Whether the application has all its parts, so that only listening was left to do."""
        return "services" in self.lifespan.state

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        self._garbage.start()
        try:
            await super().serve(sockets)
        finally:
            self._garbage.stop()

    async def on_tick(self, counter: int) -> bool:
        self._garbage.step()
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        for server in self.servers:
            server.close()
        services = cast(Services, self.lifespan.state["services"])
        await hand_over(services, lambda: self.force_exit)
        await super().shutdown(sockets)


def server_config(settings: Settings, app: Any) -> uvicorn.Config:
    """How uvicorn serves `app`, an ASGI application.

    Peers have a heartbeat of their own, activations do not compress, and the relay logs for itself.
    """
    return uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        http=HttpProtocol,
        ws=WebSocketProtocol,
        ws_max_size=MAX_FRAME_BYTES,
        ws_per_message_deflate=False,
        ws_ping_interval=None,
        ws_ping_timeout=None,
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=GRACE_SECONDS,
    )
