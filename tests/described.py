"""Holds answers against the description of the HTTP interface, one by one.

For what schemathesis does not ask, or cannot: answers to several requests at once, streams that have no end.
"""

from typing import Any

import httpx
from jsonschema import Draft202012Validator

from relay.openapi import document
from relay.operations import OPERATIONS

DESCRIBED = document(OPERATIONS)


def assert_described(answer: httpx.Response) -> None:
    """That an answer has a status, a type and a body that its operation is described with.

    Of an answer that is a stream, use `assert_event_described` for what it brings.
    """
    told = _answer(answer.request.method, answer.request.url.path, answer.status_code)
    media = answer.headers["Content-Type"].partition(";")[0]
    assert media in told["content"], f"{media} is not described"
    if media == "application/json":
        _validate(answer.json(), told["content"][media]["schema"])


def assert_event_described(path: str, data: object) -> None:
    """That what a server-sent event of `GET path` holds is of the described shape."""
    shape = _answer("GET", path, 200)["content"]["text/event-stream"]["schema"]
    kinds = shape["properties"]["data"]["anyOf"]
    _validate(data, next(kind["contentSchema"] for kind in kinds if "contentSchema" in kind))


def _answer(method: str, path: str, status: int) -> dict[str, Any]:
    answers = DESCRIBED["paths"][path][method.lower()]["responses"]
    assert str(status) in answers, f"{status} is not described"
    told = answers[str(status)]
    return DESCRIBED["components"]["responses"][told["$ref"].rpartition("/")[2]] if "$ref" in told else told


def _validate(body: object, shape: dict[str, Any]) -> None:
    """Raises jsonschema.ValidationError: it is of another shape."""
    Draft202012Validator(shape | {"components": DESCRIBED["components"]}).validate(body)  # pyright: ignore[reportUnknownMemberType]
