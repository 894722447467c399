"""Text completions and embeddings: which replies and vectors a body asks for."""

import json
from typing import Any

import msgspec
import pytest

from schema.api.completions import CompletionRequest
from schema.api.embeddings import MOST_INPUTS, EmbeddingRequest
from schema.api.errors import not_understood
from schema.errors import InvalidRequest
from schema.generation import GenerationRequest


def read(**fields: Any) -> list[GenerationRequest]:
    body = {"model": "m", "prompt": "x"} | fields
    try:
        return msgspec.json.decode(json.dumps(body), type=CompletionRequest).to_generations()
    except msgspec.ValidationError as error:
        raise not_understood(error) from error


def inputs(given: Any) -> list[str | list[int]]:
    body = {"model": "m", "input": given}
    return msgspec.json.decode(json.dumps(body), type=EmbeddingRequest).to_inputs()


FORMS = [
    ("a", ["a"]),
    (["a"], ["a"]),
    (["a", "b"], ["a", "b"]),
    ([1, 2], [[1, 2]]),
    ([[1, 2], [3]], [[1, 2], [3]]),
    (["a", [1]], ["a", [1]]),
]


@pytest.mark.parametrize(("given", "expected"), FORMS, ids=str)
def test_forms_of_prompts_and_inputs(given: Any, expected: list[Any]) -> None:
    assert [one.prompt for one in read(prompt=given)] == expected == inputs(given)


@pytest.mark.parametrize("given", [["a", 1], [1, "a"], [[1], 2]], ids=str)
def test_single_token_ids_among_others_are_refused_by_name(given: Any) -> None:
    with pytest.raises(InvalidRequest) as caught:
        read(prompt=given)
    assert caught.value.param == "prompt"
    with pytest.raises(InvalidRequest) as caught:
        inputs(given)
    assert caught.value.param == "input"


def test_replies_are_bounded() -> None:
    assert len(read(prompt=["x"] * 64, n=2)) == 128
    with pytest.raises(InvalidRequest) as caught:
        read(prompt=["x"] * 65, n=2)
    assert caught.value.param == "prompt"
    assert len(inputs(["x"] * MOST_INPUTS)) == MOST_INPUTS
    with pytest.raises(InvalidRequest):
        inputs(["x"] * (MOST_INPUTS + 1))


def test_each_prompt_has_n_replies_in_its_place() -> None:
    made = read(prompt=["a", "b"], n=2, seed=1)
    assert [(one.prompt, one.sampling.seed) for one in made] == [("a", 1), ("a", 2), ("b", 1), ("b", 2)]


@pytest.mark.parametrize(
    ("fields", "tokens", "echo", "logprobs"),
    [
        ({}, 16, False, None),
        ({"max_tokens": 3, "echo": False}, 3, False, None),
        ({"max_tokens": 0, "echo": True, "logprobs": 5}, 0, True, 5),
        ({"logprobs": 0}, 16, False, 0),
        ({"best_of": 1}, 16, False, None),
    ],
    ids=str,
)
def test_what_is_told_of_a_text(
    fields: dict[str, Any], tokens: int, echo: bool, logprobs: int | None
) -> None:
    (body,) = read(**fields)
    assert (body.stopping.max_tokens, body.echo, body.logprobs) == (tokens, echo, logprobs)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": -1}, "max_tokens"),
        ({"logprobs": 21}, "logprobs"),
        ({"logprobs": True}, "logprobs"),
        ({"best_of": 2}, "best_of"),
        ({"best_of": 3, "n": 2}, "best_of"),
        ({"suffix": "s"}, "suffix"),
        ({"messages": []}, "messages"),
    ],
    ids=str,
)
def test_what_is_not_served_is_refused_by_name(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        read(**fields)
    assert caught.value.param == param


def test_as_many_as_the_best_of_is_no_choice() -> None:
    assert len(read(best_of=2, n=2)) == 2
