"""How much of a prompt goes with the replies of others: what is learned, and what follows from it."""

from collections.abc import Callable
from random import Random
from typing import NamedTuple

import pytest

from volunteer.pacing import (
    BARE_EVERY,
    FIRST_TOKENS,
    LEAST_TOKENS,
    MOST_PASS_TOKENS,
    MOST_TOKENS,
    QUIET_SECONDS,
    SHARE,
    Pace,
)

BARE, TOKEN = 0.040, 0.002


class Device(NamedTuple):
    """Seconds of a batch of four decode steps, and what a part of a prompt adds."""

    bare: float
    fixed: float
    token: float


CPU = Device(BARE, 0.0, TOKEN)
GPU = Device(0.009, 0.070, 0.00003)


def served(pace: Pace, turns: int, device: Device) -> list[int]:
    """A prompt beside four replies for some turns: its parts."""
    parts: list[int] = []
    now = 0.0
    for _ in range(turns):
        tokens = pace.prefill_tokens(4, prompts=1, now=now)
        seconds = device.bare + (device.fixed + tokens * device.token if tokens else 0.0)
        now += seconds
        pace.measured(4, 1, tokens, seconds, now)
        parts.append(tokens)
    return parts


def test_the_first_batch_shows_how_long_replies_take_alone() -> None:
    assert served(Pace(), 2, CPU) == [0, FIRST_TOKENS]


def test_a_prompt_costs_the_replies_beside_it_their_share_and_no_more() -> None:
    parts = [tokens for tokens in served(Pace(), 40, CPU)[2:] if tokens]
    assert max(parts) * TOKEN == pytest.approx(SHARE * BARE)
    assert min(parts) >= int(SHARE * BARE / TOKEN) - 1


def test_where_a_part_costs_much_however_small_large_ones_go_and_seldom() -> None:
    parts = served(Pace(), 600, GPU)
    late = parts[200:]
    sizes = [tokens for tokens in late if tokens]
    assert sum(1 for tokens in sizes if tokens < MOST_TOKENS // 2) <= 0.1 * len(sizes)
    taken = sum(GPU.fixed + tokens * GPU.token for tokens in late if tokens)
    assert 0.5 * SHARE <= taken / (len(late) * GPU.bare) <= 1.2 * SHARE
    assert len(sizes) <= 0.05 * len(late)


def parts_beside_a_reply(pace: Pace, count: int, seconds_of: Callable[[int, int], float]) -> list[int]:
    """Of 15 prompts with 480 tokens there; `seconds_of`: which part it is, and of how many tokens."""
    parts, now = list[int](), 0.0
    while len(parts) < count:
        tokens = min(480, pace.prefill_tokens(1, prompts=15, now=now))
        seconds = GPU.bare + (seconds_of(len(parts), tokens) if tokens else 0.0)
        parts += [tokens] if tokens else []
        now += seconds
        pace.measured(1, 15, tokens, seconds, now)
    return parts


SLOW = {
    "the first": (0,),
    "the second": (1,),
    "a large one": (4,),
    "two large ones": (4, 5),
    "each in turn": (0, 3, 6),
}
"""Which parts take a second more: kernels are chosen and memory is taken when a size is new."""


@pytest.mark.parametrize("slow", SLOW.values(), ids=SLOW)
def test_a_part_that_took_long_once_makes_no_small_ones_of_those_after_it(slow: tuple[int, ...]) -> None:
    def seconds_of(part: int, tokens: int) -> float:
        return GPU.fixed + tokens * GPU.token + (1.0 if part in slow else 0.0)

    parts = parts_beside_a_reply(Pace(), 60, seconds_of)
    assert sum(tokens < 480 for tokens in parts[24:]) <= 4  # where all were of one size, others are tried


def test_single_tokens_that_are_quick_make_no_parts_of_single_tokens() -> None:
    """As decode steps they are a graph, which more than one is not."""
    pace = Pace()

    def seconds_of(part: int, tokens: int) -> float:
        pace.measured(1, 15, 1, GPU.bare + 0.002, 0.0)  # what was left of a slice
        return GPU.fixed + tokens * GPU.token

    assert min(parts_beside_a_reply(pace, 20, seconds_of)[10:]) == 480


def test_on_a_slow_device_no_part_is_much_larger_than_its_share_for_being_the_first() -> None:
    """Where a token takes longer than its share, now and then a few are tried, and no more."""
    parts = [tokens for tokens in served(Pace(), 400, Device(BARE, 0.0, 0.5 * BARE))[2:] if tokens]
    assert set(parts) == {LEAST_TOKENS, 2 * LEAST_TOKENS}
    assert parts.count(2 * LEAST_TOKENS) <= 0.1 * len(parts)


def noisy(seconds: float, random: Random) -> float:
    return seconds * random.uniform(0.9, 1.1)


@pytest.mark.parametrize("seed", range(8))
def test_noise_makes_no_part_that_stalls_the_replies(seed: int) -> None:
    """A batch without a prompt may by chance take longer than one with: then tokens seem to cost nothing."""
    random, pace, now, parts = Random(seed), Pace(), 0.0, list[int]()
    while len(parts) < 400:
        tokens = pace.prefill_tokens(4, prompts=1, now=now)
        seconds = noisy(0.1, random) + (0.005 + 0.005 * tokens if tokens else 0.0)
        parts += [tokens] if tokens else []
        now += seconds
        pace.measured(4, 1, tokens, seconds, now)
    assert sum(parts) / len(parts) <= 8
    assert max(parts) <= 64


def test_parts_that_seemed_to_cost_nothing_are_soon_what_they_can_be() -> None:
    pace = Pace()
    pace.measured(16, 1, 0, 0.03, 0.0)
    for _ in range(2):
        pace.measured(1, 1, 8, 0.02, 0.0)
    parts = parts_beside_a_reply(pace, 20, lambda part, tokens: 0.01 + 0.0025 * tokens)
    assert sum(tokens > 60 for tokens in parts) <= 4
    assert max(parts[8:]) <= 60


def changing(before: Device, after: Device) -> list[int]:
    """Parts of a prompt beside four replies on a device that has become another one."""
    pace, now, parts = Pace(), 0.0, list[int]()
    for turn in range(600):
        device = before if turn < 100 else after
        tokens = pace.prefill_tokens(4, prompts=1, now=now)
        seconds = device.bare + (device.fixed + tokens * device.token if tokens else 0.0)
        now += seconds
        pace.measured(4, 1, tokens, seconds, now)
        if tokens and turn >= 100:
            parts.append(tokens)
    return parts


def test_a_device_that_has_become_slow_gets_smaller_parts() -> None:
    parts = changing(CPU, Device(BARE, 0.0, 20 * TOKEN))
    assert max(parts) <= 2 * FIRST_TOKENS
    assert sorted(parts[8:])[len(parts[8:]) // 2] <= 2 * LEAST_TOKENS


def test_a_device_that_has_become_quick_gets_larger_ones() -> None:
    parts = changing(Device(BARE, 0.01, 20 * TOKEN), Device(BARE, 0.0, TOKEN / 20))
    assert parts[-1] >= 60


def test_many_prompts_get_more_than_one_beside_the_same_reply() -> None:
    waits: list[float] = []
    for prompts in (1, 8):
        pace = Pace()
        pace.measured(1, prompts, 0, BARE, 0.0)
        pace.measured(1, prompts, 100, 10 * BARE, 0.0)
        waits.append(pace.wait(0.0))
    assert waits[1] < waits[0] / 7


def test_now_and_then_the_replies_go_alone_to_be_measured_again() -> None:
    parts = served(Pace(), 3 * BARE_EVERY, CPU)
    assert 2 <= parts[1:].count(0) <= 3


def test_a_slow_device_still_gets_on_with_the_prompt() -> None:
    pace = Pace()
    pace.measured(1, 1, 0, 0.001, 0.0)
    pace.measured(1, 1, 8, 10.0, 0.0)
    assert pace.prefill_tokens(1, 1, pace.wait(0.0) + 0.5) == LEAST_TOKENS


def test_where_nobody_decodes_a_prompt_gets_large_parts() -> None:
    pace = Pace()
    pace.measured(0, 1, 64, 0.0064, 0.0)
    assert pace.prefill_tokens(0, 1, 0.1) == MOST_TOKENS


def test_where_a_part_takes_long_however_small_a_prompt_does_not_go_token_by_token() -> None:
    pace, now = Pace(), 0.0
    for turn in range(40):
        tokens = pace.prefill_tokens(0, 1, now)
        seconds = 0.4 + 0.002 * min(tokens, 100 + turn)  # prompts end somewhere
        now += seconds
        pace.measured(0, 1, min(tokens, 100 + turn), seconds, now)
    assert pace.prefill_tokens(0, 1, now) >= 2 * 0.4 / 0.002 * 0.9


@pytest.mark.parametrize("later", [0.0, QUIET_SECONDS / 2])
def test_between_two_steps_of_a_reply_a_part_stays_short(later: float) -> None:
    pace = Pace()
    pace.measured(2, 1, 0, BARE, 0.0)
    pace.measured(0, 1, 5, 5 * TOKEN, 0.0)
    assert pace.prefill_tokens(0, 1, later) == int(SHARE * BARE / TOKEN)


def test_when_the_replies_have_ended_parts_grow_again() -> None:
    pace = Pace()
    pace.measured(2, 1, 0, BARE, 0.0)
    pace.measured(0, 1, 5, 5 * TOKEN, 0.0)
    assert pace.prefill_tokens(0, 1, 2 * QUIET_SECONDS) > int(SHARE * BARE / TOKEN)


def test_equal_parts_do_not_hide_that_larger_ones_cost_little_more() -> None:
    """As sequences that are equally long and cannot be divided: 256 tokens each, as many as are allowed."""
    pace, now, sizes = Pace(), 0.0, list[int]()
    for _ in range(8):
        allowed = pace.prefill_tokens(0, prompts=32, now=now, are_passes=True)
        tokens = max(256, allowed // 256 * 256)
        seconds = 0.2 + tokens * 0.0002
        now += seconds
        pace.measured(0, 32, tokens, seconds, now)
        sizes.append(tokens)
    assert sizes[-1] == MOST_PASS_TOKENS


def test_passes_keep_their_size_on_a_device_that_others_use_too() -> None:
    """Small parts that had it for themselves, and larger ones that had not, look as if tokens cost all."""
    pace, now = Pace(), 0.0
    for tokens, seconds in [(128, 0.08), (256, 0.25), (128, 0.08), (256, 0.31)]:
        now += seconds
        pace.measured(0, 1, tokens, seconds, now)
    for _ in range(12):
        tokens = max(256, pace.prefill_tokens(0, 16, now, are_passes=True) // 256 * 256)
        seconds = 0.22 + tokens * 0.00035
        now += seconds
        pace.measured(0, 16, tokens, seconds, now)
    assert tokens >= 3584
