"""Text from tokens that come one at a time.

What a token says depends on its neighbours: a character's bytes may be spread over several tokens, and
many tokenizers drop the space before the first word. So each new token is decoded together with the few
before it, and only what can no longer change goes out. All pieces together are what decoding all tokens
at once gives.

One exception: after a byte that is not part of any character, tokenizers with byte fallback decode the whole
run of bytes around it as replacement characters. Characters of that run that went out already stay.

`tokenizers.decoders.DecodeStream` does the same in Rust, but after one such byte it raises for every token
to come, and it cannot be asked for what it still holds back. This also serves tokenizers without Rust.
"""

from collections.abc import Callable, Sequence

REPLACEMENT = "\ufffd"
"""What decoders put for bytes that make no character, or not yet."""

_MAX_INCOMPLETE = 3  # bytes of a character that lacks its last one
_MAX_WINDOW = 64  # tokens decoded again for the next one: text takes a few, only garbage comes near
_OVERLAP = 8  # of them kept then


class Detokenizer:
    """Turns one reply's tokens into text. Owner: the reply's driver. Never raises because of a token."""

    def __init__(self, decode: Callable[[list[int]], str], after: Sequence[int] = ()) -> None:
        """
        Args:
            decode: text of tokens, special tokens left out.
            after: tokens whose text the reply continues, such as the prompt of a plain completion: the
                space before the reply's first word is kept then. A chat's reply stands alone: none.
        """
        self._decode = decode
        self._window: list[int] = []  # the next token is decoded with these
        self._context = 0  # as many of them end with a whole character, and all their text is out
        self._sent = ""  # the part of the window's text that is out
        self._begin(_last_text(decode, after))

    def push(self, token: int) -> str:
        """The text that is certain with this token; "" inside a character."""
        self._window.append(token)
        text = self._decode(self._window)
        if not text.startswith(self._sent):
            return self._resume(text)
        certain = text.rstrip(REPLACEMENT)
        if len(self._window) > _MAX_WINDOW:
            certain = max(certain, text[:-_MAX_INCOMPLETE], key=len)
        piece = certain[len(self._sent) :]
        if piece:
            self._sent = certain
        if piece and certain == text:
            self._begin(self._window[self._context :])
        elif len(self._window) > _MAX_WINDOW:
            self._shorten(text)
        return piece

    def flush(self) -> str:
        """What is held back, at the end of the reply; an incomplete character shows as U+FFFD."""
        text = self._decode(self._window)
        if not text.startswith(self._sent):
            text, self._sent = self._decode(self._window[self._context :]), ""
        piece = text[len(self._sent) :]
        self._window, self._context, self._sent = [], 0, ""
        return piece

    def _begin(self, window: list[int]) -> None:
        """Goes on with `window`, whose text is out but for an incomplete character at its end."""
        text = whole = self._decode(window)
        context = len(window)
        while whole.endswith(REPLACEMENT) and context > len(window) - _OVERLAP:
            context -= 1
            whole = self._decode(window[:context])
        self._window = window
        self._context = context
        self._sent = max(whole, text.rstrip(REPLACEMENT), key=len)

    def _resume(self, text: str) -> str:
        """A byte outside any character has changed the text of tokens that went out already.

        If it turns out to begin a character, their text becomes what it was. Else the tokens since then
        are decoded alone.
        """
        since = len(self._window) - self._context
        if text.endswith(REPLACEMENT) and since <= _MAX_INCOMPLETE:
            return ""
        self._begin(self._window[self._context :])
        return self._sent

    def _shorten(self, text: str) -> None:
        """Many tokens whose end is not certain: stray bytes; or many that say nothing."""
        if not text.endswith(REPLACEMENT):
            del self._window[self._context : -_OVERLAP]
            return
        held = len(text) - len(self._sent)
        self._begin(self._window[-_OVERLAP:])
        shorter = self._decode(self._window)
        self._sent = shorter[: max(0, len(shorter) - held)]


def _last_text(decode: Callable[[list[int]], str], tokens: Sequence[int]) -> list[int]:
    """The last few tokens: enough to say something and to begin with a whole character, or all that a window
    may have."""
    count = _OVERLAP
    while count < min(len(tokens), _MAX_WINDOW) and decode(list(tokens[-count:]))[:1] in ("", REPLACEMENT):
        count *= 2
    return list(tokens[-count:])
