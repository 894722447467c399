"""The bodies of `POST /v1/completions`: what is asked for, and the answer, whole and in pieces.

Does not know HTTP, nor how a reply is made.
"""

from typing import Annotated, Any, Literal

from msgspec import UNSET, Meta, Struct

from schema.api.common import MOST_REPLIES, CommonRequest, Unsupported, choices_of
from schema.errors import InvalidRequest
from schema.generation import (
    MAX_INT32,
    MOST_ALTERNATIVES,
    FinishReason,
    GenerationRequest,
    TokenId,
    Usage,
)

DEFAULT_TOKENS = 16
"""OpenAI's default for text completions; a chat's reply has no default limit."""
Texts = str | Annotated[list[str | TokenId | list[TokenId]], Meta(min_length=1)]
"""One text, a list of them, one list of token ids, or a list of such lists."""


class CompletionRequest(CommonRequest, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Body of `POST /v1/completions`."""

    prompt: Texts
    max_tokens: Annotated[int, Meta(ge=0, le=MAX_INT32)] | None = None
    """0: only with `echo`, to be told of the prompt."""
    logprobs: Annotated[int, Meta(ge=0, le=MOST_ALTERNATIVES)] | None = None
    echo: bool | None = None
    best_of: int | None = None
    suffix: Unsupported = UNSET

    def to_generations(self) -> list[GenerationRequest]:
        """`n` replies for each prompt. Raises InvalidRequest when it asks for what is not served."""
        self.refuse_unsupported()
        if self.best_of not in (None, self.n or 1):
            raise InvalidRequest("'best_of' is not supported here: leave it out", param="best_of")
        prompts = texts_of(self.prompt, "prompt")
        if len(prompts) * (self.n or 1) > MOST_REPLIES:
            most = f"{MOST_REPLIES} replies of one request: ask for fewer prompts, or a smaller 'n'"
            raise InvalidRequest(f"there can be at most {most}", param="prompt")
        if self.max_tokens == 0 and not self.echo:
            raise InvalidRequest("nothing is asked for: with 'max_tokens' 0, set 'echo'", param="max_tokens")
        bodies = [
            GenerationRequest(
                model=self.model,
                prompt=prompt,
                sampling=self.sampling(),
                stopping=self.stopping(DEFAULT_TOKENS if self.max_tokens is None else self.max_tokens),
                logprobs=self.logprobs,
                echo=bool(self.echo),
            )
            for prompt in prompts
        ]
        return [one for body in bodies for one in choices_of(body, self.n)]


def texts_of(given: str | list[Any], param: str) -> list[str | list[int]]:
    """Each text, or list of token ids. Raises InvalidRequest for single token ids among texts or lists."""
    if isinstance(given, str):
        return [given]
    if all(isinstance(one, int) for one in given):
        return [given]
    if any(isinstance(one, int) for one in given):
        raise InvalidRequest(
            f"{param!r} is one list of token ids, or a list of texts or such lists", param=param
        )
    return given


# ---- answers ------------------------------------------------------------------------------------


class TextLogprobs(Struct, frozen=True, kw_only=True):
    """How likely the tokens were that a choice, or a piece of it, consists of: one entry a token in each."""

    tokens: list[str]
    """`bytes:\\x..` for tokens that are no whole characters."""
    token_logprobs: list[float | None]
    """None: nothing is before the token."""
    top_logprobs: list[dict[str, float] | None]
    """The likeliest and the token itself."""
    text_offset: list[int]
    """Where the token begins in the choice's text, in characters."""


class TextChoice(Struct, frozen=True, kw_only=True):
    index: int
    text: str
    finish_reason: FinishReason | None = None
    logprobs: TextLogprobs | None = None


class TextCompletion(Struct, frozen=True, kw_only=True):
    """Answer to a text completion; also one server-sent event of a streamed one."""

    id: str
    object: Literal["text_completion"] = "text_completion"
    created: int
    model: str
    choices: list[TextChoice]
    usage: Usage | None = None
    system_fingerprint: str | None = None
