"""Where the next decode step is near the relay does not sleep, if it is told so."""

import asyncio

import pytest

from schema.awake import StayingAwake
from schema.frames import FrameType
from tests.relay.core.swarmlet import Swarmlet

LONG = 60.0


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


async def turns_of_the_loop() -> None:
    for _ in range(3):
        await asyncio.sleep(0)


async def test_steps_close_behind_one_another_keep_it_awake_until_no_more_come() -> None:
    clock = Clock()
    awake = StayingAwake(0.01, clock)
    awake.step_passed()
    assert not awake.is_awake
    clock.now = 0.009
    awake.step_passed()
    for clock.now in (0.009, 0.018):
        await turns_of_the_loop()
        assert awake.is_awake
    clock.now = 0.02
    await turns_of_the_loop()
    assert not awake.is_awake


async def test_steps_that_are_far_apart_do_not() -> None:
    clock = Clock()
    awake = StayingAwake(0.01, clock)
    for clock.now in (1.0, 1.1, 1.2):
        awake.step_passed()
        assert not awake.is_awake


@pytest.mark.parametrize(
    ("kind", "keeps_awake"), [(FrameType.STEP, True), (FrameType.PREFILL, False), (FrameType.PROBE, False)]
)
async def test_only_decode_steps_count(kind: FrameType, keeps_awake: bool) -> None:
    awake = StayingAwake(LONG)
    swarmlet = Swarmlet(awake)
    for step in range(2):
        frame = swarmlet.journey.frame(0, kind=kind, step=step)
        swarmlet.forwarder.forward(swarmlet.peers[0], frame)
    assert awake.is_awake is keeps_awake
