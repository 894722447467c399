"""REST: OpenAI-compatible completions under `/v1`, the models that answer, and health.

Handlers parse, call and encode; how a reply is made is in relay/choices.py and on the heads.
"""

from relay.rest.completions import ask, embeddings
from relay.rest.failures import on_client_left, on_error, on_http_exception
from relay.rest.status import healthz, metrics, model, models, readyz

__all__ = [
    "ask",
    "embeddings",
    "healthz",
    "metrics",
    "model",
    "models",
    "on_client_left",
    "on_error",
    "on_http_exception",
    "readyz",
]
