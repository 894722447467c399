"""`/v1`: what OpenAI's clients ask for. The handlers are in relay/rest/."""

from relay.heads import HEADS_MAY_SAY
from relay.openapi import Answer, Operation
from schema.api import (
    ChatChunk,
    ChatCompletion,
    ChatCompletionRequest,
    CompletionRequest,
    EmbeddingList,
    EmbeddingRequest,
    ModelEntry,
    ModelList,
    ResponsesRequest,
    TextCompletion,
)
from schema.api import response_events as events
from schema.errors import ModelUnavailable, NotFound, Overloaded, TooManyRequests

_TAG = "Completions"
_STREAM = "text/event-stream"
_STREAMED = (
    "With `stream`, server-sent events: after the last one comes `data: [DONE]`. A reply that breaks after "
    "its first token ends with an event that holds an error, and without `[DONE]`."
)
_RESPONSE_STREAMED = (
    "With `stream`, server-sent events, each of which names itself twice: as the event, and in `type`. "
    "The last one is `response.completed`, `response.incomplete` or `response.failed`."
)
RESPONSE_EVENTS = (
    events.ResponseEvent,
    events.ItemEvent,
    events.PartEvent,
    events.TextDelta,
    events.TextDone,
    events.ArgumentsDelta,
    events.ArgumentsDone,
)
REPLY_ERRORS = (NotFound, TooManyRequests, Overloaded, *HEADS_MAY_SAY)
"""What becomes of a reply that is not finished."""

COMPLETIONS: tuple[Operation, ...] = (
    Operation(
        method="POST",
        path="/v1/chat/completions",
        tag=_TAG,
        summary="The next turn of a chat",
        description="As OpenAI's. A field that cannot be honoured is refused by name.",
        access="client",
        body=ChatCompletionRequest,
        example={
            "model": "corolla-demo",
            "messages": [{"role": "user", "content": "Which flowers open at dusk?"}],
            "max_tokens": 64,
        },
        answers=(
            Answer(meaning="The reply.", shape=ChatCompletion),
            Answer(meaning=_STREAMED, shape=ChatChunk, media=_STREAM),
        ),
        errors=REPLY_ERRORS,
    ),
    Operation(
        method="POST",
        path="/v1/completions",
        tag=_TAG,
        summary="The continuation of a text",
        description="As OpenAI's. The prompt is text, or token ids of the model's own vocabulary.",
        access="client",
        body=CompletionRequest,
        example={"model": "corolla-demo", "prompt": "In the garden", "max_tokens": 16},
        answers=(
            Answer(meaning="The continuation.", shape=TextCompletion),
            Answer(meaning=_STREAMED, shape=TextCompletion, media=_STREAM),
        ),
        errors=REPLY_ERRORS,
    ),
    Operation(
        method="POST",
        path="/v1/responses",
        tag=_TAG,
        summary="A response",
        description="The text part of OpenAI's Responses API. Nothing is stored: `store` is false.",
        access="client",
        body=ResponsesRequest,
        example={"model": "corolla-demo", "input": "Which flowers open at dusk?", "max_output_tokens": 64},
        answers=(
            Answer(meaning="The response.", shape=events.Response),
            Answer(meaning=_RESPONSE_STREAMED, shape=RESPONSE_EVENTS, media=_STREAM),
        ),
        errors=REPLY_ERRORS,
    ),
    Operation(
        method="POST",
        path="/v1/embeddings",
        tag=_TAG,
        summary="Vectors of texts",
        description=(
            "As OpenAI's. A vector is the mean of the last block's hidden states after the final norm, "
            "over all tokens, of length 1."
        ),
        access="client",
        body=EmbeddingRequest,
        example={"model": "corolla-demo", "input": ["A fox", "A hen"]},
        answers=(Answer(meaning="The vectors, in the order of the inputs.", shape=EmbeddingList),),
        errors=REPLY_ERRORS,
    ),
    Operation(
        method="GET",
        path="/v1/models",
        tag=_TAG,
        summary="The models that would answer now",
        access="client",
        answers=(Answer(meaning="The models.", shape=ModelList),),
    ),
    Operation(
        method="GET",
        path="/v1/models/{id}",
        tag=_TAG,
        summary="Whether a model would answer now",
        access="client",
        in_path=(("id", "The model's name, which may have slashes."),),
        answers=(Answer(meaning="It would.", shape=ModelEntry),),
        errors=(NotFound, ModelUnavailable),
    ),
)
