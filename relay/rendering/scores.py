"""How likely tokens were, in the shapes of chats and of text completions. Pure.

An answer that is told as a whole may have hundreds of thousands of scores: they become JSON as they come, and
are counted. Does not know where the tokens come from.
"""

import codecs
from collections.abc import Iterable
from typing import Generic, TypeVar, cast

import msgspec

from schema.api.chat import ChatLogprob, ChatLogprobs, TopLogprob
from schema.api.completions import TextLogprobs
from schema.errors import TooLarge
from schema.generation import ScoredToken, TokenLogprob
from schema.limits import MAX_ANSWER_SCORES

_T = TypeVar("_T")


class ScoreCount:
    """Log-probabilities of one answer that is kept until it is whole."""

    def __init__(self, remedy: str = "") -> None:
        """`remedy`: what else helps than to ask for fewer."""
        self._count = 0
        self._remedy = remedy

    def add(self, scored: Iterable[ScoredToken]) -> None:
        """Raises TooLarge: these are too many, with those before."""
        self.expect(sum(1 + len(token.top) for token in scored))

    def expect(self, scores: int) -> None:
        """So many more may come. Raises TooLarge as `add`."""
        self._count += scores
        if self._count > MAX_ANSWER_SCORES:
            raise TooLarge(
                f"one answer may have {MAX_ANSWER_SCORES} log-probabilities, those of alternatives too, and "
                f"this one would have more: ask for fewer tokens, replies or alternatives{self._remedy}"
            )


class WrittenList(Generic[_T]):
    """A list of an answer that becomes JSON as its items come.

    As structs, a token's scores take three times as much memory, and all of an answer's would be encoded at
    once, while no frame goes on.
    """

    def __init__(self) -> None:
        self._parts: list[bytes] = []

    def __bool__(self) -> bool:
        return bool(self._parts)

    def add(self, items: list[_T]) -> None:
        if items:
            self._parts.append((b"," if self._parts else b"[") + msgspec.json.encode(items)[1:-1])

    def items(self) -> list[_T]:
        """The list for an answer's struct: JSON, which msgspec writes as it is. Nobody can read it here."""
        return cast("list[_T]", msgspec.Raw(b"".join([*self._parts, b"]"]) if self._parts else b"[]"))


def chat_logprobs(scored: Iterable[ScoredToken]) -> ChatLogprobs:
    """In the shape of chats."""
    return ChatLogprobs(content=list(map(chat_logprob, scored)))


def chat_logprob(token: ScoredToken) -> ChatLogprob:
    """One token in the shape of chats, which that of responses is too."""
    top = [TopLogprob(token=one.text, bytes=list(one.raw), logprob=one.logprob) for one in token.top]
    return ChatLogprob(token=token.text, bytes=list(token.raw), logprob=token.logprob, top_logprobs=top)


def label_of(token: TokenLogprob) -> str:
    """A token's name among others: its text, or its bytes where these are no whole characters.

    Two tokens that both show U+FFFD are so two.
    """
    try:
        token.raw.decode()
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in token.raw)
    return token.text


class TextScores:
    """The scores of one choice's tokens, in their order, in the shape of text completions."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._offset = 0

    def of(self, scored: Iterable[ScoredToken]) -> TextLogprobs:
        """Those of the next tokens."""
        tokens: list[str] = []
        logprobs: list[float | None] = []
        tops: list[dict[str, float] | None] = []
        offsets: list[int] = []
        for token in scored:
            tokens.append(label_of(token))
            logprobs.append(None if token.is_first else token.logprob)
            tops.append(None if token.is_first else _top_of(token))
            offsets.append(self._offset)
            self._offset += len(self._decoder.decode(token.raw))
        return TextLogprobs(tokens=tokens, token_logprobs=logprobs, top_logprobs=tops, text_offset=offsets)


class WrittenTextScores:
    """The scores of one choice's tokens, for an answer as a whole."""

    def __init__(self) -> None:
        self._scores = TextScores()
        self._tokens = WrittenList[str]()
        self._logprobs = WrittenList[float | None]()
        self._tops = WrittenList[dict[str, float] | None]()
        self._offsets = WrittenList[int]()

    def add(self, scored: Iterable[ScoredToken]) -> None:
        more = self._scores.of(scored)
        self._tokens.add(more.tokens)
        self._logprobs.add(more.token_logprobs)
        self._tops.add(more.top_logprobs)
        self._offsets.add(more.text_offset)

    def all(self) -> TextLogprobs | None:
        """None: there are none."""
        if not self._tokens:
            return None
        return TextLogprobs(
            tokens=self._tokens.items(),
            token_logprobs=self._logprobs.items(),
            top_logprobs=self._tops.items(),
            text_offset=self._offsets.items(),
        )


def _top_of(token: ScoredToken) -> dict[str, float]:
    """The likeliest, and the token itself if it is none of them."""
    return {label_of(one): one.logprob for one in [*token.top, token]}
