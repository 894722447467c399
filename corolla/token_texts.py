"""What single tokens say, as text and as bytes.

A reply's text is made of whole characters (corolla/detokenizer.py); here every token stands for itself. The
bytes of all tokens of a sequence are its text in UTF-8, but for what a decoder changes afterwards, such as
the space before a comma. Tokens that are no text, such as a chat's marks and the end token, have their name
for a text and no bytes.

Three kinds of tokenizers write bytes in three ways: byte-level ones as letters of an alphabet of 256
(GPT-2's), those with byte fallback as `<0x0A>`, and the others have whole characters only. Does not know
probabilities.
"""

import re
from collections.abc import Sequence
from typing import Any, cast

from tokenizers.pre_tokenizers import ByteLevel
from transformers import PreTrainedTokenizerBase

from corolla.detokenizer import REPLACEMENT
from corolla.scoring import TokenScore
from schema.generation import ScoredToken, TokenLogprob

_BYTE = re.compile(r"<0x([0-9A-F]{2})>")
_ANCHORS = ("a", "the", "e", "1", "▁a", "Ġa")
"""Tokens after which another one is in the middle of a text; one of them is in most vocabularies."""


class TokenTexts:
    """Of one tokenizer. Threads may share it."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer = tokenizer
        added = tokenizer.added_tokens_decoder
        self._marks = {token for token, one in added.items() if one.special} | set(tokenizer.all_special_ids)
        self._letters = _byte_letters() if _is_byte_level(tokenizer) else {}
        self._literal = {token for token, one in added.items() if not one.special}
        self._anchor = self._find_anchor()
        self._found: dict[tuple[int, bool], tuple[str, bytes]] = {}

    def is_mark(self, token: int) -> bool:
        """Whether it says nothing: a special token, or an id without a token."""
        return token in self._marks or self._name(token) is None

    def said(self, token: int, is_opening: bool = False) -> tuple[str, bytes]:
        """What it adds to a text, as text and as bytes. `is_opening`: nothing has been said before it, see
        `Detokenizer`.

        The text has U+FFFD for bytes that are no whole character, and the name of what says nothing.
        """
        found = self._found.get((token, is_opening))
        if found is None:
            if self.is_mark(token):
                found = self._name(token) or "", b""
            else:
                raw = self._said(token, is_opening)
                found = raw.decode(errors="replace"), raw
            self._found[token, is_opening] = found
        return found

    def raw(self, token: int, is_opening: bool = False) -> bytes:
        """The bytes of `said`."""
        return self.said(token, is_opening)[1]

    def text(self, token: int, is_opening: bool = False) -> str:
        """The text of `said`."""
        return self.said(token, is_opening)[0]

    def _said(self, token: int, is_opening: bool) -> bytes:
        name = self._name(token) or ""
        if self._letters and token not in self._literal:
            letters = [self._letters.get(letter) for letter in name]
            if None not in letters:
                return bytes(cast(list[int], letters))
        alone = self._decode([token])
        if REPLACEMENT in alone or not is_opening:
            byte = _BYTE.fullmatch(name)
            if byte is not None:
                return bytes([int(byte[1], 16)])
        if is_opening or not self._anchor:
            return alone.encode()
        before = self._decode(self._anchor)
        after = self._decode([*self._anchor, token])
        return (after[len(before) :] if after.startswith(before) else alone).encode()

    def _find_anchor(self) -> list[int]:
        for name in _ANCHORS:
            token = cast("int | None", self._tokenizer.convert_tokens_to_ids(name))
            if token is not None and token != self._tokenizer.unk_token_id and self._decode([token]):
                return [token]
        return next(([token] for token in range(1000) if self._is_plain(token)), [])

    def _is_plain(self, token: int) -> bool:
        return not self.is_mark(token) and bool(self._decode([token]).strip(f" {REPLACEMENT}\0"))

    def _decode(self, ids: list[int]) -> str:
        return cast(str, self._tokenizer.decode(ids, skip_special_tokens=True))

    def _name(self, token: int) -> str | None:
        return cast("str | None", self._tokenizer.convert_ids_to_tokens(token))


class ScoreTeller:
    """Scores of one sequence's tokens in words, in the tokens' order."""

    def __init__(self, texts: TokenTexts, after: Sequence[int] = ()) -> None:
        """`after`: what the sequence continues, as in `Detokenizer`."""
        self._texts = texts
        self._is_opening = all(map(texts.is_mark, after))

    def tell(self, score: TokenScore) -> ScoredToken:
        """The next token's."""
        text, raw = self._texts.said(score.token, self._is_opening)
        told = ScoredToken(
            text=text,
            raw=raw,
            logprob=score.logprob,
            top=[self._alternative(token, logprob) for token, logprob in score.top],
            is_first=score.is_first,
        )
        self._is_opening = self._is_opening and self._texts.is_mark(score.token)
        return told

    def _alternative(self, token: int, logprob: float) -> TokenLogprob:
        return TokenLogprob(*self._texts.said(token, self._is_opening), logprob)


def _is_byte_level(tokenizer: PreTrainedTokenizerBase) -> bool:
    backend: Any = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return hasattr(tokenizer, "byte_decoder")
    return backend.decoder is not None and b'"ByteLevel"' in backend.decoder.__getstate__()


def _byte_letters() -> dict[str, int]:
    """The alphabet of byte-level tokenizers: printable characters of Latin-1 stand for themselves, the others
    follow each other from U+0100 on."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    letters = {chr(byte): byte for byte in printable}
    letters.update((chr(0x100 + index), byte) for index, byte in enumerate(others))
    if set(letters) != set(ByteLevel.alphabet()):
        raise RuntimeError("the library has another alphabet for bytes")
    return letters
