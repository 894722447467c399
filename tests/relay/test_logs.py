"""relay/logs.py: one line an event, whatever is in it."""

import io
import json
import logging
from typing import Any

import pytest

from relay.logs import configure_logs
from relay.settings import LogFormat, Settings

log = logging.getLogger("tests.relay.logs")
pytestmark = pytest.mark.usefixtures("logs_as_before")


def logging_to(chosen: LogFormat) -> io.StringIO:
    stream = io.StringIO()
    configure_logs(Settings(log_format=chosen, replica="here"), stream)
    return stream


def the_entry(stream: io.StringIO) -> dict[str, Any]:
    (line,) = stream.getvalue().splitlines()
    return json.loads(line)


def test_a_json_line_has_time_level_logger_message_and_replica() -> None:
    stream = logging_to("json")
    log.warning("peer %s is slow", "x")
    entry = the_entry(stream)
    assert entry.pop("time").endswith("+00:00")
    assert entry == {
        "level": "WARNING",
        "logger": "tests.relay.logs",
        "message": "peer x is slow",
        "replica": "here",
    }


def test_context_is_printed_and_bytes_are_hex() -> None:
    stream = logging_to("json")
    log.info("step", extra={"session": b"\x01\xff", "step": 3, "peer": "ab", "request": "r-1"})
    entry = the_entry(stream)
    assert (entry["session"], entry["step"], entry["peer"], entry["request"]) == ("01ff", 3, "ab", "r-1")


def test_a_field_that_is_not_context_is_not_printed() -> None:
    stream = logging_to("json")
    log.info("signed in", extra={"token": "hunter2"})
    assert "hunter2" not in stream.getvalue()


def test_a_traceback_stays_in_its_json_line() -> None:
    stream = logging_to("json")
    try:
        raise ValueError("no")
    except ValueError:
        log.exception("failed")
    assert the_entry(stream)["error"].endswith("ValueError: no")


@pytest.mark.parametrize("odd", ["half a pair \ud800", 2**70, object()])
def test_what_json_cannot_hold_is_logged_all_the_same(odd: object) -> None:
    stream = logging_to("json")
    log.info("odd", extra={"peer": odd})
    assert the_entry(stream)["message"] == "odd"


def test_a_text_line_has_message_and_context() -> None:
    stream = logging_to("text")
    log.info("joined", extra={"peer": "ab"})
    assert stream.getvalue().endswith("INFO    tests.relay.logs: joined  peer=ab\n")


@pytest.mark.parametrize("chosen", ["json", "text"])
def test_a_message_cannot_begin_a_line_of_its_own(chosen: LogFormat) -> None:
    stream = logging_to(chosen)
    log.info("name: %s", "x\r\nERROR\u2028forged\x1b[2J", extra={"reason": "y\nz"})
    assert stream.getvalue().count("\n") == 1
    assert "\r" not in stream.getvalue()
    assert "\x1b" not in stream.getvalue()


def test_lines_below_the_level_are_left_out() -> None:
    stream = io.StringIO()
    configure_logs(Settings(log_level="WARNING"), stream)
    log.info("quiet")
    assert stream.getvalue() == ""
