"""relay/batches/taken.py: what a line's answer says that it took."""

import msgspec
import pytest

from relay.batches.taken import NOTHING, Taken, taken_by
from relay.embedding import WrittenEmbeddings
from schema.api.completions import TextCompletion
from schema.api.embeddings import EmbeddingUsage
from schema.generation import PromptDetails, Usage


def text(usage: Usage | None) -> TextCompletion:
    return TextCompletion(id="cmpl-1", created=1, model="m", choices=[], usage=usage)


@pytest.mark.parametrize(
    ("answer", "taken"),
    [
        (text(Usage(10, 3, 13)), Taken(10, 0, 3)),
        (text(Usage(10, 3, 13, PromptDetails(cached_tokens=8))), Taken(10, 8, 3)),
        (text(None), NOTHING),
        (
            WrittenEmbeddings(
                data=msgspec.Raw(b"[]"), model="m", usage=EmbeddingUsage(prompt_tokens=7, total_tokens=7)
            ),
            Taken(7, 0, 0),
        ),
    ],
)
def test_an_answer_says_what_it_took(answer: msgspec.Struct, taken: Taken) -> None:
    assert taken_by(answer) == taken
