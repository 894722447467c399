"""Tells batches' owners of their ends, again and again until they have taken it, for a day.

Any replica does it. Who was told but could not say so, or whose replica died meanwhile, is told again, under
the same `webhook-id`. Does not know how an event is signed or sent.
"""

import asyncio
import logging
import time
from collections import Counter

from relay.batches.posting import SECONDS, NotTold, Poster
from relay.batches.webhooks import secret_of, signed_headers
from relay.records import WebhookRecord
from relay.services import Services
from schema.errors import CorollaError

POLL_SECONDS = 1.0
FIRST_SECONDS, MOST_SECONDS = 5.0, 3600.0
"""Between two tries: five times as long each time, as Standard Webhooks advises."""
KEEP_SECONDS = 24 * 3600.0
AT_ONCE = 8
AT_ONCE_OF_ONE = 2
"""Of one token: whoever does not answer keeps only that much of a replica."""

log = logging.getLogger(__name__)


def pause_after(attempts: int) -> float:
    """Seconds until the next try. `attempts`: how many there were, at least 1."""
    return min(MOST_SECONDS, FIRST_SECONDS * 5.0 ** min(attempts - 1, 8))


class Teller:
    """What one replica tells."""

    def __init__(self) -> None:
        self._telling: Counter[str] = Counter()
        """How many events of each token are on their way."""

    async def run(self, services: Services) -> None:
        """Until it is cancelled."""
        with Poster() as poster:
            await self._run(services, poster)

    async def _run(self, services: Services, poster: Poster) -> None:
        slots = asyncio.Semaphore(AT_ONCE)
        async with asyncio.TaskGroup() as tasks:
            while True:
                await slots.acquire()
                event = await self._next(services)
                self._telling[event.token_id] += 1
                task = tasks.create_task(self._try(services, poster, event))
                task.add_done_callback(lambda _: slots.release())

    async def _next(self, services: Services) -> WebhookRecord:
        """An event that is due, as soon as there is one."""
        while True:
            now = time.time()
            busy = [token for token, count in self._telling.items() if count >= AT_ONCE_OF_ONE]
            try:
                event = await services.store.take_webhook(now, now + 4 * SECONDS, busy)
            except CorollaError as error:
                log.warning("webhooks wait: %s", error.message)
                event = None
            except Exception:
                log.exception("webhooks wait, and will be looked at again")
                event = None
            if event is not None:
                return event
            await asyncio.sleep(POLL_SECONDS)

    async def _try(self, services: Services, poster: Poster, event: WebhookRecord) -> None:
        try:
            await self._tell(services, poster, event)
        except CorollaError as error:
            log.warning("%s may be told again: %s", event.id, error.message)
        except Exception:
            log.exception("%s was not told, and will be tried again", event.id)
        finally:
            self._telling[event.token_id] -= 1
            if not self._telling[event.token_id]:
                del self._telling[event.token_id]

    async def _tell(self, services: Services, poster: Poster, event: WebhookRecord) -> None:
        now = time.time()
        secret = secret_of(services.secret, event.token_id)
        headers = signed_headers(secret, event, int(now))
        told = services.metrics.webhooks
        try:
            await poster.post(event.url, headers, event.payload.encode(), services.settings.private_webhooks)
        except NotTold as why:
            due = now + pause_after(event.attempts)
            if due < event.created_at + KEEP_SECONDS:
                told["tried_again"] += 1
                await services.store.put_off_webhook(event.id, due)
                return
            told["given_up"] += 1
            log.warning("%s was told to nobody: %s", event.id, why)
        else:
            told["delivered"] += 1
        await services.store.remove_webhook(event.id)
