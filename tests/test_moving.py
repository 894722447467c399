"""The relay moves a volunteer to other blocks while a reply goes over it: real processes."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.garden import HEAD, LAST, MIDDLE, Garden, garden, make_model, wait_until

pytestmark = pytest.mark.slow

QUESTION = "3 14 159 26 5 358"
LONG = 600
"""Tokens of a reply in whose midst its volunteer is moved."""
MOVER = "daisy"


@pytest.fixture
def swarm(tmp_path: Path) -> Iterator[Garden]:
    with garden(make_model(tmp_path / "tiny"), REBALANCE_SECONDS="0.3") as planted:
        yield planted


def plant_a_second_middle(swarm: Garden) -> None:
    """One that may be moved, over the blocks of the middle volunteer, which seem to be missing meanwhile."""
    swarm.pause(MIDDLE)
    swarm.plant(MOVER, "--max-blocks", "4")
    wait_until(lambda: swarm.state(MOVER) == "serving", f"{MOVER} serves")
    assert blocks_of(swarm) == (4, 8)


def blocks_of(swarm: Garden) -> tuple[int | None, int | None]:
    status = swarm.status(MOVER)
    return (None, None) if status is None else (status.start, status.end)


def test_a_volunteer_is_moved_to_missing_blocks_and_drops_no_reply(swarm: Garden) -> None:
    swarm.mend()
    undisturbed = swarm.say(QUESTION, LONG)
    plant_a_second_middle(swarm)
    with swarm.chat(QUESTION, LONG) as chat:
        chat.wait_for_text()
        swarm.resume(MIDDLE)
        swarm.pause(LAST)  # its blocks are missing for new replies, and this one goes on
        wait_until(lambda: blocks_of(swarm) == (8, 12), f"{MOVER} is given the missing blocks")
        assert swarm.state(MOVER) == "loading"
        assert not chat.finish_reason, "it was moved too late for this test"
        chat.wait_for_end()
    assert (chat.error, chat.finish_reason, chat.text) == (None, "length", undisturbed)
    assert "goes on over another route" not in swarm.log(HEAD)
    wait_until(lambda: swarm.state(MOVER) == "serving", f"{MOVER} serves the other blocks")
    assert undisturbed.startswith(swarm.say(QUESTION, 24))
    assert "other blocks given: 8:12" in swarm.log(MOVER)
