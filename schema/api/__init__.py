"""REST bodies under `/v1`, in the shapes that OpenAI's clients send and expect.

A field that those clients may send and that this server cannot honour is declared and refused by name
(`schema.api.common.Unsupported`), never ignored; a field nobody knows is refused by the decoder.
Knows shapes and how they become a `GenerationRequest`. Does not know HTTP.
"""

from schema.api.chat import (
    AssistantMessage,
    ChatChoice,
    ChatChunk,
    ChatChunkChoice,
    ChatCompletion,
    ChatCompletionRequest,
    ChatDelta,
)
from schema.api.completions import CompletionRequest, TextChoice, TextCompletion
from schema.api.embeddings import EmbeddingList, EmbeddingRequest
from schema.api.errors import ErrorBody, ErrorDetail, error_body
from schema.api.models import ModelEntry, ModelList
from schema.api.responses import ResponsesRequest

__all__ = [
    "AssistantMessage",
    "ChatChoice",
    "ChatChunk",
    "ChatChunkChoice",
    "ChatCompletion",
    "ChatCompletionRequest",
    "ChatDelta",
    "CompletionRequest",
    "EmbeddingList",
    "EmbeddingRequest",
    "ErrorBody",
    "ErrorDetail",
    "ModelEntry",
    "ModelList",
    "ResponsesRequest",
    "TextChoice",
    "TextCompletion",
    "error_body",
]
