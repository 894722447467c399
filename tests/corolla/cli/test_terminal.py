"""What reaches a terminal can neither steer nor deceive it, and columns are aligned."""

import os
import subprocess
import sys

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from corolla.cli.terminal import columns, json_line, visible
from tests.corolla.cli.fake_relay import Answer, FakeRelay
from tests.corolla.cli.processes import ROOT

HOSTILE = {
    "escape": ("\x1b[31mred", "\\x1b[31mred"),
    "C1 introducer": ("\x9b2J", "\\x9b2J"),
    "title": ("\x1b]0;owned\x07", "\\x1b]0;owned\\x07"),
    "carriage return": ("safe\rEVIL", "safe\\rEVIL"),
    "backspace": ("a\x08b", "a\\x08b"),
    "delete": ("a\x7fb", "a\\x7fb"),
    "nul": ("a\0b", "a\\x00b"),
    "override": ("a\u202eb\u202c", "a\\u202eb\\u202c"),
    "isolate": ("a\u2066b\u2069", "a\\u2066b\\u2069"),
    "line separator": ("a\u2028b", "a\\u2028b"),
    "tag": ("a\U000e0041b", "a\\U000e0041b"),
    "half a pair": ("a\ud800b", "a\\ud800b"),
}


@pytest.mark.parametrize(("text", "shown"), HOSTILE.values(), ids=HOSTILE)
def test_what_steers_a_terminal_is_written_out(text: str, shown: str) -> None:
    assert visible(text) == shown


@pytest.mark.parametrize("text", ["tab\there", "two\nlines", "naïve 花 🌸 👩‍🔬", "שלום", "مرحبا"])
def test_text_stays_text(text: str) -> None:
    assert visible(text) == text


@given(st.text())
def test_nothing_that_steers_is_left(text: str) -> None:
    assert not any(
        (ord(left) < 32 and left not in "\n\t") or 0x7F <= ord(left) < 0xA0 for left in visible(text)
    )


@given(st.text())
def test_json_means_the_same_and_is_one_harmless_line(text: str) -> None:
    line = json_line(msgspec.json.format(msgspec.json.encode({"text": text}), indent=2))
    assert msgspec.json.decode(line) == {"text": text}
    assert visible(line) == line
    assert "\n" not in line


def test_columns_are_as_wide_as_they_look() -> None:
    table = columns(("NAME", "N", "END"), [("花", "7", "x"), ("long name", "12", "y")], right=("N",))
    assert table == "NAME        N  END\n花          7  x\nlong name  12  y"


def test_a_cell_cannot_make_a_row_of_its_own() -> None:
    assert columns(("A",), [("one\ntwo\x1b[2J",)]) == "A\none\\ntwo\\x1b[2J"


@pytest.mark.parametrize(
    ("closed", "is_heard"), [("<&-", True), (">&-", False), ("2>&-", True), ("<&- >&- 2>&-", False)]
)
def test_a_stream_that_is_closed_is_no_mistake(closed: str, is_heard: bool, fake: FakeRelay) -> None:
    fake.says("GET /v1/models", Answer({"object": "list", "data": [{"id": "llama", "created": 1}]}))
    fake.says("POST /v1/chat/completions", Answer({"choices": [], "id": "a", "created": 1, "model": "llama"}))
    shell = f'exec "$0" -m corolla chat Hello --json {closed}'
    ended = subprocess.run(
        ["/bin/sh", "-c", shell, sys.executable],
        env={**os.environ, "PYTHONPATH": str(ROOT), "COROLLA_API_KEY": fake.token},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert (ended.returncode, bool(ended.stdout), ended.stderr) == (0, is_heard, b"")
    assert [asked.path for asked in fake.asked] == ["/v1/models", "/v1/chat/completions"]
