"""Knows how fast the span in memory is: from disk or measured, judged by real work, measured again.

    begin ──> the table on disk, or the first figure, measured before it serves
    keep ───> while nothing is served: the rest of the table; later, a new one when real work says so

A table is told and kept when it is whole; until then the one before stands. The measuring and the judging
run on the device thread, everything else on the event loop. Does not know the relay or what is served:
whoever calls `keep` says when nothing is.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence

from schema.errors import CorollaError
from volunteer.device import DeviceThread
from volunteer.drift import Drift, run_of
from volunteer.measuring import Measurement
from volunteer.noise import Noise
from volunteer.stage import Stage
from volunteer.table_store import Subject, TableStore
from volunteer.throughput import UNMEASURED, Table
from volunteer.work import Result

CHECK_SECONDS = 5.0
"""How often it is seen whether there is something to measure."""

log = logging.getLogger(__name__)


class Shelf:
    """Where the table of one span lies between two starts."""

    def __init__(self, store: TableStore, subject: Subject) -> None:
        self._store = store
        self._subject = subject

    def load(self) -> Table | None:
        return self._store.load(self._subject)

    def save(self, table: Table) -> None:
        self._store.save(self._subject, table)


class Gauge:
    """The throughput of one span."""

    def __init__(self, device: DeviceThread, stage: Stage, noise: Noise, shelf: Shelf) -> None:
        """`stage`: the device's engine; `noise`: of it."""
        self.table = Table()
        """What is known. The event loop's."""
        self.is_from_disk = False
        self._device = device
        self._stage = stage
        self._noise = noise
        self._shelf = shelf
        # Of who has the device.
        self._measurement: Measurement | None = None
        self._drift = Drift(self.table, len(stage.span))

    async def begin(self) -> None:
        """Finds or measures what is to be known before the span is served."""
        found = await asyncio.to_thread(self._shelf.load)
        if found is not None and found.throughput == UNMEASURED:
            found = None
        self.is_from_disk = found is not None
        self.table = found or await self._device.call(self._first)
        await self._device.watch(self._see)
        await self._device.call(lambda: self._drift.measured(self.table))

    async def keep(self, is_idle: Callable[[], bool], tell: Callable[[], None]) -> None:
        """Measures what is to be measured, as long as the device runs; calls `tell` for new figures."""
        while True:
            await asyncio.sleep(CHECK_SECONDS)
            if not is_idle():
                continue
            try:
                is_new = await self.go_on()
            except CorollaError:  # the device is stopping
                return
            except Exception:
                log.exception("throughput could not be measured: the figures stay as they are")
                return
            if is_new:
                lines = "".join(f"\n  {line}" for line in self.table.lines())
                log.info("measured: %s%s", self.table.throughput, lines)
                tell()

    async def go_on(self) -> bool:
        """Measures what is missing or has drifted until the device is wanted; whether a table is new."""
        table = await self._device.call(self._turn)
        if table is None:
            return False
        self.table, self.is_from_disk = table, False
        await asyncio.to_thread(self._shelf.save, table)
        return True

    async def finish(self) -> None:
        """Measures what is missing; for a device that nobody else uses."""
        while not await self.go_on():
            pass

    async def measure_anew(self) -> None:
        """Forgets the table and measures it from the beginning; for a device that nobody else uses."""
        await self._device.call(self._first)
        await self.finish()

    # ---- who has the device --------------------------------------------------------------------

    def _first(self) -> Table:
        self._measurement = Measurement(self._noise)
        self._measurement.begin()
        return self._measurement.table

    def _turn(self) -> Table | None:
        """A new table, if there is one now."""
        if self._stage.sessions or self._stage.kept:  # noise takes nobody's place
            return None
        if self._measurement is None:
            finding = self._drift.find()
            if finding is None:
                return None
            log.info("%s: measuring anew", finding)
            self._measurement = Measurement(self._noise)
        if not self._measurement.go_on(self._device.is_wanted):
            return None
        table, self._measurement = self._measurement.table, None
        self._drift.measured(table)
        return table

    def _see(self, results: Sequence[Result], seconds: float) -> None:
        run = run_of(results, seconds, self._stage.span)
        if run is not None:
            self._drift.add(run)
