"""The bodies of `/v1/models`. Does not know which models there are."""

from typing import Literal

from msgspec import Struct


class ModelEntry(Struct, frozen=True, kw_only=True):
    """One model; the answer of `GET /v1/models/{id}`."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str = "corolla"


class ModelList(Struct, frozen=True, kw_only=True):
    """Answer of `GET /v1/models`: what would be answered now."""

    object: Literal["list"] = "list"
    data: list[ModelEntry]
