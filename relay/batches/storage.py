"""Where the bytes of files are: a folder that all replicas share, or an S3-compatible store.

A file is written once, under a key made here, and read whole or in part; nobody holds it whole in memory.
Does not know whose files they are, nor what is in them: relay/queries/files.py does.
"""

import asyncio
import os
import re
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, Literal, Protocol
from urllib.parse import urlsplit

from relay.settings import Settings
from schema.errors import NotFound, Unavailable

PART_BYTES = 256 * 1024
"""What is read at a time: little enough that nobody waits while it is looked at."""
RETRY_SECONDS = 5.0
_KEY = re.compile(r"[A-Za-z0-9_-]{1,64}")


class Storage(Protocol):
    """Every method raises Unavailable when the storage is away."""

    async def write(self, key: str, parts: AsyncIterator[bytes]) -> int:
        """Put a file there, whole or not at all. Its size in bytes."""
        ...

    def read(self, key: str, start: int = 0, size: int | None = None) -> AsyncGenerator[bytes]:
        """The bytes from `start` on, `size` of them or all, in parts. Raises NotFound: it is not there."""
        ...

    async def remove(self, key: str) -> None:
        """Remove a file, if it is there."""
        ...


def open_storage(settings: Settings) -> Storage:
    """The storage that the settings name; nothing is connected or made yet."""
    parts = urlsplit(settings.files)
    if parts.scheme != "s3":
        return Folder(Path(settings.files))
    from relay.batches.s3 import Bucket  # where no S3 is configured, its library need not be there

    return Bucket(parts.netloc, parts.path.strip("/"), settings.s3_endpoint)


class Folder:
    """Files in a folder, which is made when the first one is written."""

    def __init__(self, path: Path) -> None:
        self._path = path

    async def write(self, key: str, parts: AsyncIterator[bytes]) -> int:
        path = self._file(key)
        unfinished = path.with_suffix(".part")
        size = 0
        try:
            await asyncio.to_thread(self._path.mkdir, parents=True, exist_ok=True)
            with _opened(unfinished, "wb") as output:
                async for part in parts:
                    size += len(part)
                    await asyncio.to_thread(output.write, part)
                await asyncio.to_thread(_keep, output)
            await asyncio.to_thread(os.replace, unfinished, path)
        except OSError as error:
            raise _away(error) from error
        finally:
            _remove_unfinished(unfinished)
        return size

    async def read(self, key: str, start: int = 0, size: int | None = None) -> AsyncGenerator[bytes]:
        left = size
        try:
            with _opened(self._file(key), "rb") as source:
                source.seek(start)
                while left is None or left > 0:
                    wanted = PART_BYTES if left is None else min(left, PART_BYTES)
                    part = await asyncio.to_thread(source.read, wanted)
                    if not part:
                        return
                    left = None if left is None else left - len(part)
                    yield part
        except OSError as error:
            if isinstance(error, FileNotFoundError) and self._path.is_dir():
                raise gone() from error
            raise _away(error) from error

    async def remove(self, key: str) -> None:
        try:
            await asyncio.to_thread(self._file(key).unlink, missing_ok=True)
        except OSError as error:
            raise _away(error) from error

    def _file(self, key: str) -> Path:
        return self._path / checked_key(key)


def checked_key(key: str) -> str:
    """A key that cannot lead elsewhere. Raises ValueError: it was not made here."""
    if not _KEY.fullmatch(key):
        raise ValueError(f"a file's key cannot be {key!r}")
    return key


def gone() -> NotFound:
    return NotFound("this file's bytes are not there any more")


def _opened(path: Path, mode: Literal["rb", "wb"]) -> BinaryIO:
    """Opened, and closed, here and not in a thread: who is cancelled waits for none, and leaks no file."""
    return path.open(mode)


def _remove_unfinished(path: Path) -> None:
    with suppress(OSError):
        path.unlink(missing_ok=True)


def _keep(output: BinaryIO) -> None:
    """Have what was written outlive the machine's next crash."""
    output.flush()
    os.fsync(output.fileno())


def _away(error: OSError) -> Unavailable:
    return Unavailable(f"files cannot be kept or read now: {error.strerror}", retry_after=RETRY_SECONDS)
