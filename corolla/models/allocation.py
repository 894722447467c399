"""Has freed memory go back to the system while weights are loaded.

Loading makes and drops a tensor for every weight. glibc keeps what is freed below a size that it raises as it
goes, up to 32 MiB, so a model of many smaller tensors was in memory up to three times, and stayed so. Knows
nothing of models. Elsewhere than on glibc it does nothing.
"""

import ctypes
import platform
from collections.abc import Iterator
from contextlib import contextmanager

TRIM_THRESHOLD, MAP_THRESHOLD = -1, -3
"""Parameters of `mallopt`, from malloc.h."""
WHILE_LOADING = 256 << 10
"""Whatever is larger gets pages of its own, which are gone when it is freed."""
LARGEST = 32 << 20
"""What glibc raises the threshold to by itself, with twice that to keep: best for activations."""


@contextmanager
def returning_freed_memory() -> Iterator[None]:
    """Within it freed tensors leave the process at once; after it glibc keeps as much as it ever does.

    A setting of the whole process, so other threads pay a little more for large buffers meanwhile.
    """
    if platform.libc_ver()[0] != "glibc":
        yield
        return
    libc = ctypes.CDLL(None)
    libc.mallopt(MAP_THRESHOLD, WHILE_LOADING)
    try:
        yield
    finally:
        libc.mallopt(MAP_THRESHOLD, LARGEST)
        libc.mallopt(TRIM_THRESHOLD, 2 * LARGEST)
        libc.malloc_trim(0)
