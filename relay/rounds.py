"""Going round among thousands, a few at a time: everybody's turn comes, and nobody else's has to wait for it.

There is no copy to go through: one of ten thousand objects would take a millisecond of the collector, too
(relay/garbage.py), which looks at whatever a new list holds. Does not know what is done in a turn.
"""

from collections.abc import Hashable, Iterator
from typing import Generic, TypeVar

T = TypeVar("T", bound=Hashable)


class Round(Generic[T]):
    """Things in a circle. Whoever comes or goes meanwhile costs nobody more than one turn, once."""

    def __init__(self) -> None:
        self._items: list[T] = []
        self._places: dict[T, int] = {}
        self._next = 0

    def __len__(self) -> int:
        return len(self._items)

    def add(self, item: T) -> None:
        """Put something in, if it is not there."""
        if item not in self._places:
            self._places[item] = len(self._items)
            self._items.append(item)

    def discard(self, item: T) -> None:
        """Take something out, if it is there: the last one gets its place."""
        place = self._places.pop(item, None)
        if place is None:
            return
        last = self._items.pop()
        if place < len(self._items):
            self._items[place] = last
            self._places[last] = place

    def take(self, count: int) -> Iterator[T]:
        """The next `count`, or all if there are fewer; those in the circle when their turn comes."""
        for _ in range(min(count, len(self._items))):
            if not self._items:
                return
            if self._next >= len(self._items):
                self._next = 0
            item = self._items[self._next]
            self._next += 1
            yield item
