"""How the property tests call the contract: a result or a named error, and little memory."""

import tracemalloc
from collections.abc import Callable
from typing import TypeVar

from schema.errors import CorollaError

T = TypeVar("T")


def result_or_refusal(call: Callable[[], T]) -> T | CorollaError:
    """What `call` gives, or the named error it raises; any other exception fails the test."""
    try:
        return call()
    except CorollaError as error:
        return error


def peak_bytes(call: Callable[[], object]) -> int:
    """The most memory that `call` held at once, whether it is refused or not."""
    tracemalloc.start()
    try:
        result_or_refusal(call)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
