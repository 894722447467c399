"""After a failure: whether dialling again can help, and how long to wait before. Pure."""

from corolla.link import is_final
from corolla.models.errors import ModelError
from schema.errors import CorollaError
from volunteer.loading import DeviceTooSmall

FIRST_BACKOFF_SECONDS = 0.5
MAX_BACKOFF_SECONDS = 15.0


def is_hopeless(error: CorollaError) -> bool:
    """Whether trying again with the same settings on the same machine cannot help."""
    return is_final(error) or isinstance(error, ModelError | DeviceTooSmall)


def backoff(failures: int, retry_after: float | None, jitter: float) -> float:
    """Seconds to wait after the n-th failure in a row: exponential, never above the limit.

    `jitter`, from 0 to 1, spreads those who were cut off together over the second half of that time.
    """
    wanted = max(retry_after or 0.0, FIRST_BACKOFF_SECONDS * 2 ** min(failures - 1, 10))
    return min(MAX_BACKOFF_SECONDS, wanted) * (1 + jitter) / 2
