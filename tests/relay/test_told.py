"""relay/told.py: whatever heads tell, each character, token, score and call goes on once."""

import itertools
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import UNSET

from relay import told
from relay.told import Told, scores_of, size_of
from schema.errors import GenerationFailed
from schema.generation import GenerationRequest, ScoredToken, TokenLogprob, Tool, Tools
from schema.messages import CallMade, Delta, PromptPart

EVERYTHING = GenerationRequest(
    model="m", prompt="p", logprobs=1, echo=True, tools=Tools([Tool("f")])
)  # no request asks for all of it; each part is told apart


def score(text: str) -> ScoredToken:
    return ScoredToken(text, text.encode(), -1.0)


def whole_reply() -> Delta:
    """What a reply consists of, in one piece."""
    return Delta(
        request="r",
        text="abcdef",
        tokens=6,
        ids=[1, 2, 3, 4, 5, 6],
        scored=[score(letter) for letter in "abcdef"],
        prompt=PromptPart(text="pqr", scored=[score(letter) for letter in "pqr"]),
    )


def pieces(cuts: list[int], end: int) -> Iterable[Delta]:
    """The first `end` characters of it, prompt first, cut into deltas."""
    whole = whole_reply()
    assert whole.prompt is not UNSET
    assert whole.ids is not UNSET
    assert whole.scored is not UNSET
    for letter, token in zip(whole.prompt.text, whole.prompt.scored, strict=True):
        yield Delta(request="r", text="", tokens=0, prompt=PromptPart(text=letter, scored=[token]))
    marks = sorted({0, end, *(cut for cut in cuts if cut < end)})
    for start, stop in itertools.pairwise(marks):
        yield Delta(
            request="r",
            text=whole.text[start:stop],
            tokens=stop,
            ids=whole.ids[start:stop],
            scored=whole.scored[start:stop],
        )
    for number in range(end // 3):
        yield Delta(request="r", text="", tokens=end, call=CallMade(index=number, name="f", arguments="{}"))


CUTS = st.lists(st.integers(0, 6), max_size=6)


@given(heads=st.lists(st.tuples(CUTS, st.integers(0, 6)), max_size=4), last=CUTS)
def test_what_several_heads_tell_is_told_once(heads: list[tuple[list[int], int]], last: list[int]) -> None:
    one = Told(EVERYTHING)
    heard: list[Delta] = []
    for cuts, end in [*heads, (last, 6)]:
        one.begin()
        heard += [new for delta in pieces(cuts, end) if (new := one.take(delta)) is not None]
    assert "".join(delta.text for delta in heard) == "abcdef"
    scored = [token.text for delta in heard if delta.scored is not UNSET for token in delta.scored]
    assert "".join(scored) == "abcdef"
    prompts = [delta.prompt for delta in heard if delta.prompt is not UNSET]
    assert "".join(part.text for part in prompts) == "pqr"
    assert "".join(token.text for part in prompts for token in part.scored) == "pqr"
    assert [delta.call.index for delta in heard if delta.call is not UNSET] == [0, 1]
    assert one.ids == [1, 2, 3, 4, 5, 6]


def test_what_is_not_asked_for_is_not_told() -> None:
    one = Told(GenerationRequest(model="m", prompt="p"))
    call = CallMade(index=0, name="f", arguments="{}")
    given_all = Delta(
        request="r",
        text="x",
        tokens=1,
        scored=[score("x")],
        prompt=PromptPart(text="p", scored=[]),
        call=call,
    )
    assert one.take(given_all) == Delta(request="r", text="x", tokens=1)


def test_a_delta_without_anything_new_is_nothing() -> None:
    assert Told(EVERYTHING).take(Delta(request="r", text="", tokens=1, ids=[1])) is None


def test_a_score_whose_text_is_held_back_is_told() -> None:
    new = Told(EVERYTHING).take(Delta(request="r", text="", tokens=1, ids=[1], scored=[score("\ufffd")]))
    assert new is not None
    assert new.scored == [score("\ufffd")]


def test_a_reply_is_not_endless(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(told, "MAX_REPLY_CHARS", 1000)
    one = Told(EVERYTHING)
    empty = Delta(request="r", text="", tokens=0)
    assert [one.take(empty) for _ in range(10)] == [None] * 10
    with pytest.raises(GenerationFailed, match="more than any reply may hold"):
        one.take(empty)


def test_everything_counts() -> None:
    empty_delta = Delta(request="r", text="", tokens=0)
    empty = size_of(empty_delta)
    alternatives = [TokenLogprob("a", b"a", -1.0)] * 20
    many = ScoredToken("a", b"a", -1.0, alternatives)
    deltas = [
        Delta(request="r", text="abc", tokens=0),
        Delta(request="r", text="", tokens=0, ids=[1]),
        Delta(request="r", text="", tokens=0, scored=[score("a")]),
        Delta(request="r", text="", tokens=0, prompt=PromptPart(text="a", scored=[])),
        Delta(request="r", text="", tokens=0, call=CallMade(index=0, name="f", arguments="{}")),
    ]
    assert all(size_of(delta) > empty for delta in deltas)
    told_alone = Delta(request="r", text="", tokens=0, scored=[many])
    told_with_the_prompt = Delta(
        request="r", text="", tokens=0, prompt=PromptPart(text="", scored=[many, many])
    )
    assert (scores_of(empty_delta), scores_of(told_alone), scores_of(told_with_the_prompt)) == (0, 21, 42)


def test_log_probabilities_are_not_endless(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that another head tells again do not count twice."""
    monkeypatch.setattr(told, "MAX_SCORES", 4)
    one = Told(EVERYTHING)
    for _ in range(3):
        one.begin()
        one.take(Delta(request="r", text="a", tokens=1, ids=[1], scored=[score("a")] * 4))
    with pytest.raises(GenerationFailed, match="log-probabilities"):
        one.take(Delta(request="r", text="a", tokens=1, ids=[1], scored=[score("a")]))


def test_the_texts_of_scores_count() -> None:
    """Else a head could write as many of them as it likes."""
    short, long = (
        ScoredToken(text, text.encode(), -1.0, [TokenLogprob(text, text.encode(), -1.0)])
        for text in ("a", "a" * 1000)
    )
    sizes = [size_of(Delta(request="r", text="", tokens=0, scored=[one])) for one in (short, long)]
    assert sizes[1] - sizes[0] >= 4 * 999
