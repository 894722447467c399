"""Events that batches' owners are told of, as Standard Webhooks says (standardwebhooks.com).

    POST url   webhook-id, webhook-timestamp, webhook-signature: "v1," + base64 of
               HMAC-SHA256(secret, id "." timestamp "." body)

Every token has a secret of its own, made from the relays' secret: `whsec_` and base64, as libraries take it.
Knows what an event says and how it is signed. Does not know how it is sent (relay/batches/posting.py).
"""

import base64
import hmac
import secrets
import time
from hashlib import blake2b, sha256

import msgspec

from relay.records import BatchRecord, WebhookRecord
from schema.batches import WEBHOOK_KEY, BatchEvent, EventData

_PERSON = b"corolla-hooks-01"


def event_for(batch: BatchRecord) -> WebhookRecord | None:
    """What a batch that has just ended has to tell; None when it names nobody."""
    labels: dict[str, str] = msgspec.json.decode(batch.labels) if batch.labels else {}
    url = labels.get(WEBHOOK_KEY)
    if url is None:
        return None
    now = time.time()
    event = BatchEvent(
        id=f"evt_{secrets.token_hex(12)}",
        type=f"batch.{batch.status}",
        created_at=int(now),
        data=EventData(id=batch.id),
    )
    return WebhookRecord(event.id, batch.token_id, url, msgspec.json.encode(event).decode(), now)


def secret_of(relay_secret: bytes, token_id: str) -> str:
    """What a token's events are signed with."""
    key = blake2b(token_id.encode(), key=relay_secret, digest_size=32, person=_PERSON).digest()
    return f"whsec_{base64.b64encode(key).decode()}"


def signed_headers(secret: str, event: WebhookRecord, now: int) -> dict[str, str]:
    """The headers that prove who sends an event, and when. `now`: Unix seconds."""
    key = base64.b64decode(secret.removeprefix("whsec_"))
    said = f"{event.id}.{now}.{event.payload}".encode()
    signature = base64.b64encode(hmac.digest(key, said, sha256)).decode()
    return {"webhook-id": event.id, "webhook-timestamp": str(now), "webhook-signature": f"v1,{signature}"}
