"""What a head may say of why a reply was not finished. A head is a stranger.

That a token is no good, say, is not for it to tell: whoever believed that would throw the token away.
"""

from schema.errors import (
    CorollaError,
    FrameRefused,
    GenerationFailed,
    InvalidRequest,
    ModelUnavailable,
    StepFailed,
    Unavailable,
    kinds_of,
)
from schema.messages import ErrorInfo

HEADS_MAY_SAY = (
    CorollaError,
    *kinds_of(GenerationFailed, InvalidRequest, ModelUnavailable, FrameRefused, StepFailed, Unavailable),
)


def error_of_head(told: ErrorInfo) -> CorollaError:
    """The error that a head has named; for what it may not say, `GenerationFailed` in its words."""
    error = told.to_error()
    return error if type(error) in HEADS_MAY_SAY else GenerationFailed(error.message)
