"""Libraries that only some settings need, and that extras of the package install: which are missing.

Imports none of them. Does not know what they are used for.
"""

from collections.abc import Iterator
from importlib.util import find_spec

from msgspec import Struct

from relay.settings import Settings


class MissingExtra(Struct, frozen=True):
    """A setting that asks for a library that is not there."""

    variable: str
    extra: str

    @property
    def remedy(self) -> str:
        return f"pip install 'corolla[{self.extra}] @ git+REPOSITORY'"


def missing_extras(settings: Settings) -> Iterator[MissingExtra]:
    """What has to be installed before the relay can serve with these settings."""
    if settings.bus_url is not None and find_spec("nats") is None:
        yield MissingExtra("BUS_URL", "nats")
    if settings.files.startswith("s3://") and find_spec("obstore") is None:
        yield MissingExtra("FILES", "s3")
