"""Which versions compute here: of this program, and of the libraries that do the work."""

from importlib.metadata import PackageNotFoundError, version

import torch
import transformers
from msgspec import Struct


class Versions(Struct, frozen=True, kw_only=True):
    """What figures of speed hold for."""

    corolla: str
    torch: str
    transformers: str


def program_version() -> str:
    try:
        return version("corolla")
    except PackageNotFoundError:
        return "unreleased"


def present_versions() -> Versions:
    return Versions(
        corolla=program_version(), torch=str(torch.__version__), transformers=transformers.__version__
    )
