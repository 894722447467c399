"""How much of a model fits in how much memory, and in which form it is held then."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corolla.models.facts import ModelFacts
from schema.ids import Span
from tests.volunteer.tiny import BLOCKS, tiny_facts, tiny_source
from volunteer.fitting import (
    KV_TOKENS,
    Fit,
    Form,
    ModelSizes,
    Wish,
    choose_form,
    fit_blocks,
    forms_that_fit,
    kv_budget,
    sizes_of,
)

SIZES = ModelSizes(block_bytes=(400,) * 32, head_bytes=1000, kv_bytes_per_token=(1,) * 32)
EXPERTS_EVERY_OTHER = ModelSizes(block_bytes=(100, 900) * 4, head_bytes=0, kv_bytes_per_token=(0,) * 8)


def forms(none: int, int8: int, nf4: int) -> list[Form]:
    """How many blocks fit in each."""
    fits = [Fit(blocks, can_hold_head=True, kv_budget=0) for blocks in (none, int8, nf4)]
    return [Form("none", fits[0]), Form("int8", fits[1]), Form("nf4", fits[2])]


@pytest.fixture(scope="module")
def facts(tmp_path_factory: pytest.TempPathFactory) -> ModelFacts:
    return tiny_facts(tiny_source(tmp_path_factory.mktemp("tiny")))


class TestHowManyBlocks:
    def test_a_model_that_fits_whole_is_held_whole_with_its_head(self) -> None:
        fit = fit_blocks(100_000, SIZES, kv_tokens=100, reserve=1000)
        assert (fit.max_blocks, fit.can_hold_head) == (32, True)
        assert fit.kv_budget == 100_000 - 1000 - 32 * 400 - 1000

    def test_each_block_is_counted_with_its_kv_tokens(self) -> None:
        fit = fit_blocks(5_000, SIZES, kv_tokens=100, reserve=0)
        assert (fit.max_blocks, fit.can_hold_head) == (8, True)
        assert fit.kv_budget == 5_000 - 1000 - 8 * 400

    def test_a_head_that_costs_most_of_the_blocks_is_not_held(self) -> None:
        fit = fit_blocks(1_700, SIZES, kv_tokens=0, reserve=0)
        assert (fit.max_blocks, fit.can_hold_head) == (4, False)

    def test_a_head_that_costs_blocks_of_a_span_that_is_insisted_on_is_not_held(
        self, facts: ModelFacts
    ) -> None:
        span = Span(0, BLOCKS - 1)
        needed = facts.span_bytes + sum(
            weights + KV_TOKENS * per_token
            for weights, per_token in zip(facts.block_bytes, facts.kv_bytes_per_token, strict=True)
        )
        free = int((needed - facts.block_bytes[-1] - KV_TOKENS * facts.kv_bytes_per_token[-1]) / 0.9) + 2
        (insisted,) = forms_that_fit(free, facts, Wish(span), ["none"])
        assert (insisted.fit.max_blocks, insisted.fit.can_hold_head) == (len(span), False)

    def test_where_no_block_fits_a_head_may(self) -> None:
        sizes = ModelSizes(block_bytes=(1000,) * 4, head_bytes=10, kv_bytes_per_token=(1,) * 4)
        fit = fit_blocks(500, sizes, kv_tokens=0, reserve=0)
        assert (fit.max_blocks, fit.can_hold_head) == (0, True)

    def test_what_a_span_takes_beside_its_blocks_is_counted_once(self) -> None:
        sizes = ModelSizes((400,) * 32, head_bytes=1000, kv_bytes_per_token=(1,) * 32, span_bytes=50)
        assert fit_blocks(1000 + 8 * 400 + 50, sizes, kv_tokens=0, reserve=0).max_blocks == 8
        assert fit_blocks(1000 + 8 * 400 + 49, sizes, kv_tokens=0, reserve=0).max_blocks == 7

    def test_the_reserve_is_never_used(self) -> None:
        fit = fit_blocks(1_000, SIZES, kv_tokens=0, reserve=2_000)
        assert (fit.max_blocks, fit.can_hold_head, fit.kv_budget) == (0, False, 0)

    @pytest.mark.parametrize(
        ("free", "blocks"), [(899, 0), (900, 1), (1000, 2), (1899, 2), (1900, 3), (2000, 4), (4000, 8)]
    )
    def test_blocks_of_different_sizes_are_counted_as_they_stand(self, free: int, blocks: int) -> None:
        """The relay says where the span begins, so it has to fit wherever that is."""
        assert fit_blocks(free, EXPERTS_EVERY_OTHER, kv_tokens=0, reserve=0).max_blocks == blocks

    @given(
        free=st.integers(0, 2**40),
        blocks=st.lists(st.tuples(st.integers(1, 2**32), st.integers(0, 2**16)), min_size=1, max_size=40),
        head_bytes=st.integers(1, 2**34),
        kv_tokens=st.integers(0, 2**17),
        reserve=st.integers(0, 2**34),
        start=st.integers(0, 39),
    )
    def test_what_is_said_to_fit_does_fit_anywhere(
        self,
        free: int,
        blocks: list[tuple[int, int]],
        head_bytes: int,
        kv_tokens: int,
        reserve: int,
        start: int,
    ) -> None:
        weights, per_token = zip(*blocks, strict=True)
        sizes = ModelSizes(weights, head_bytes, per_token)
        fit = fit_blocks(free, sizes, kv_tokens, reserve)
        assert 0 <= fit.max_blocks <= len(blocks)
        first = min(start, len(blocks) - fit.max_blocks)
        span = slice(first, first + fit.max_blocks)
        held = sum(weights[span]) + fit.can_hold_head * head_bytes
        if held:
            assert held + kv_tokens * sum(per_token[span]) + reserve <= free
            assert held + fit.kv_budget + reserve <= free
        room = max(0, free - reserve)
        assert fit.kv_budget == kv_budget(room, sizes, fit.max_blocks, fit.can_hold_head)


class TestWhatIsAskedFor:
    @pytest.mark.parametrize(
        ("wish", "count"),
        [
            (Wish(), 32),
            (Wish(max_blocks=6), 6),
            (Wish(max_blocks=60), 32),
            (Wish(blocks=Span(4, 12)), 8),
            (Wish(blocks=Span(4, 12), max_blocks=2), 8),
        ],
    )
    def test_is_the_owner_s_word_or_the_whole_model(self, wish: Wish, count: int) -> None:
        assert wish.count(32) == count


class TestTheForm:
    @pytest.mark.parametrize("is_slow", [False, True])
    @pytest.mark.parametrize(
        ("fitting", "chosen"),
        [((8, 8, 8), "none"), ((7, 8, 8), "int8"), ((3, 7, 8), "nf4"), ((0, 0, 8), "nf4")],
    )
    def test_is_the_first_that_holds_what_is_asked_for(
        self, fitting: tuple[int, int, int], chosen: str, is_slow: bool
    ) -> None:
        assert choose_form(forms(*fitting), 8, is_slow).quantization == chosen

    @pytest.mark.parametrize(
        ("fitting", "fast", "slow"),
        [
            ((2, 4, 7), "nf4", "none"),
            ((5, 5, 6), "nf4", "none"),
            ((5, 5, 5), "none", "none"),
            ((0, 1, 2), "nf4", "int8"),
            ((0, 0, 0), "none", "none"),
        ],
    )
    def test_where_none_does_has_most_blocks_or_fast_ones(
        self, fitting: tuple[int, int, int], fast: str, slow: str
    ) -> None:
        assert choose_form(forms(*fitting), 8, quantizing_is_slow=False).quantization == fast
        assert choose_form(forms(*fitting), 8, quantizing_is_slow=True).quantization == slow

    @given(fitting=st.tuples(*[st.integers(0, 40)] * 3), wanted=st.integers(1, 40), is_slow=st.booleans())
    def test_never_gives_up_what_was_asked_for(
        self, fitting: tuple[int, int, int], wanted: int, is_slow: bool
    ) -> None:
        chosen = choose_form(forms(*fitting), wanted, is_slow)
        assert chosen.fit.max_blocks >= min(wanted, max(fitting)) or is_slow
        if max(fitting) >= wanted:
            assert chosen.fit.max_blocks >= wanted
        if max(fitting):
            assert chosen.fit.max_blocks


class TestAModelsSizes:
    def test_are_those_of_its_blocks_in_each_form(self, facts: ModelFacts) -> None:
        plain, int8 = sizes_of(facts, "none"), sizes_of(facts, "int8")
        assert plain.block_bytes == facts.block_bytes
        assert plain.head_bytes == int8.head_bytes == facts.head_bytes
        assert int8.block_bytes[0] < plain.block_bytes[0] / 2

    def test_are_those_of_the_span_that_is_insisted_on(self, facts: ModelFacts) -> None:
        assert len(sizes_of(facts, "none", Span(1, 3)).block_bytes) == 2

    def test_of_a_span_that_the_model_has_not_are_the_model_s(self, facts: ModelFacts) -> None:
        """The relay will say what is wrong with it."""
        assert len(sizes_of(facts, "none", Span(1, 99)).block_bytes) == BLOCKS

    def test_count_free_memory_less_a_reserve(self, facts: ModelFacts) -> None:
        needed = (
            facts.span_bytes
            + sum(facts.block_bytes)
            + facts.head_bytes
            + KV_TOKENS * sum(facts.kv_bytes_per_token)
        )
        (exact,) = forms_that_fit(int(needed / 0.9) + 2, facts, Wish(), ["none"])
        (short,) = forms_that_fit(int(needed / 0.9) - 2, facts, Wish(), ["none"])
        assert (exact.fit.max_blocks, short.fit.max_blocks) == (BLOCKS, BLOCKS - 1)
