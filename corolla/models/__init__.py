"""Models in parts: any supported causal LM of transformers, as spans of blocks and a head.

`ModelSource` finds a model, `describe` says what it costs, `SpanModel` runs some of its blocks and
`HeadModel` everything around them. Knows nothing of sessions, sampling or the network.
"""

from corolla.models.cache import SpanCache
from corolla.models.errors import (
    CheckpointBroken,
    ChunkRefused,
    FamilyRefused,
    ModelError,
    ModelNotFound,
    PickleRefused,
    QuantizationUnavailable,
    RemoteCodeRefused,
    RollbackRefused,
    SpanRefused,
)
from corolla.models.facts import ModelFacts, describe
from corolla.models.families import FAMILIES, Family
from corolla.models.head import HeadModel
from corolla.models.loading import LoadOptions, default_dtype
from corolla.models.quantization import Quantization
from corolla.models.shards import Progress
from corolla.models.source import ModelSource
from corolla.models.span import SpanModel
from corolla.models.weights import WeightReport

__all__ = [
    "FAMILIES",
    "CheckpointBroken",
    "ChunkRefused",
    "Family",
    "FamilyRefused",
    "HeadModel",
    "LoadOptions",
    "ModelError",
    "ModelFacts",
    "ModelNotFound",
    "ModelSource",
    "PickleRefused",
    "Progress",
    "Quantization",
    "QuantizationUnavailable",
    "RemoteCodeRefused",
    "RollbackRefused",
    "SpanCache",
    "SpanModel",
    "SpanRefused",
    "WeightReport",
    "default_dtype",
    "describe",
]
