"""relay/sizes.py: how much memory missing blocks take."""

import msgspec
import pytest

from relay.sizes import BYTES_NF4, bytes_of_blocks, describe_bytes, describe_need
from schema.ids import Span
from tests.relay.core.peers import FACTS

LLAMA_70B = msgspec.structs.replace(FACTS, parameters=70_553_706_496, blocks=80, hidden_size=8192)
LLAMA_70B_BLOCK = 855_654_400
"""Parameters of one of its blocks."""


def test_an_estimate_is_a_little_too_large_and_never_too_small() -> None:
    half = bytes_of_blocks(LLAMA_70B, [Span(0, 30), Span(70, 80)])
    assert 1.0 <= half / (40 * 2 * LLAMA_70B_BLOCK) < 1.04


def test_four_bits_take_a_little_more_than_a_quarter() -> None:
    whole = [Span(0, 80)]
    assert bytes_of_blocks(LLAMA_70B, whole, BYTES_NF4) / bytes_of_blocks(LLAMA_70B, whole) == pytest.approx(
        0.28, abs=0.01
    )


def test_the_need_in_words() -> None:
    assert describe_need(LLAMA_70B, [Span(3, 4)]) == (
        "it needs about 1.8 GB of memory at 16 bits, or 496 MB in nf4"
    )
    assert describe_need(LLAMA_70B, [Span(0, 79)]) == (
        "they need about 139 GB of memory at 16 bits, or 39 GB in nf4"
    )


@pytest.mark.parametrize(
    ("count", "words"),
    [
        (1, "1.0 bytes"),
        (12, "12 bytes"),
        (999, "999 bytes"),
        (999.9, "1.0 kB"),
        (9_960, "10 kB"),
        (1.25e9, "1.2 GB"),
        (3.5e14, "350 TB"),
        (2e16, "20 PB"),
    ],
)
def test_bytes_in_words(count: float, words: str) -> None:
    assert describe_bytes(count) == words
