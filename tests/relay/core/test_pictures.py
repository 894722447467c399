"""relay/pictures.py: a picture of the swarm is drawn once for all pages."""

from relay.pictures import Pictures
from schema.browser import SwarmChanged, encode_to_page
from tests.relay.core.test_swarm import swarm_of, volunteer


async def test_a_picture_is_drawn_once_for_each_version() -> None:
    swarm = swarm_of(volunteer(1))
    pictures = Pictures(swarm)
    first = pictures.newest()
    assert first == encode_to_page(SwarmChanged(swarm=swarm.status()))
    assert pictures.newest() is first
    swarm.put(volunteer(2))
    assert pictures.newest() == encode_to_page(SwarmChanged(swarm=swarm.status()))
