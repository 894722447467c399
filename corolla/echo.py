"""A prompt that is told back, in pieces that fit a message. Pure.

Text and tokens are cut apart from each other: a piece's text need not be that of its tokens.
"""

from collections.abc import Iterator, Sequence
from itertools import zip_longest

from schema.generation import ScoredToken, TokenLogprob
from schema.messages import PromptPart

PIECE_CHARS = 16 * 1024
PIECE_BYTES = 256 * 1024
"""What the scored tokens of a piece may take, as JSON at its longest."""
_FRAME_BYTES = 100
"""Names of fields, and numbers."""
_CHAR_BYTES = 6
"""A character that JSON escapes."""


def prompt_parts(text: str, scored: Sequence[ScoredToken]) -> Iterator[PromptPart]:
    """The pieces, in order; none for nothing."""
    texts = [text[start : start + PIECE_CHARS] for start in range(0, len(text), PIECE_CHARS)]
    for piece, tokens in zip_longest(texts, _groups(scored)):
        yield PromptPart(text=piece or "", scored=tokens or [])


def _groups(scored: Sequence[ScoredToken]) -> Iterator[list[ScoredToken]]:
    group: list[ScoredToken] = []
    room = PIECE_BYTES
    for token in scored:
        size = _size(token) + sum(map(_size, token.top))
        if group and size > room:
            yield group
            group, room = [], PIECE_BYTES
        group.append(token)
        room -= size
    if group:
        yield group


def _size(token: TokenLogprob) -> int:
    return _FRAME_BYTES + _CHAR_BYTES * len(token.text) + 2 * len(token.raw)
