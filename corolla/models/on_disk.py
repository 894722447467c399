"""Which blocks of a model need no download. Reads names only, no weights."""

from corolla.models.source import ModelSource
from schema.ids import Span


def blocks_on_disk(source: ModelSource) -> list[Span]:
    """The runs of blocks of which every tensor is in a file on this disk."""
    here = source.names_on_disk()
    found, missing = set[int](), set[int]()
    for name in source.tensor_names():
        number = _block_of(name)
        if number is not None and number < source.block_count:
            (found if name in here else missing).add(number)
    runs: list[Span] = []
    for number in sorted(found - missing):
        if runs and runs[-1].end == number:
            runs[-1] = Span(runs[-1].start, number + 1)
        else:
            runs.append(Span(number, number + 1))
    return runs


def _block_of(name: str) -> int | None:
    """The first number in a tensor's name: what comes before its block has none."""
    return next((int(part) for part in name.split(".") if part.isascii() and part.isdigit()), None)
