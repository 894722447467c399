"""What text in pieces promises: what decoding at once gives, whole characters, no surprise from any token."""

import json
import random
from collections.abc import Sequence

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from corolla.detokenizer import REPLACEMENT, Detokenizer

CORPUS = [
    "The quick brown fox jumps over the lazy dog; don't stop!  Two spaces, and  more.",
    "Family 👩‍👩‍👧‍👦 flag 🇩🇪🇫🇷 thumbs 👍🏽👍🏽 faces 😀😀😃",
    "你好世界你好世界 你你你 こんにちは 안녕하세요",
    "cafe\u0301 e\u0301le\u0300ve nai\u0308ve",
    "def f(x):\n\treturn x\n\n",
] * 10


def byte_level() -> Tokenizer:
    """As GPT-2, Llama 3 and Qwen. Words are not split first, so some tokens lie across two characters."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    return trained(tokenizer, 700, CORPUS, pre_tokenizers.ByteLevel.alphabet())


def metaspace() -> Tokenizer:
    """As sentencepiece: words carry the space before them, and the first one loses it in the text."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    return trained(tokenizer, 400, CORPUS, [])


def byte_fallback() -> Tokenizer:
    """As Llama 2, Mistral and Gemma: sentencepiece whose unknown characters take one token per byte."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer = trained(tokenizer, 200, CORPUS[:1] * 10, [])
    merges = [tuple(pair) for pair in json.loads(tokenizer.to_str())["model"]["merges"]]
    vocabulary = tokenizer.get_vocab()
    count = len(vocabulary)
    vocabulary |= {f"<0x{byte:02X}>": count + byte for byte in range(256)}
    tokenizer.model = models.BPE(vocabulary, merges, unk_token="<unk>", byte_fallback=True)
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return tokenizer


def trained(tokenizer: Tokenizer, size: int, corpus: list[str], alphabet: list[str]) -> Tokenizer:
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=["<unk>", "<s>", "</s>"],
        initial_alphabet=alphabet,
        show_progress=False,
    )
    tokenizer.train_from_iterator(corpus, trainer)
    return tokenizer


TOKENIZERS = {"byte level": byte_level(), "metaspace": metaspace(), "byte fallback": byte_fallback()}
any_tokenizer = pytest.mark.parametrize("tokenizer", TOKENIZERS.values(), ids=TOKENIZERS.keys())
TEXTS = st.text(max_size=30) | st.text(st.sampled_from("aé你😀👩\u200d🇩🇪 \u0301\n\ufffd"), max_size=30)


def token_of(tokenizer: Tokenizer, token: str) -> int:
    found = tokenizer.token_to_id(token)
    assert found is not None
    return found


def decode_with(tokenizer: Tokenizer, ids: Sequence[int]) -> str:
    return tokenizer.decode(list(ids), skip_special_tokens=True)


def pieces_of(tokenizer: Tokenizer, ids: Sequence[int], after: Sequence[int] = ()) -> list[str]:
    detokenizer = Detokenizer(lambda window: decode_with(tokenizer, window), after)
    return [*(detokenizer.push(token) for token in ids), detokenizer.flush()]


@any_tokenizer
@given(text=TEXTS)
@example("你你你你你你你你你你")
@example("  two  spaces  ")
@example("😀" * 40)
@example("a\ufffd")
@example("\ufffd\ufffd😀\ufffd你")
@settings(deadline=None)
def test_the_pieces_of_any_text_are_the_whole_text(tokenizer: Tokenizer, text: str):
    ids = tokenizer.encode(text).ids
    assert "".join(pieces_of(tokenizer, ids)) == decode_with(tokenizer, ids)


@any_tokenizer
@given(text=TEXTS)
@example("😀" * 40)
@settings(deadline=None)
def test_no_piece_holds_half_a_character(tokenizer: Tokenizer, text: str):
    ids = tokenizer.encode(text.replace(REPLACEMENT, "")).ids
    assert not any(REPLACEMENT in piece for piece in pieces_of(tokenizer, ids))


@any_tokenizer
def test_special_tokens_between_words_say_nothing_and_change_nothing(tokenizer: Tokenizer):
    end = token_of(tokenizer, "</s>")
    words = tokenizer.encode("the lazy dog").ids
    ids = [end, *words, *[end] * 100, *words, end]
    assert "".join(pieces_of(tokenizer, ids)) == decode_with(tokenizer, ids)


@any_tokenizer
def test_special_tokens_before_the_first_word_change_nothing(tokenizer: Tokenizer):
    ids = [token_of(tokenizer, "<s>")] * 100 + tokenizer.encode("the lazy dog").ids
    assert "".join(pieces_of(tokenizer, ids)) == "the lazy dog"


@pytest.mark.parametrize("name", ["byte level", "metaspace"])
@given(seed=st.integers(0, 2**32), length=st.integers(0, 300))
@settings(deadline=None)
def test_random_tokens_give_what_decoding_at_once_gives(name: str, seed: int, length: int):
    tokenizer = TOKENIZERS[name]
    ids = random.Random(seed).choices(range(tokenizer.get_vocab_size()), k=length)
    assert "".join(pieces_of(tokenizer, ids)) == decode_with(tokenizer, ids)


@any_tokenizer
@given(seed=st.integers(0, 2**32), length=st.integers(0, 300))
@settings(deadline=None)
def test_after_random_tokens_words_are_said_as_ever(tokenizer: Tokenizer, seed: int, length: int):
    """Stray bytes may spoil their own run, and nothing after it."""
    garbage = random.Random(seed).choices(range(tokenizer.get_vocab_size()), k=length)
    words = tokenizer.encode("the lazy dog stop").ids
    assert "".join(pieces_of(tokenizer, garbage + words)).endswith("lazy dog stop")


@any_tokenizer
def test_ids_without_a_token_say_nothing(tokenizer: Tokenizer):
    """Models often have more rows than their tokenizer has tokens."""
    words = tokenizer.encode("lazy dog").ids
    assert "".join(pieces_of(tokenizer, [9999, *words[:1], 9999, *words[1:]])) == "lazy dog"


def byte_tokens(tokenizer: Tokenizer, data: bytes) -> list[int]:
    return [token_of(tokenizer, f"<0x{byte:02X}>") for byte in data]


def test_a_character_of_many_tokens_comes_whole_with_its_last_one():
    tokenizer = TOKENIZERS["byte fallback"]
    ids = byte_tokens(tokenizer, "😀é".encode())
    assert pieces_of(tokenizer, ids) == ["", "", "", "😀", "", "é", ""]


def test_a_stray_byte_after_a_character_shows_alone():
    """Decoded at once, the byte would turn the character that is out already into replacements too."""
    tokenizer = TOKENIZERS["byte fallback"]
    ids = [*byte_tokens(tokenizer, "😀".encode() + b"\xe4"), *tokenizer.encode("the dog").ids]
    assert "".join(pieces_of(tokenizer, ids)).startswith(f"😀{REPLACEMENT}")


@pytest.mark.parametrize("data", [b"\xff" * 1000, b"\xe4" * 1000, b"\xf0\x9f" * 500], ids=repr)
def test_endless_stray_bytes_are_not_held_back_for_ever(data: bytes):
    tokenizer = TOKENIZERS["byte fallback"]
    pieces = pieces_of(tokenizer, byte_tokens(tokenizer, data))
    assert len("".join(pieces[:-1])) > 900


def test_endless_tokens_across_characters_are_not_held_back():
    """Each token ends one character and begins the next: E4 | BD A0 E4 | BD A0 E4 | ... | BD A0."""
    bytes_of = {0: b"\xe4", 1: b"\xbd\xa0\xe4", 2: b"\xbd\xa0"}
    detokenizer = Detokenizer(lambda ids: b"".join(bytes_of[token] for token in ids).decode(errors="replace"))
    pieces = [detokenizer.push(token) for token in [0, *[1] * 500, 2]]
    assert pieces == ["", *["你"] * 501]


def test_an_incomplete_character_at_the_end_shows_as_a_replacement():
    tokenizer = TOKENIZERS["byte fallback"]
    assert pieces_of(tokenizer, byte_tokens(tokenizer, "é".encode()[:1])) == ["", REPLACEMENT]


def test_flush_gives_nothing_twice():
    tokenizer = TOKENIZERS["byte fallback"]
    detokenizer = Detokenizer(lambda ids: decode_with(tokenizer, ids))
    detokenizer.push(byte_tokens(tokenizer, b"\xe4")[0])
    detokenizer.flush()
    assert detokenizer.flush() == ""


@pytest.mark.parametrize("name", ["metaspace", "byte fallback"])
def test_a_reply_that_stands_alone_begins_without_a_space(name: str):
    ids = TOKENIZERS[name].encode("lazy dog").ids
    assert "".join(pieces_of(TOKENIZERS[name], ids)) == "lazy dog"


@pytest.mark.parametrize("name", ["metaspace", "byte fallback"])
@pytest.mark.parametrize("prompt", ["the quick brown fox jumps over the", "over"])
def test_a_reply_that_continues_a_prompt_keeps_its_first_space(name: str, prompt: str):
    after, ids = TOKENIZERS[name].encode(prompt).ids, TOKENIZERS[name].encode("lazy dog").ids
    assert "".join(pieces_of(TOKENIZERS[name], ids, after)) == " lazy dog"


def test_special_tokens_at_the_prompts_end_do_not_hide_its_words():
    tokenizer = TOKENIZERS["metaspace"]
    after = [*tokenizer.encode("over the").ids, *[token_of(tokenizer, "</s>")] * 20]
    assert "".join(pieces_of(tokenizer, tokenizer.encode("dog").ids, after)) == " dog"


@any_tokenizer
@given(prompt=TEXTS, reply=TEXTS, cut=st.integers(0, 200))
@settings(deadline=None)
def test_prompt_and_continuation_together_are_the_whole_text(
    tokenizer: Tokenizer, prompt: str, reply: str, cut: int
):
    """Wherever the tokens are parted, in the middle of a character too."""
    ids = tokenizer.encode((prompt + reply).replace(REPLACEMENT, "")).ids
    cut = min(cut, len(ids))
    said = "".join(pieces_of(tokenizer, ids[:cut])[:-1])
    assert said + "".join(pieces_of(tokenizer, ids[cut:], after=ids[:cut])) == decode_with(tokenizer, ids)


def test_a_reply_that_is_continued_elsewhere_goes_on_with_the_same_pieces():
    """The new head pushes the tokens that were sent already, and drops what comes out."""
    tokenizer = TOKENIZERS["byte level"]
    ids = tokenizer.encode("你好 the 👩‍👩‍👧‍👦 dog").ids
    whole = pieces_of(tokenizer, ids)
    for cut in range(len(ids)):
        second = Detokenizer(lambda window: decode_with(tokenizer, window))
        for token in ids[:cut]:
            second.push(token)
        assert [second.push(token) for token in ids[cut:]] == whole[cut:-1]


def test_a_long_prompt_that_says_nothing_is_not_decoded_again_and_again():
    tokenizer = TOKENIZERS["byte fallback"]
    silent = token_of(tokenizer, "</s>")
    lengths: list[int] = []

    def decode(window: list[int]) -> str:
        lengths.append(len(window))
        return decode_with(tokenizer, window)

    detokenizer = Detokenizer(decode, [silent] * 100_000)
    said = "".join(map(detokenizer.push, [silent] * 200 + tokenizer.encode("lazy dog").ids))
    assert said + detokenizer.flush() == "lazy dog"
    assert max(lengths) < 100
