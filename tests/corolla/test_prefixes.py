"""Which kept session a prompt may begin with: one of its asker's, that can be cut, and that shares most."""

import random
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corolla.prefixes import LEAST_TOKENS, NOTED_SECONDS, KeptSession, Match, PrefixIndex, Wanted
from schema.ids import PeerId, SessionId, Span
from schema.routes import Hop
from tests.corolla.fakes import ANEMONE, BELLIS, FAR_AWAY

NEAR = (Hop(ANEMONE, Span(0, 4)),)
BASE = list(range(LEAST_TOKENS))
AT_ALL: Callable[[int], int] = lambda held: held  # noqa: E731


def kept(
    name: str, tokens: list[int], *, asker: str = "ada", model: str = "tiny", hops: tuple[Hop, ...] = FAR_AWAY
) -> KeptSession:
    session = SessionId(name.encode().ljust(16, b"."))
    return KeptSession(session, model, asker, hops, b"route", tuple(tokens))


def wanted(prompt: list[int], hops: tuple[Hop, ...] | None = None) -> Wanted:
    return Wanted("tiny", "ada", prompt, hops)


def index_of(*sessions: KeptSession, back: Callable[[int], int] = AT_ALL) -> PrefixIndex:
    index = PrefixIndex(back)
    for session in sessions:
        assert index.note(session, 0.0) == []
    return index


def found(
    index: PrefixIndex, prompt: list[int], hops: tuple[Hop, ...] | None = None
) -> tuple[str, int] | None:
    match = index.find(wanted(prompt, hops), 1.0)
    return match and (match.kept.id.rstrip(b".").decode(), match.tokens)


def test_the_longest_common_prefix_is_found() -> None:
    index = index_of(kept("a", [*BASE, 1, 2]), kept("b", [*BASE, 1, 3, 4, 9]), kept("c", [*BASE, 1, 3, 5]))
    assert found(index, [*BASE, 1, 3, 4, 7, 8]) == ("b", LEAST_TOKENS + 3)


def test_one_token_of_the_prompt_is_left() -> None:
    index = index_of(kept("a", [*BASE, 1, 2, 3]))
    assert found(index, [*BASE, 1, 2, 3]) == ("a", LEAST_TOKENS + 2)
    assert found(index, [*BASE, 1]) == ("a", LEAST_TOKENS)


def test_few_tokens_are_not_worth_it() -> None:
    index = index_of(kept("a", [*BASE, 1, 2]))
    assert found(index, BASE) is None
    assert found(index, [*BASE[:-1], 99, 98]) is None
    assert found(index, []) is None


def test_only_the_asker_s_own_are_found() -> None:
    index = index_of(kept("a", [*BASE, 1], asker="bob"), kept("b", [*BASE, 1], model="other"))
    assert found(index, [*BASE, 1, 2]) is None


def test_with_a_route_only_what_its_hops_keep_is_found() -> None:
    index = index_of(kept("far", [*BASE, 1]), kept("near", [*BASE, 2], hops=NEAR))
    prompt = [*BASE, 1, 2]
    assert found(index, prompt) == ("far", LEAST_TOKENS + 1)
    assert found(index, prompt, NEAR) == ("near", LEAST_TOKENS)
    assert found(index, prompt, (Hop(BELLIS, Span(0, 4)),)) is None


def test_what_cannot_be_cut_matches_as_a_whole_or_not() -> None:
    index = index_of(kept("a", [*BASE, 1, 2]), back=lambda held: 0)
    assert found(index, [*BASE, 1, 3, 4]) is None
    assert found(index, [*BASE, 1, 2]) is None  # the last token's output is needed
    assert found(index, [*BASE, 1, 2, 3]) == ("a", LEAST_TOKENS + 2)


def test_what_can_be_cut_a_little_matches_nearly_as_a_whole() -> None:
    index = index_of(kept("a", [*BASE, *range(100, 120)]), back=lambda held: 5)
    assert found(index, [*BASE, *range(100, 115), 7]) == ("a", LEAST_TOKENS + 15)
    assert found(index, [*BASE, *range(100, 114), 7]) is None


def test_the_next_turn_replaces_the_one_before() -> None:
    first, branch = kept("first", [*BASE, 1]), kept("branch", [*BASE, 2])
    index = index_of(first, branch)
    assert index.note(kept("second", [*BASE, 1, 2, 3]), 1.0) == [first]
    assert (len(index), index.tokens) == (2, 2 * LEAST_TOKENS + 4)
    assert index.note(kept("others", [*BASE, 1, 2, 3, 4], asker="bob"), 1.0) == []
    assert index.note(kept("elsewhere", [*BASE, 1, 2, 3, 4], hops=NEAR), 1.0) == []


def test_where_nothing_can_be_cut_nothing_is_replaced() -> None:
    index = index_of(kept("first", [*BASE, 1]), back=lambda held: 0)
    assert index.note(kept("second", [*BASE, 1, 2]), 1.0) == []


def test_what_was_not_used_for_long_is_dropped() -> None:
    old, used = kept("old", [*BASE, 1]), kept("used", [*BASE, 2])
    index = index_of(old, used)
    assert index.find(wanted([*BASE, 2, 3]), NOTED_SECONDS) is not None
    assert index.find(wanted([*BASE, 1, 3]), NOTED_SECONDS + 1) == Match(used, LEAST_TOKENS)
    assert len(index) == 1
    assert index.note(kept("new", [*BASE, 3]), 2 * NOTED_SECONDS + 2) == [used]


def test_the_least_recently_used_goes_when_there_are_too_many() -> None:
    index = PrefixIndex(AT_ALL, most_sessions=2)
    first, second = kept("first", [*BASE, 1]), kept("second", [*BASE, 2])
    index.note(first, 0.0)
    index.note(second, 0.0)
    index.find(wanted([*BASE, 1, 1]), 0.0)
    assert index.note(kept("third", [*BASE, 3]), 0.0) == [second]


def test_or_too_long_together() -> None:
    index = PrefixIndex(AT_ALL, most_tokens=3 * LEAST_TOKENS)
    first = kept("first", [*BASE, 1])
    index.note(first, 0.0)
    index.note(kept("second", [*BASE, 2]), 0.0)
    assert index.note(kept("third", [*BASE, 3]), 0.0) == [first]
    huge = kept("huge", list(range(100, 100 + 4 * LEAST_TOKENS)))
    assert huge in index.note(huge, 0.0)
    assert (len(index), index.tokens) == (0, 0)


def test_what_is_forgotten_is_not_found() -> None:
    session = kept("a", [*BASE, 1])
    index = index_of(session)
    index.forget(session.id)
    index.forget(session.id)
    assert found(index, [*BASE, 1, 2]) is None
    assert (len(index), index.tokens) == (0, 0)


def test_volunteers_that_are_gone_take_everything_along() -> None:
    far = kept("far", [*BASE, 1])
    index = index_of(far, kept("near", [*BASE, 2], hops=NEAR))
    assert index.forget_hops({BELLIS, PeerId("0" * 16)}) == [far]
    assert (len(index), index.tokens) == (1, LEAST_TOKENS + 1)


@pytest.mark.parametrize(
    ("held", "tokens", "worth"),
    [(40, 40, True), (40, 38, True), (40, 37, False), (LEAST_TOKENS, LEAST_TOKENS - 1, False)],
)
def test_a_session_is_worth_keeping_that_can_be_cut_to_what_all_hops_hold(
    held: int, tokens: int, worth: bool
) -> None:
    assert PrefixIndex(lambda _: 2).can_cut(held, tokens) is worth


@given(st.integers(0, 2**32))
def test_a_match_is_what_counting_gives(seed: int) -> None:
    rng = random.Random(seed)

    def sequence() -> list[int]:
        return [*BASE, *rng.choices([1, 2], k=rng.randrange(6))]

    index = PrefixIndex(AT_ALL, most_sessions=4)
    noted: dict[SessionId, list[int]] = {}
    for number in range(12):
        tokens = sequence()
        noted[kept(str(number), tokens).id] = tokens
        for dropped in index.note(kept(str(number), tokens), 0.0):
            del noted[dropped.id]
        assert index.tokens == sum(map(len, noted.values()))
        assert len(index) == len(noted) <= 4
        prompt = sequence()
        most = max(_shared(tokens, prompt) for tokens in noted.values())
        match = index.find(wanted(prompt), 0.0)
        assert (match.tokens if match else 0) == (most if most >= LEAST_TOKENS else 0)


def _shared(tokens: list[int], prompt: list[int]) -> int:
    limit = min(len(tokens), len(prompt) - 1)
    return next((at for at in range(limit) if tokens[at] != prompt[at]), limit)
