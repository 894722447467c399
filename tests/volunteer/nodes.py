"""Volunteers in the test's own process, and what they are sent."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest
import torch

from corolla.tensors import to_wire
from schema.errors import CorollaError
from schema.frames import Flags, Frame, FrameType
from schema.generation import GenerationRequest, Sampling, Stopping
from schema.ids import SessionId, Span
from schema.messages import Assignment, Generate, RouteRequest
from schema.routes import Hop
from schema.tensors import encode_tensors
from tests.corolla.fakes import BELLIS, ME, grant_of, route_of
from tests.corolla.tiny_text import SHAPE
from tests.volunteer.scripted_relay import PATIENCE_SECONDS, ScriptedRelay
from volunteer.config import Config
from volunteer.device import DeviceThread
from volunteer.loading import Candidate, LoadedPart, Loader
from volunteer.node import Node
from volunteer.progress import ReportProgress

SERVED = Span(0, 2)
"""What the relay gives to every volunteer here, unless told otherwise."""


class GatedLoader(Loader):
    """Loads only when `gate` is set."""

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.gate = asyncio.Event()
        self.gate.set()
        self.entered = asyncio.Event()

    async def load(
        self,
        device: DeviceThread,
        candidate: Candidate,
        assigned: Assignment,
        progress: ReportProgress,
    ) -> LoadedPart:
        self.entered.set()
        await self.gate.wait()
        return await super().load(device, candidate, assigned, progress)


class RunningNode:
    """A node with a device thread and a task of its own, ended with the test."""

    def __init__(self, config: Config, device: DeviceThread) -> None:
        self.loader = GatedLoader(config)
        self.device = device
        self.node = Node(config, "tests", self.loader, device)
        self.task = asyncio.create_task(self.node.run())

    async def leave(self) -> None:
        self.node.stop()
        await asyncio.wait_for(self.task, PATIENCE_SECONDS)

    async def error(self) -> CorollaError:
        """Why it could not go on."""
        with pytest.raises(CorollaError) as caught:
            await asyncio.wait_for(self.task, PATIENCE_SECONDS)
        return caught.value

    async def wait_for_sessions(self, count: int) -> None:
        """Return when the device holds so many KV caches."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            while self.device.stats().sessions != count:
                await self.device.call(lambda: None)  # a turn of the device thread


Start = Callable[[Config], Awaitable[RunningNode]]


def work(session: SessionId, position: int = 0, span: Span = SERVED) -> Frame:
    """A step of a session that another peer drives, over this volunteer alone."""
    payload = encode_tensors([to_wire(torch.zeros(1, 3, SHAPE.hidden))])
    route = route_of(Hop(ME, span), session=session, origin=BELLIS)
    return Frame(FrameType.STEP, 0, session, 0, position, route, payload, flags=Flags.LAST_ONLY)


def closing(session: SessionId) -> Frame:
    route = route_of(Hop(ME, SERVED), session=session, origin=BELLIS)
    return Frame(FrameType.CLOSE, 0, session, 0, 0, route, b"")


def whole(relay: ScriptedRelay, config: Config) -> Config:
    """The relay gives it the whole model."""
    relay.assignment = Assignment(model="tiny", start=0, end=SHAPE.blocks, head=True)
    return config


def generate(max_tokens: int) -> Generate:
    body = GenerationRequest(
        model="tiny",
        prompt=[1, 2, 3],
        sampling=Sampling(temperature=0),
        stopping=Stopping(max_tokens=max_tokens),
    )
    return Generate(request="r", body=body)


async def grant_route(relay: ScriptedRelay) -> None:
    """Grant the route that a head has asked for: over that very volunteer."""
    await relay.wait_for(lambda: relay.of(RouteRequest))
    request = relay.of(RouteRequest)[-1]
    session = SessionId(bytes.fromhex(request.session))
    await relay.send(grant_of(route_of(Hop(ME, Span(0, SHAPE.blocks)), session=session), request.request))
