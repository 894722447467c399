"""The comparison of libraries: its schemas are schemas, and what a library does wrong is seen."""

from typing import Any, cast

import jsonschema
import numpy as np
import pytest
from transformers import PreTrainedTokenizerFast

from benchmarks.constraints import END, LIBRARIES, SCHEMAS, Tried, figures_of, train_tokenizer, try_schema


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return train_tokenizer(400, 0.05)


@pytest.mark.parametrize("schema", SCHEMAS.values(), ids=SCHEMAS)
def test_every_schema_is_one(schema: dict[str, Any]) -> None:
    jsonschema.Draft202012Validator.check_schema(schema)


class Parrot:
    """Says the same, whatever it is held to."""

    def __init__(self, ids: list[int], size: int) -> None:
        self._ids, self._size = list(ids), size

    def mask(self) -> Any:
        allowed = np.zeros(self._size, dtype=bool)
        allowed[self._ids[0]] = True
        return allowed

    def accept(self, token: int) -> bool:
        self._ids.pop(0)
        return not self._ids


def parrot(says: str, tokenizer: PreTrainedTokenizerFast, schema: dict[str, Any]) -> Tried:
    ids = [*cast(Any, tokenizer).encode(says), cast(Any, tokenizer).convert_tokens_to_ids(END)]
    return try_schema(lambda _: lambda: Parrot(ids, len(tokenizer)), schema, tokenizer)


@pytest.mark.parametrize(("says", "is_right"), [("7", True), ('"7"', False), ("7 7", False)])
def test_what_is_not_of_the_schema_is_wrong(
    says: str, is_right: bool, tokenizer: PreTrainedTokenizerFast
) -> None:
    tried = parrot(says, tokenizer, {"type": "integer"})
    assert (bool(tried.wrong), tried.finished > 0) == (not is_right, True)


def test_the_library_that_is_used_refuses_what_it_cannot_honour(tokenizer: PreTrainedTokenizerFast) -> None:
    compile_schema = LIBRARIES["llguidance"](tokenizer)
    tried = {
        name: try_schema(compile_schema, SCHEMAS[name], tokenizer)
        for name in ("constants", "a large enum", "what must not be")
    }
    figures = figures_of(tried)
    assert (round(figures["compiled"], 2), round(figures["obeyed"], 2)) == (0.67, 0.67)
    assert list(figures["refused"]) == ["what must not be"]
    assert figures["disobeyed"] == {}
