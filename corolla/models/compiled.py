"""Whether kernels of this project can be used: only where they compile, and compute what they should.

Triton, or the compiler that it needs, is not everywhere. Does not know what the kernels compute.
"""

import logging
from collections.abc import Callable
from importlib.util import find_spec

log = logging.getLogger(__name__)


def can_be_used(name: str, is_right: Callable[[], bool]) -> bool:
    """`name`: of the layers that stay the library's where they cannot. `is_right` compiles and tries them."""
    if find_spec("triton") is None:
        return False
    try:
        if is_right():
            return True
        log.warning("%s stay bitsandbytes' own: what was compiled here computes something else", name)
    except Exception as error:  # noqa: BLE001 - a compiler that is not there fails in ways of its own
        log.info("%s stay bitsandbytes' own: Triton cannot be used here (%s)", name, error)
    return False
