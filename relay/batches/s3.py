"""Files in a bucket of an S3-compatible store.

Large files go there in parts, some at a time. Keys and region come from the environment (`AWS_ACCESS_KEY_ID`,
`AWS_SECRET_ACCESS_KEY`, `AWS_REGION`), or from where the machine has its role from.
"""

from collections.abc import AsyncGenerator, AsyncIterator
from typing import TYPE_CHECKING

import obstore
from obstore.exceptions import BaseError
from obstore.store import S3Store

from relay.batches.storage import PART_BYTES, RETRY_SECONDS, checked_key, gone
from schema.errors import Unavailable

UPLOAD_BYTES = 5 * 1024 * 1024
"""Of one part that goes there: S3 takes no smaller ones but for the last."""
AT_ONCE = 4
"""Parts of one file that are on their way there."""


if TYPE_CHECKING:  # it is there for types only
    from obstore import GetOptions


class Bucket:
    """One bucket, or what is in it under a prefix."""

    def __init__(self, bucket: str, prefix: str, endpoint: str | None) -> None:
        """`endpoint`: None is that of the environment, or Amazon's."""
        if endpoint is None:
            self._store = S3Store(bucket, prefix=prefix or None)
        else:
            self._store = S3Store(
                bucket,
                prefix=prefix or None,
                endpoint=endpoint,
                client_options={"allow_http": endpoint.startswith("http:")},
            )

    async def write(self, key: str, parts: AsyncIterator[bytes]) -> int:
        size = 0

        async def counted() -> AsyncIterator[bytes]:
            nonlocal size
            async for part in parts:
                size += len(part)
                yield part

        try:
            await obstore.put_async(
                self._store,
                checked_key(key),
                counted(),
                chunk_size=UPLOAD_BYTES,
                max_concurrency=AT_ONCE,
            )
        except (BaseError, OSError) as error:
            raise _away(error) from error
        return size

    async def read(self, key: str, start: int = 0, size: int | None = None) -> AsyncGenerator[bytes]:
        if size == 0:
            return
        try:
            if size is not None:
                options: GetOptions = {"range": (start, start + size)}
            else:
                options = {"range": {"offset": start}} if start else {}
            found = await obstore.get_async(self._store, checked_key(key), options=options)
            async for part in found.stream(PART_BYTES):
                yield bytes(part)
        except FileNotFoundError as error:
            raise gone() from error
        except (BaseError, OSError) as error:
            raise _away(error) from error

    async def remove(self, key: str) -> None:
        try:
            await obstore.delete_async(self._store, checked_key(key))
        except FileNotFoundError:
            return
        except (BaseError, OSError) as error:
            raise _away(error) from error


def _away(error: Exception) -> Unavailable:
    """Without the server's words, in which keys might be."""
    return Unavailable(f"files cannot be kept or read now: {type(error).__name__}", retry_after=RETRY_SECONDS)
