"""A prompt comes back whole, in pieces that a message has room for."""

import pytest

from corolla.echo import PIECE_CHARS, prompt_parts
from schema.generation import MOST_ALTERNATIVES, ScoredToken, TokenLogprob
from schema.limits import MAX_CONTROL_BYTES
from schema.messages import Delta, encode_message


def token(text: str, alternatives: int = 0) -> ScoredToken:
    top = [TokenLogprob(text, text.encode(), -1.0)] * alternatives
    return ScoredToken(text=text, raw=text.encode(), logprob=-0.123456789012345, top=top)


@pytest.mark.parametrize("text", ["", "a", "x" * PIECE_CHARS, "x" * (PIECE_CHARS * 3 + 1)])
@pytest.mark.parametrize("tokens", [0, 1, 5000])
def test_all_of_it_comes_in_order(text: str, tokens: int) -> None:
    scored = [token(str(index), 3) for index in range(tokens)]
    parts = list(prompt_parts(text, scored))
    assert "".join(part.text for part in parts) == text
    assert [one for part in parts for one in part.scored] == scored


def test_nothing_is_no_piece() -> None:
    assert list(prompt_parts("", [])) == []


@pytest.mark.parametrize("text", ["\0" * 40, "é", "\N{WAVING HAND SIGN}" * 100, "a"])
def test_every_piece_has_room_in_a_message(text: str) -> None:
    scored = [token(text, MOST_ALTERNATIVES)] * 3000
    for part in prompt_parts("\0" * 500_000, scored):
        message = encode_message(Delta(request="r" * 64, text="", tokens=0, ids=[], prompt=part))
        assert len(message.encode()) < MAX_CONTROL_BYTES
