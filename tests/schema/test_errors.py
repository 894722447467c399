"""The error tree: names, codes and statuses."""

import re

import pytest

import schema.errors
from schema.errors import (
    ContextTooLong,
    CorollaError,
    FrameRefused,
    InvalidRequest,
    MalformedFrame,
    ProtocolViolation,
    RouteForged,
    StepFailed,
    all_errors,
    error_from_code,
)

CLASSES = [kind for kind in vars(schema.errors).values() if isinstance(kind, type)]
ERRORS = [kind for kind in CLASSES if issubclass(kind, CorollaError)]
EACH = pytest.mark.parametrize("error", ERRORS, ids=lambda kind: kind.__name__)


def test_codes_are_unique() -> None:
    assert len({error.code for error in ERRORS}) == len(ERRORS)


@EACH
def test_every_class_has_a_code_of_its_own(error: type[CorollaError]) -> None:
    assert re.fullmatch("[a-z]+(_[a-z]+)*", vars(error)["code"])


@EACH
def test_every_class_has_a_close_code_that_an_endpoint_may_send(error: type[CorollaError]) -> None:
    # RFC 6455 section 7.4, and the IANA registry for 1012 to 1014.
    sendable = {1000, 1001, 1002, 1003, 1007, 1008, 1009, 1011, 1012, 1013}
    assert error.close_code in sendable or 4000 <= error.close_code <= 4999


@EACH
def test_every_class_has_a_status_of_an_error(error: type[CorollaError]) -> None:
    assert 400 <= error.http_status <= 599


@EACH
def test_every_class_is_among_all_errors(error: type[CorollaError]) -> None:
    assert all_errors()[error.code] is error


@EACH
def test_every_class_is_made_again_from_its_code(error: type[CorollaError]) -> None:
    made = error_from_code(error.code, "words", retry_after=1.5)
    assert (type(made), made.message, made.retry_after) == (error, "words", 1.5)


@EACH
def test_every_class_is_an_exception_with_its_words(error: type[CorollaError]) -> None:
    assert str(error("words")) == "words"


def tree_of_the_docstring() -> list[tuple[int, str]]:
    """Depth and name of each class, in order."""
    lines = (schema.errors.__doc__ or "").splitlines()
    found = [re.match(r"^    ((?:│   |    )*(?:[├└]── )?)([A-Z]\w+)(?: {2,}|$)", line) for line in lines]
    return [(len(match[1]) // 4, match[2]) for match in found if match]


def test_docstring_lists_each_class_below_its_base() -> None:
    above: list[str] = []
    found: dict[str, str] = {}
    for depth, name in tree_of_the_docstring():
        above = [*above[:depth], name]
        found[name] = above[depth - 1] if depth else "Exception"
    assert found == {error.__name__: error.__bases__[0].__name__ for error in ERRORS}


def test_only_a_request_that_is_refused_has_a_field_at_fault() -> None:
    assert error_from_code("invalid_request", "no", param="tools").param == "tools"  # pyright: ignore
    assert not hasattr(error_from_code("peer_gone", "no", param="tools"), "param")


def test_unknown_code_is_kept_in_words() -> None:
    error = error_from_code("weather", "it rains", retry_after=3.0)
    assert (type(error), error.message, error.retry_after) == (CorollaError, "weather: it rains", 3.0)


def test_violations_and_refusals_are_apart() -> None:
    assert not issubclass(RouteForged, ProtocolViolation)
    assert not issubclass(MalformedFrame, FrameRefused)


def test_a_step_that_fails_is_no_fault_of_the_connection() -> None:
    assert not issubclass(StepFailed, ProtocolViolation)


def test_too_long_a_context_is_an_invalid_request() -> None:
    assert issubclass(ContextTooLong, InvalidRequest)
