"""What becomes of a line that was not answered: whether it is tried again, and when.

Pure. Does not know who answers.
"""

from schema.errors import CorollaError

MOST_TRIES = 8
"""Of a line whose replies break, each time in another way perhaps: one that breaks them all has to end."""
FIRST_SECONDS, MOST_SECONDS = 0.5, 30.0
_AWAY = frozenset({429, 503})
"""The swarm has no room or is not there: that says nothing about the line, which may wait for long."""
_BROKEN = frozenset({408, 500, 502, 504})


def is_tried_again(error: CorollaError, tries: int) -> bool:
    """Whether a line may still be answered after an error. `tries`: how often a reply of it has broken."""
    if error.http_status in _AWAY:
        return True
    return error.http_status in _BROKEN and tries < MOST_TRIES


def is_broken(error: CorollaError) -> bool:
    """Whether the error counts as a try."""
    return error.http_status in _BROKEN


def pause_before(attempt: int, told: float | None, chance: float) -> float:
    """Seconds until it is tried again: twice as long each time.

    `attempt`: from 0. `told`: when the error says that it makes sense. `chance`: 0 to 1, so that not all of
    them come back at once.
    """
    usual = min(MOST_SECONDS, FIRST_SECONDS * 2 ** min(attempt, 16))
    return max(usual * (0.5 + chance), told or 0.0)
