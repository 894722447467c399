"""What a reply is asked for with, and what it ends with: shared by REST, pages and heads.

Knows the fields, their ranges and their defaults. Does not know how a token is drawn.
"""

from typing import Annotated, Any, Literal, TypeVar

from msgspec import Meta, Struct, field

from schema.limits import MAX_BIASES, MAX_STOP_CHARS, MAX_STOP_STRINGS, MAX_STOP_TOKEN_IDS, MAX_TOOLS

Probability = Annotated[float, Meta(ge=0.0, le=1.0)]
Penalty = Annotated[float, Meta(ge=-2.0, le=2.0)]
Bias = Annotated[float, Meta(ge=-100.0, le=100.0)]
MAX_INT32 = 2**31 - 1
"""What tensor libraries and databases hold in every integer: no count from outside may exceed it."""
TokenId = Annotated[int, Meta(ge=0, le=MAX_INT32)]
StopTokenIds = Annotated[list[TokenId], Meta(max_length=MAX_STOP_TOKEN_IDS)]
FinishReason = Literal["stop", "length", "tool_calls"]
"""A reply that could not be finished has none of these: it ends with an error."""
MOST_ALTERNATIVES = 20
"""Of the likeliest tokens at one position."""
LEAST_LOGPROB = -9999.0
"""In the place of minus infinity, which JSON does not have: the token cannot come."""

_T = TypeVar("_T")


def _told(value: _T) -> _T:
    """A default that is written all the same; newer fields leave theirs out, so that older messages keep
    their bytes."""
    return field(default_factory=lambda: value)


class ToolCall(Struct, frozen=True):
    """A function that an assistant has called."""

    id: str
    name: str
    arguments: str
    """JSON, as the model wrote it."""


class Message(Struct, frozen=True, omit_defaults=True):
    """One turn of a chat."""

    role: Literal["system", "user", "assistant", "tool"]
    content: str
    tool_calls: list[ToolCall] = []
    """Of an assistant."""
    tool_call_id: str | None = None
    """Of a tool: the call that this is the result of."""
    name: str | None = None
    """Of a tool: the function's. Of others: who of several speaks, for models whose template tells it."""


class Tool(Struct, frozen=True, omit_defaults=True):
    """A function that the model may call."""

    name: Annotated[str, Meta(pattern="^[a-zA-Z0-9_-]{1,64}$", max_length=64)]
    description: str | None = None
    parameters: dict[str, Any] | None = None
    """JSON Schema of its arguments; None: it takes none."""


class Tools(Struct, frozen=True, omit_defaults=True):
    """Functions that the model may call, and whether it must."""

    functions: Annotated[list[Tool], Meta(min_length=1, max_length=MAX_TOOLS)]
    must_call: bool = False
    """Whether the reply has to be calls."""
    is_parallel: bool = True
    """Whether it may be more than one."""


class JsonFormat(Struct, frozen=True, omit_defaults=True):
    """The reply has to be JSON, of a schema where there is one."""

    schema: dict[str, Any] | None = None


class Sampling(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How the next token is drawn. `temperature` 0 is greedy: the rest of the filters then do nothing."""

    temperature: Annotated[float, Meta(ge=0.0, le=2.0)] = _told(1.0)
    top_k: Annotated[int, Meta(ge=0, le=MAX_INT32)] = _told(0)
    """Keep only the k likeliest tokens; 0 keeps all."""
    top_p: Probability = _told(1.0)
    """Nucleus sampling (arXiv 1904.09751): the fewest likeliest tokens whose probabilities reach this sum."""
    min_p: Probability = _told(0.0)
    """Keep tokens at least this fraction as likely as the likeliest (arXiv 2407.01082)."""
    repetition_penalty: Annotated[float, Meta(ge=0.01, le=10.0)] = _told(1.0)
    """Divides positive and multiplies negative logits of tokens seen, prompt included (arXiv 1909.05858).
    By much less than 0.01 they would overflow."""
    presence_penalty: Penalty = _told(0.0)
    """Subtracted from the logits of tokens already generated."""
    frequency_penalty: Penalty = _told(0.0)
    """Subtracted once per earlier occurrence among the generated tokens."""
    seed: Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)] | None = _told(None)
    """Makes the reply repeatable; None lets the head choose one."""
    logit_bias: Annotated[dict[TokenId, Bias], Meta(max_length=MAX_BIASES)] = {}
    """Added to the logits of these tokens, before anything else is done with them."""


class Stopping(Struct, frozen=True, kw_only=True):
    """When a reply ends, besides the model's own end token."""

    max_tokens: Annotated[int, Meta(ge=0, le=MAX_INT32)] | None = None
    """None: what fits the model's context. 0: nothing is generated, see `GenerationRequest.echo`."""
    stop: Annotated[
        list[Annotated[str, Meta(min_length=1, max_length=MAX_STOP_CHARS)]], Meta(max_length=MAX_STOP_STRINGS)
    ] = field(default_factory=lambda: list[str]())
    """Strings at which the reply ends; they are not part of it."""
    stop_token_ids: StopTokenIds = field(default_factory=lambda: list[int]())
    """Tokens that end the reply just as the model's own end token does: they are counted and are no text."""


class GenerationRequest(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One reply to generate: exactly one of `messages` (chat) and `prompt` (plain completion) is given."""

    model: str
    messages: list[Message] | None = _told(None)
    prompt: str | list[TokenId] | None = _told(None)
    """Text, or token ids of the model's own vocabulary."""
    sampling: Sampling = _told(Sampling())
    stopping: Stopping = _told(Stopping())
    logprobs: Annotated[int, Meta(ge=0, le=MOST_ALTERNATIVES)] | None = None
    """Tell each token's log-probability, and those of so many of the likeliest; None: tell none."""
    echo: bool = False
    """Tell the prompt first, as text, and its tokens' log-probabilities where `logprobs` asks for them."""
    tools: Tools | None = None
    """Of a chat."""
    format: JsonFormat | None = None
    """Not beside tools that must be called."""
    continues: bool = False
    """Of a chat: the last message is the assistant's, and the reply goes on with it."""


class TokenLogprob(Struct, frozen=True):
    """A token, and how likely the model found it, whatever the sampling was."""

    text: str
    """What it says; U+FFFD stands for bytes that are no whole character."""
    raw: bytes
    logprob: float
    """Natural; at least `LEAST_LOGPROB`."""


class ScoredToken(TokenLogprob, frozen=True):
    """A token of a prompt or a reply."""

    top: list[TokenLogprob] = []
    """The likeliest at its position, the likeliest first."""
    is_first: bool = False
    """Of a prompt, with nothing before it: it has no probability."""


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


class HopTiming(Struct, frozen=True, omit_defaults=True):
    """Where a reply's time went on one hop. Seconds for each step, means over `steps` of them that were
    timed: decode steps, or slices of the prompt. None, and no steps, where that is not known."""

    name: str
    """The volunteer's public name."""
    start: int
    end: int
    compute: float | None = None
    """In the hop's device, with the batches that the steps were in. As the hop says."""
    queue: float | None = None
    """At the hop, but not computed. As the hop says."""
    wire: float | None = None
    """From the relay to the hop and back, by the driver's clock; of the first hop that is another process
    than the driver, the driver's own way to the relay and back is in it."""
    steps: Annotated[int, Meta(ge=0, le=MAX_INT32)] = 0


class HeadTiming(Struct, frozen=True):
    """Where a reply's time went at its driver."""

    compute: float
    """Seconds for each token, mean: from when a step is back until the next token is known."""
    steps: Annotated[int, Meta(ge=0, le=MAX_INT32)]


class Pause(Struct, frozen=True):
    """A time in which nothing came of a reply, since a volunteer that served it had dropped out. Seconds."""

    at: float
    """Since the request."""
    seconds: float


class Timing(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How fast a reply was, as its driver saw it. Seconds.

    Where another head went on with it, `first_token` and `total` are as the relay saw them.
    """

    first_token: float
    """From the request's arrival at the head to the first token."""
    total: float
    route: list[HopTiming] = field(default_factory=lambda: list[HopTiming]())
    """The last one, if hops were replaced; figures are of its decode steps."""
    prefill: list[HopTiming] = []
    """The same hops; figures are of the prompt's slices, which are on their way one behind the other."""
    head: HeadTiming | None = None
    repairs: Annotated[int, Meta(ge=0, le=MAX_INT32)] = 0
    """How often the reply went on over another route, or with another head."""
    pauses: list[Pause] = []
    """As the relay saw them; of the first `MAX_PAUSES`. What a head says here is not passed on."""
