"""The text generator is deterministic, and keeps the questions of the score away from training."""

import hashlib
import os
import subprocess
import sys
from itertools import islice
from random import Random

import pytest

from examples.demo_model.corpus import FIRST_MESSAGES, conversations, normalised
from examples.demo_model.corpus.arithmetic import is_sum_held_out
from examples.demo_model.corpus.catalogue import catalogue
from examples.demo_model.corpus.grammar import Pattern, PatternError
from examples.demo_model.corpus.held_out import Question, held_out_questions
from examples.demo_model.corpus.split import is_unseen, is_wording_held_out

CONTEXTUAL = ("follow-ups", "remembering", "name in the system prompt")
TRAINED_ON = "0993721eaebb199d1a0b7f0e796ae4d988081c6aae5ed61ddfbf5a7b992e5337"

FINGERPRINT = """
import hashlib
from examples.demo_model.packing import Packer
from examples.demo_model.evaluate import SHIPPED
rows = Packer(SHIPPED, "corolla 1", 2).chunk(0)
print(hashlib.sha256(rows.tokens.tobytes() + rows.labels.tobytes()).hexdigest())
"""


@pytest.fixture(scope="module")
def questions() -> list[Question]:
    return held_out_questions(20)


@pytest.fixture(scope="module")
def trained_messages() -> set[str]:
    """What users say in some thousands of training chats, normalised."""
    chats = islice(conversations("a test"), 3000)
    return {normalised(exchange.question) for chat in chats for exchange in chat.exchanges}


def test_the_same_seed_gives_the_same_chats() -> None:
    first, second = (list(islice(conversations("seed"), 50)) for _ in range(2))
    assert [chat.messages() for chat in first] == [chat.messages() for chat in second]


def test_another_seed_gives_other_chats() -> None:
    first, second = (next(conversations(seed)).messages() for seed in ("one", "two"))
    assert first != second


@pytest.mark.slow
@pytest.mark.parametrize("hash_seed", ["1", "2"])
def test_another_process_packs_the_same_rows(hash_seed: str) -> None:
    environment = os.environ | {"PYTHONHASHSEED": hash_seed}
    done = subprocess.run(
        [sys.executable, "-c", FINGERPRINT], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == TRAINED_ON, (
        "the generator no longer writes the text that the shipped model was trained on: "
        "train the model again, or undo the change"
    )


def test_held_out_questions_are_the_same_every_time(questions: list[Question]) -> None:
    assert held_out_questions(20) == questions


def test_no_held_out_question_is_in_training(questions: list[Question], trained_messages: set[str]) -> None:
    asked = {normalised(q.messages[-1]["content"]) for q in questions if q.category not in CONTEXTUAL}
    assert not asked & trained_messages


def test_hand_written_questions_are_never_drawn_for_training() -> None:
    rng, known = Random(1), catalogue()
    drawn = (known.make(rng, known.drawn.draw(rng), held_out=False) for _ in range(20_000))
    assert not any(is_unseen(exchange.question) for exchange in drawn if exchange)


def test_every_fitting_answer_passes_its_own_check() -> None:
    rng, known = Random(2), catalogue()
    for category in known.makers:
        for held_out in (False, True):
            exchange = known.make(rng, category, held_out)
            assert exchange is not None, category
            assert exchange.check.passes(exchange.answer), (category, exchange)


def test_every_category_is_scored(questions: list[Question]) -> None:
    assert {question.category for question in questions} >= {
        *catalogue().makers,
        "unseen wording",
        *CONTEXTUAL,
    }


def test_first_messages_are_not_part_of_the_score(questions: list[Question]) -> None:
    first = {normalised(text) for text in FIRST_MESSAGES}
    assert not any(is_wording_held_out(text) for text in FIRST_MESSAGES)
    alone = [q for q in questions if q.category not in CONTEXTUAL]
    assert not any(normalised(q.messages[-1]["content"]) in first for q in alone)


def test_a_sum_and_its_mirror_are_on_the_same_side() -> None:
    pairs = [(x, y) for x in range(100) for y in range(100)]
    assert all(is_sum_held_out("plus", x, y) == is_sum_held_out("plus", y, x) for x, y in pairs)
    assert 0.05 < sum(is_sum_held_out("plus", x, y) for x, y in pairs) / len(pairs) < 0.12


def test_a_pattern_expands_choices_and_slots() -> None:
    tables = {"animal": ["owl"]}
    assert (
        Pattern("{a|a} <a:animal>, <Animal>, <A:animal> \\{x\\}").expand(Random(1), tables)
        == "a an owl, Owl, An owl {x}"
    )


def test_an_open_brace_is_refused() -> None:
    with pytest.raises(PatternError, match="not closed"):
        Pattern("{a|b")


def test_a_slot_without_a_table_is_refused() -> None:
    with pytest.raises(PatternError, match="<animal>"):
        Pattern("<animal>").expand(Random(1), {})


def test_text_has_a_stable_digest_for_the_same_seed() -> None:
    def digest() -> str:
        text = "\n".join(str(chat.messages()) for chat in islice(conversations("digest"), 20))
        return hashlib.sha256(text.encode()).hexdigest()

    assert digest() == digest()
