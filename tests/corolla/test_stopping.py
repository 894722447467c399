"""What stop strings promise: the same reply however the text is cut, and nothing held back needlessly."""

from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from corolla.stopping import StopStrings

SMALL = "ab"  # few letters, so that stop strings overlap, repeat and nest
TEXTS = st.text(SMALL, max_size=30)
STOPS = st.lists(st.text(SMALL, min_size=1, max_size=5), max_size=4)


def naive(text: str, stops: list[str]) -> tuple[str, bool]:
    """Read one character after the other until what was read ends with a stop string."""
    for end in range(len(text) + 1):
        starts = [end - len(stop) for stop in stops if text[:end].endswith(stop)]
        if starts:
            return text[: min(starts)], True
    return text, False


def pieces(text: str, cuts: list[int]) -> list[str]:
    borders = [0, *sorted(cut % (len(text) + 1) for cut in cuts), len(text)]
    return [text[start:end] for start, end in pairwise(borders)]


def reply_of(parts: list[str], stops: list[str]) -> tuple[str, bool]:
    searcher = StopStrings(stops)
    reply = "".join(searcher.push(part)[0] for part in parts)
    return reply + searcher.flush(), searcher.stopped


@given(TEXTS, STOPS, st.lists(st.integers(0, 1000), max_size=12))
@example("abcd", ["abcd", "c"], [1, 2, 3])
@example("aab", ["ab", "aab"], [2])
def test_the_reply_is_the_same_however_the_text_is_cut(text: str, stops: list[str], cuts: list[int]):
    assert reply_of(pieces(text, cuts), stops) == naive(text, stops)


@given(TEXTS, STOPS, st.lists(st.integers(0, 1000), max_size=12))
def test_what_goes_out_is_never_taken_back_and_never_late(text: str, stops: list[str], cuts: list[int]):
    """Held back is exactly the longest end that may still become a stop string."""
    searcher = StopStrings(stops)
    read = sent = ""
    for part in pieces(text, cuts):
        emitted, stopped = searcher.push(part)
        read += part
        sent += emitted
        if stopped:
            return
        held = read[len(sent) :]
        candidates = [read[at:] for at in range(len(read)) if any(s.startswith(read[at:]) for s in stops)]
        assert read == sent + held
        assert held == max(candidates, key=len, default="")


@given(st.text(max_size=40), st.text(min_size=1, max_size=3), st.lists(st.integers(0, 1000), max_size=12))
def test_one_stop_string_cuts_where_find_finds_it(text: str, stop: str, cuts: list[int]):
    at = text.find(stop)
    expected = (text, False) if at < 0 else (text[:at], True)
    assert reply_of(pieces(text, cuts), [stop]) == expected


def test_a_stop_string_over_three_pieces():
    searcher = StopStrings(["</end>"])
    assert searcher.push("Hello <") == ("Hello ", False)
    assert searcher.push("/en") == ("", False)
    assert searcher.push("d> more") == ("", True)


def test_what_only_looked_like_a_stop_string_goes_out():
    searcher = StopStrings(["\nUser:"])
    assert searcher.push("ok\nUse") == ("ok", False)
    assert searcher.push(" it") == ("\nUse it", False)


def test_a_stop_string_inside_the_beginning_of_another_ends_the_reply_at_once():
    searcher = StopStrings(["abcd", "c"])
    assert searcher.push("ab") == ("", False)
    assert searcher.push("c") == ("ab", True)


def test_of_two_complete_at_once_the_longer_is_left_out():
    assert StopStrings(["b", "ab"]).push("xab") == ("x", True)


def test_text_after_the_end_is_ignored():
    searcher = StopStrings(["."])
    searcher.push("One. Two.")
    assert searcher.push(" Three") == ("", True)
    assert searcher.flush() == ""


def test_flush_gives_what_was_held_back():
    searcher = StopStrings(["STOP"])
    searcher.push("do not STO")
    assert searcher.flush() == "STO"


def test_flush_gives_nothing_twice():
    searcher = StopStrings(["STOP"])
    searcher.push("ST")
    searcher.flush()
    assert searcher.flush() == ""


@pytest.mark.parametrize("stop", [[], [""]], ids=["none", "empty"])
def test_without_stop_strings_all_text_goes_out_at_once(stop: list[str]):
    assert StopStrings(stop).push("anything") == ("anything", False)
