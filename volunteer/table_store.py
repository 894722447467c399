"""Tables of measured throughput on disk, so that a volunteer that starts again need not measure.

One file for each thing that is measured; that of an older version of this program or of its libraries is
written over. Files are no more than a help: one that cannot be read, or is not what it should be, is named in
a warning and ignored, and so is a folder that cannot be written to. Does not measure or judge.
"""

import hashlib
import logging
import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Self

import msgspec
from msgspec import Struct

from corolla.models.facts import ModelFacts
from corolla.models.loading import LoadOptions
from schema.ids import Span
from volunteer.throughput import Table
from volunteer.versions import Versions

FOLDER = "throughput"
MAX_FILE_BYTES = 64 * 1024
"""A table has about 3 KiB."""

log = logging.getLogger(__name__)


class Subject(Struct, frozen=True, kw_only=True):
    """What was measured, but for the versions."""

    device: str
    threads: int
    model: str
    revision: str | None
    digest: str
    dtype: str
    quantization: str
    kernels: str
    blocks: int
    start: int | None
    """Where the span starts, if blocks differ."""

    @classmethod
    def of(cls, device: str, threads: int, facts: ModelFacts, options: LoadOptions, span: Span) -> Self:
        return cls(
            device=device,
            threads=threads,
            model=facts.name,
            revision=facts.revision,
            digest=facts.digest,
            dtype=facts.dtype,
            quantization=options.quantization,
            kernels=options.kernels,
            blocks=len(span),
            start=None if _are_alike(facts) else span.start,
        )


class _File(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    subject: Subject
    versions: Versions
    table: Table


class TableStore:
    """The tables in one folder; None: nothing is kept."""

    def __init__(self, folder: Path | None, versions: Versions) -> None:
        self._folder = None if folder is None else folder / FOLDER
        self._versions = versions

    def path(self, subject: Subject) -> Path | None:
        if self._folder is None:
            return None
        return self._folder / f"{hashlib.sha256(msgspec.json.encode(subject)).hexdigest()[:32]}.json"

    def load(self, subject: Subject) -> Table | None:
        """The table of that subject, if there is one of these versions."""
        path = self.path(subject)
        if path is None:
            return None
        try:
            found = _read(path)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (OSError, ValueError, msgspec.DecodeError) as error:
            log.warning("%s is no table of throughput (%s): measuring anew", path, error)
            return None
        if found.subject != subject:
            log.warning("%s is a table of something else: measuring anew", path)
            return None
        if found.versions != self._versions:
            log.info("%s is of other versions: measuring anew", path)
            return None
        return found.table

    def save(self, subject: Subject, table: Table) -> None:
        """Puts the table there, in place of an older one, as a whole or not at all."""
        path = self.path(subject)
        if path is None:
            return
        content = msgspec.json.encode(_File(subject=subject, versions=self._versions, table=table))
        draft = path.with_suffix(f".{os.getpid()}.tmp")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            draft.write_bytes(msgspec.json.format(content, indent=1))
            draft.replace(path)
        except OSError as error:
            log.warning("what was measured is not kept: %s", error)
            with suppress(OSError):
                draft.unlink(missing_ok=True)


def _read(path: Path) -> _File:
    """Raises OSError, or ValueError or msgspec.DecodeError for what is no table."""
    with path.open("rb") as file:
        content = file.read(MAX_FILE_BYTES + 1)
    if len(content) > MAX_FILE_BYTES:
        raise ValueError(f"it has more than {MAX_FILE_BYTES} bytes")
    return msgspec.json.decode(content, type=_File)


def _are_alike(facts: ModelFacts) -> bool:
    """Whether all blocks are: of the same sizes, and with caches of the same kind."""
    sizes: tuple[Sequence[object], ...] = (
        facts.block_parameters,
        facts.kv_bytes_per_token,
        facts.kv_tokens_at_most,
        facts.state_bytes,
    )
    return all(len(set(each)) == 1 for each in sizes)
