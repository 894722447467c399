"""What single tokens say: together it is what the sequence says."""

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from corolla.scoring import TokenScore
from corolla.token_texts import ScoreTeller, TokenTexts
from tests.corolla.test_detokenizer import CORPUS, TEXTS, TOKENIZERS


def word_pieces() -> Tokenizer:
    """As BERT: words, and their ends with ## in front."""
    tokenizer = Tokenizer(models.WordPiece(unk_token="<unk>"))  # type: ignore[call-arg]
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.decoder = decoders.WordPiece(cleanup=False)
    trainer = trainers.WordPieceTrainer(
        vocab_size=150, special_tokens=["<unk>", "<s>", "</s>"], show_progress=False
    )
    tokenizer.train_from_iterator(CORPUS[:1] * 10, trainer)
    return tokenizer


def wrapped(tokenizer: Tokenizer) -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )


LOADED = {name: wrapped(one) for name, one in {**TOKENIZERS, "word pieces": word_pieces()}.items()}
any_tokenizer = pytest.mark.parametrize("tokenizer", LOADED.values(), ids=LOADED.keys())


def decoded(tokenizer: PreTrainedTokenizerFast, ids: list[int]) -> bytes:
    return str(tokenizer.decode(ids, skip_special_tokens=True)).encode()


def raw_of(tokenizer: PreTrainedTokenizerFast, ids: list[int], after: tuple[int, ...] = ()) -> bytes:
    teller = ScoreTeller(TokenTexts(tokenizer), after)
    return b"".join(teller.tell(TokenScore(token, 0.0)).raw for token in ids)


@any_tokenizer
@given(text=TEXTS)
@example("The quick brown fox, and more.")
@example("  two  spaces  ")
@example("😀👩‍👩‍👧‍👦 你好")
@settings(deadline=None)
def test_the_bytes_of_all_tokens_are_the_text(tokenizer: PreTrainedTokenizerFast, text: str) -> None:
    ids = tokenizer.encode(text)
    assert raw_of(tokenizer, ids) == decoded(tokenizer, ids)


@any_tokenizer
@given(first=st.sampled_from(CORPUS), second=st.sampled_from(CORPUS))
@settings(deadline=None)
def test_what_continues_a_text_keeps_its_space(
    tokenizer: PreTrainedTokenizerFast, first: str, second: str
) -> None:
    before, ids = tokenizer.encode(first), tokenizer.encode(second)
    whole, begun = decoded(tokenizer, [*before, *ids]), decoded(tokenizer, before)
    assert begun + raw_of(tokenizer, ids, tuple(before)) == whole


@any_tokenizer
def test_marks_have_a_name_and_no_bytes(tokenizer: PreTrainedTokenizerFast) -> None:
    texts = TokenTexts(tokenizer)
    end = tokenizer.convert_tokens_to_ids("</s>")
    assert isinstance(end, int)
    assert (texts.text(end), texts.raw(end), texts.is_mark(end)) == ("</s>", b"", True)


@any_tokenizer
def test_an_id_without_a_token_says_nothing(tokenizer: PreTrainedTokenizerFast) -> None:
    texts = TokenTexts(tokenizer)
    assert (texts.text(10**6), texts.raw(10**6), texts.is_mark(10**6)) == ("", b"", True)


@pytest.mark.parametrize("name", ["byte level", "byte fallback"])
def test_a_part_of_a_character_has_its_bytes(name: str) -> None:
    tokenizer = LOADED[name]
    texts = TokenTexts(tokenizer)
    ids = tokenizer.encode("😱")
    pieces = [texts.raw(token) for token in ids if texts.raw(token).strip()]
    assert b"".join(pieces) == "😱".encode()
    assert len(pieces) > 1
    assert all("\ufffd" in texts.text(token) for token in ids if texts.raw(token).strip())


def test_a_token_that_was_added_says_what_it_is() -> None:
    tokenizer = wrapped(TOKENIZERS["byte level"])
    tokenizer.add_tokens(["<tool_call>", "naive"])
    ids = tokenizer.encode("a<tool_call>naive")
    assert raw_of(tokenizer, ids) == b"a<tool_call>naive"


def test_a_score_is_told_with_its_alternatives() -> None:
    tokenizer = LOADED["metaspace"]
    (token,) = tokenizer.encode("the")[:1]
    teller = ScoreTeller(TokenTexts(tokenizer))
    first = teller.tell(TokenScore(token, -1.0, ((token, -1.0), (2, -2.0))))
    second = teller.tell(TokenScore(token, -1.0, ((token, -1.0),)))
    assert [one.text for one in first.top] == [first.text, "</s>"]
    assert (first.text, second.text, second.top[0].raw) == ("the", " the", b" the")
