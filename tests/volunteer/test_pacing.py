"""How much of a prompt goes with the replies of others: what is learned, and what follows from it."""

import pytest

from volunteer.pacing import BARE_EVERY, FIRST_TOKENS, MOST_TOKENS, QUIET_SECONDS, SHARE, Pace

BARE = 0.040
"""Seconds of a batch of four decode steps."""
TOKEN = 0.002
"""Seconds that a prompt's token adds."""


def served(pace: Pace, turns: int) -> list[int]:
    """A prompt beside four replies for some turns, on a device of constant speed: its parts."""
    parts: list[int] = []
    for turn in range(turns):
        tokens = pace.prefill_tokens(4, now=float(turn))
        pace.measured(4, tokens, BARE + tokens * TOKEN, now=float(turn))
        parts.append(tokens)
    return parts


def test_the_first_batch_shows_how_long_replies_take_alone() -> None:
    assert served(Pace(), 2) == [0, FIRST_TOKENS]


def test_a_prompt_costs_the_replies_beside_it_their_share_and_no_more() -> None:
    parts = [tokens for tokens in served(Pace(), 40)[2:] if tokens]
    assert all(tokens * TOKEN <= SHARE * BARE for tokens in parts)
    assert min(parts) == int(SHARE * BARE / TOKEN)


def test_now_and_then_the_replies_go_alone_to_be_measured_again() -> None:
    parts = served(Pace(), 3 * BARE_EVERY)
    assert 2 <= parts[1:].count(0) <= 3


def test_a_slow_device_still_gets_on_with_the_prompt() -> None:
    pace = Pace()
    pace.measured(1, 0, 0.001, 0.0)
    pace.measured(1, 8, 10.0, 0.0)
    assert pace.prefill_tokens(1, 0.0) == 1


def test_where_nobody_decodes_a_prompt_gets_large_parts() -> None:
    pace = Pace()
    pace.measured(0, 64, 0.0064, 0.0)
    assert pace.prefill_tokens(0, 0.1) == MOST_TOKENS


@pytest.mark.parametrize("later", [0.0, QUIET_SECONDS / 2])
def test_between_two_steps_of_a_reply_a_part_stays_short(later: float) -> None:
    pace = Pace()
    pace.measured(2, 0, BARE, 0.0)
    pace.measured(0, 10, 10 * TOKEN, 0.0)
    assert pace.prefill_tokens(0, later) == int(SHARE * BARE / TOKEN)


def test_when_the_replies_have_ended_parts_grow_again() -> None:
    pace = Pace()
    pace.measured(2, 0, BARE, 0.0)
    pace.measured(0, 10, 10 * TOKEN, 0.0)
    assert pace.prefill_tokens(0, 2 * QUIET_SECONDS) > int(SHARE * BARE / TOKEN)
