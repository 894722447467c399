"""Random deaths under several replies at once, the same ones every time: `make chaos` in small."""

import random
from contextlib import ExitStack

import pytest

from tests.chaos.thicket import SPANS, Thicket, assert_complete
from tests.garden import wait_until

SEED = 20
ROUNDS = 4
AT_ONCE = 3
TOKENS = 120


@pytest.mark.parametrize("number", range(ROUNDS))
def test_replies_outlive_whom_chance_picks(thicket: Thicket, number: int) -> None:
    chance = random.Random(f"{SEED} {number}")
    questions = [
        " ".join(str(chance.randrange(512)) for _ in range(chance.choice((8, 64, 256))))
        for _ in range(AT_ONCE)
    ]
    span, moment = chance.choice(SPANS), chance.randrange(TOKENS // 2)
    undisturbed = [thicket.undisturbed(question, TOKENS) for question in questions]
    thicket.want_spares(span)
    with ExitStack() as stack:
        chats = [stack.enter_context(thicket.garden.chat(question, TOKENS)) for question in questions]
        wait_until(lambda: len(chats[0].deltas) > moment, f"{moment} tokens have come")
        thicket.kill(thicket.used(span))
        for chat, text in zip(chats, undisturbed, strict=True):
            assert_complete(chat, text)
