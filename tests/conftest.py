"""Swarms of real processes that several journeys share: started once, on free ports, with one thread each."""

import os
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from benchmarks.forking import FORK_SERVER, end_server
from benchmarks.processes import RelayProcess, Volunteer, relay, volunteers

# Exact comparisons need products that do not depend on where in memory a matrix lies. On processors without
# AVX-512 those of MKL do, unless it is told otherwise before its first call. Child processes inherit it.
os.environ.setdefault("MKL_CBWR", "AUTO,STRICT")

DEMO_MODEL = "corolla-demo"
DEMO_SPANS = {"anemone": "0:4", "bellis": "4:8", "crocus": "8:12"}
EXACT = ("--kernels", "library")
"""For volunteers whose tokens are compared: the fastest kernels' last bits depend on a measurement."""


@dataclass(frozen=True)
class Swarm:
    """A relay and the volunteers that serve the demo model together."""

    relay: RelayProcess
    volunteers: list[Volunteer]
    client_token: str

    @property
    def url(self) -> str:
        return self.relay.url


@pytest.fixture(scope="session", autouse=True)
def fork_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Volunteers are forks of a process that knows their libraries: hundreds of times seconds of a core."""
    if not hasattr(os, "pidfd_open"):
        yield
        return
    path = tmp_path_factory.mktemp("forks") / "socket"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(FORK_SERVER, str(path))
        yield
    end_server(path)


@pytest.fixture(scope="session")
def swarm() -> Iterator[Swarm]:
    """The demo model over three volunteers, open to pages."""
    with relay(DEMO_MODEL) as server, volunteers(server, DEMO_SPANS, *EXACT) as running:
        yield Swarm(server, running, server.token("client", "tests"))


@pytest.fixture(scope="session")
def lonely_relay() -> Iterator[RelayProcess]:
    """A relay that no volunteer has joined."""
    with relay(DEMO_MODEL) as server:
        yield server
