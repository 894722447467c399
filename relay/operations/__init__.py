"""Every operation of the relay's HTTP interface, one table for each part of it; and what is none, and why.

A route of relay/app.py is in one of the tables or in `UNDESCRIBED`: a test looks.
"""

from collections.abc import Mapping

from relay.openapi import Operation
from relay.operations.batches import BATCHES
from relay.operations.completions import COMPLETIONS
from relay.operations.health import HEALTH
from relay.operations.joining import JOINING
from relay.operations.operators import OPERATORS
from relay.operations.own import OWN
from relay.operations.petals import PETALS
from relay.operations.sessions import SESSIONS
from relay.operations.swarm import SWARM
from relay.operations.tokens import TOKENS

OPERATIONS: tuple[Operation, ...] = (
    *COMPLETIONS,
    *BATCHES,
    *SWARM,
    *OWN,
    *TOKENS,
    *OPERATORS,
    *PETALS,
    *SESSIONS,
    *JOINING,
    *HEALTH,
)

UNDESCRIBED: Mapping[str, str] = {
    "/ws/peer": "a WebSocket: docs/protocol.md",
    "/ws/chat": "a WebSocket: docs/protocol.md, section 12",
    "/api/v2/generate": "a WebSocket: docs/examples.md",
    "/": "a page: the chat",
    "/swarm": "a page",
    "/join": "a page",
    "/jobs": "a page",
    "/keys": "a page",
    "/operators": "a page",
    "/docs": "this description as a page",
    "/openapi.json": "this description",
    "/static": "the pages' files",
}
