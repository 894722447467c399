"""The tokens that the answer to a line took, read off the answer. Pure; does not know who counts them."""

from typing import NamedTuple

import msgspec

from schema.api.embeddings import EmbeddingUsage
from schema.generation import Usage


class Taken(NamedTuple):
    """Tokens; in the words of the tables' columns."""

    prompt_tokens: int = 0
    cached_tokens: int = 0
    """Of the prompts, that were not computed again."""
    completion_tokens: int = 0


NOTHING = Taken()
"""What a line takes that is not answered."""


def taken_by(answer: msgspec.Struct) -> Taken:
    """What a whole answer of an endpoint says that it took."""
    match getattr(answer, "usage", None):
        case Usage() as usage:
            cached = usage.prompt_tokens_details.cached_tokens
            return Taken(usage.prompt_tokens, cached, usage.completion_tokens)
        case EmbeddingUsage() as usage:
            return Taken(usage.prompt_tokens)
        case _:
            return NOTHING
