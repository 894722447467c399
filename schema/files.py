"""Files under `/v1/files`, in the shapes of OpenAI's API.

Knows shapes and limits. Does not know where a file's bytes are.
"""

from typing import Annotated, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

FilePurpose = Literal["batch", "batch_output"]
"""`batch`: lines to be answered, uploaded. `batch_output`: what came of them, written here."""

MOST_FILES = 10_000
"""That one page of a list holds."""
MAX_FILE_NAME_CHARS = 255


class FileQuery(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which page of `GET /v1/files`."""

    limit: Annotated[int, Meta(ge=1, le=MOST_FILES)] = MOST_FILES
    """How many at most."""
    after: Annotated[str, Meta(min_length=1, max_length=64)] | UnsetType = UNSET
    """Go on after this file: `last_id` of the page before."""
    order: Literal["asc", "desc"] = "desc"
    """By the time at which they were made: the oldest first, or the newest."""
    purpose: FilePurpose | UnsetType = UNSET
    """Only those."""


class FileObject(Struct, frozen=True, kw_only=True):
    """A file, without its content."""

    id: str
    object: Literal["file"] = "file"
    bytes: int
    created_at: int
    """Unix seconds, as all times of this API."""
    filename: str
    purpose: FilePurpose
    status: Literal["processed"] = "processed"
    expires_at: int | None = None


class FileList(Struct, frozen=True, kw_only=True):
    """Answer of `GET /v1/files`: one page."""

    object: Literal["list"] = "list"
    data: list[FileObject]
    first_id: str | None = None
    last_id: str | None = None
    has_more: bool = False


class FileDeleted(Struct, frozen=True, kw_only=True):
    """Answer of `DELETE /v1/files/{id}`."""

    id: str
    object: Literal["file"] = "file"
    deleted: bool = True
