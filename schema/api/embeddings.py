"""The bodies of `POST /v1/embeddings`.

Does not know HTTP, nor how a vector is made.
"""

from typing import Literal

from msgspec import UNSET, Struct

from schema.api.common import Unsupported, refuse_unsupported
from schema.api.completions import Texts, texts_of
from schema.errors import InvalidRequest
from schema.messages import ModelName

MOST_INPUTS = 2048
"""Of one request: OpenAI's own limit."""


class EmbeddingRequest(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Body of `POST /v1/embeddings`."""

    model: ModelName
    input: Texts
    encoding_format: Literal["float", "base64"] | None = None
    user: str | None = None
    """Accepted and not used."""
    dimensions: Unsupported = UNSET

    def to_inputs(self) -> list[str | list[int]]:
        """Each text, or list of token ids. Raises InvalidRequest when it asks for what is not served."""
        refuse_unsupported(self)
        inputs = texts_of(self.input, "input")
        if len(inputs) > MOST_INPUTS:
            raise InvalidRequest(f"'input' may have {MOST_INPUTS} texts, not {len(inputs)}", param="input")
        return inputs


class EmbeddingEntry(Struct, frozen=True, kw_only=True):
    """The vector of one input."""

    object: Literal["embedding"] = "embedding"
    index: int
    embedding: list[float] | str
    """Base64 of float32, little-endian, where the request wants that."""


class EmbeddingUsage(Struct, frozen=True, kw_only=True):
    """Tokens of all inputs."""

    prompt_tokens: int
    total_tokens: int


class EmbeddingList(Struct, frozen=True, kw_only=True):
    """Answer of `POST /v1/embeddings`."""

    object: Literal["list"] = "list"
    data: list[EmbeddingEntry]
    model: str
    usage: EmbeddingUsage
