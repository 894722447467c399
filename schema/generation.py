"""What a reply is asked for with, and what it ends with: shared by REST, pages and heads.

Knows the fields, their ranges and their defaults. Does not know how a token is drawn.
"""

from typing import Annotated, Literal

from msgspec import Meta, Struct, field

from schema.limits import MAX_STOP_CHARS, MAX_STOP_STRINGS, MAX_STOP_TOKEN_IDS

Probability = Annotated[float, Meta(ge=0.0, le=1.0)]
Penalty = Annotated[float, Meta(ge=-2.0, le=2.0)]
MAX_INT32 = 2**31 - 1
"""What tensor libraries and databases hold in every integer: no count from outside may exceed it."""
TokenId = Annotated[int, Meta(ge=0, le=MAX_INT32)]
StopTokenIds = Annotated[list[TokenId], Meta(max_length=MAX_STOP_TOKEN_IDS)]
FinishReason = Literal["stop", "length"]
"""A reply that could not be finished has none of these: it ends with an error."""


class Message(Struct, frozen=True):
    """One turn of a chat."""

    role: Literal["system", "user", "assistant"]
    content: str


class Sampling(Struct, frozen=True, kw_only=True):
    """How the next token is drawn. `temperature` 0 is greedy: the rest of the filters then do nothing."""

    temperature: Annotated[float, Meta(ge=0.0, le=2.0)] = 1.0
    top_k: Annotated[int, Meta(ge=0, le=MAX_INT32)] = 0
    """Keep only the k likeliest tokens; 0 keeps all."""
    top_p: Probability = 1.0
    """Nucleus sampling (arXiv 1904.09751): the fewest likeliest tokens whose probabilities reach this sum."""
    min_p: Probability = 0.0
    """Keep tokens at least this fraction as likely as the likeliest (arXiv 2407.01082)."""
    repetition_penalty: Annotated[float, Meta(gt=0.0, le=10.0)] = 1.0
    """Divides positive and multiplies negative logits of tokens seen, prompt included (arXiv 1909.05858)."""
    presence_penalty: Penalty = 0.0
    """Subtracted from the logits of tokens already generated."""
    frequency_penalty: Penalty = 0.0
    """Subtracted once per earlier occurrence among the generated tokens."""
    seed: Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)] | None = None
    """Makes the reply repeatable; None lets the head choose one."""


class Stopping(Struct, frozen=True, kw_only=True):
    """When a reply ends, besides the model's own end token."""

    max_tokens: Annotated[int, Meta(ge=1, le=MAX_INT32)] | None = None
    """None: what fits the model's context."""
    stop: Annotated[
        list[Annotated[str, Meta(min_length=1, max_length=MAX_STOP_CHARS)]], Meta(max_length=MAX_STOP_STRINGS)
    ] = field(default_factory=lambda: list[str]())
    """Strings at which the reply ends; they are not part of it."""
    stop_token_ids: StopTokenIds = field(default_factory=lambda: list[int]())
    """Tokens that end the reply just as the model's own end token does: they are counted and are no text."""


class GenerationRequest(Struct, frozen=True, kw_only=True):
    """One reply to generate: exactly one of `messages` (chat) and `prompt` (plain completion) is given."""

    model: str
    messages: list[Message] | None = None
    prompt: str | list[TokenId] | None = None
    """Text, or token ids of the model's own vocabulary."""
    sampling: Sampling = Sampling()
    stopping: Stopping = Stopping()


class PromptDetails(Struct, frozen=True):
    """What became of a prompt's tokens."""

    cached_tokens: Annotated[int, Meta(ge=0, le=MAX_INT32)] = 0
    """Those that the hops still held of an earlier reply, and did not compute again."""


class Usage(Struct, frozen=True, omit_defaults=True):
    """Tokens that a reply took."""

    prompt_tokens: Annotated[int, Meta(ge=0, le=MAX_INT32)]
    completion_tokens: Annotated[int, Meta(ge=0, le=MAX_INT32)]
    total_tokens: Annotated[int, Meta(ge=0, le=MAX_INT32)]
    prompt_tokens_details: PromptDetails = PromptDetails()
    """Left out when nothing is to be told."""


class HopTiming(Struct, frozen=True):
    """Where a reply's time went on one hop."""

    name: str
    """The volunteer's public name."""
    start: int
    end: int


class Timing(Struct, frozen=True, kw_only=True):
    """How fast a reply was, as its driver saw it. Seconds."""

    first_token: float
    """From the request's arrival at the head to the first token."""
    total: float
    route: list[HopTiming] = field(default_factory=lambda: list[HopTiming]())
