"""All that one replica does for batches by itself, and the bells between its parts.

    POST /v1/batches ─ look ─> keeper ─ begun ─> worker ─ ended ─> keeper

A part that misses a bell, or whose work another replica makes, looks for it every second.
"""

import asyncio

from relay.admission import Admission
from relay.batches.gate import Gate
from relay.batches.keeper import Keeper
from relay.batches.recorder import Recorder
from relay.batches.telling import Teller
from relay.batches.worker import Worker
from relay.services import Services
from relay.settings import Settings
from relay.store import Store
from relay.swarm import Swarm


class Batches:
    """The batches' part of a replica."""

    def __init__(self, store: Store, swarm: Swarm, admission: Admission, settings: Settings) -> None:
        self._ended = asyncio.Event()
        self._gate = Gate(swarm, admission.people, settings.lines_per_head)
        self._recorder = Recorder(store)
        self._worker = Worker(self._gate, self._recorder, self._ended)
        self._keeper = Keeper(self._worker.bell, self._ended)

    def look(self) -> None:
        """There may be a batch to begin or to end."""
        self._ended.set()

    async def run(self, services: Services) -> None:
        """Until it is cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._recorder.run())
            tasks.create_task(self._keeper.run(services))
            tasks.create_task(self._worker.run(services))
            tasks.create_task(Teller().run(services))
