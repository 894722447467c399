"""Why a model, or a part of one, cannot be loaded or run: named errors with the remedy in words.

Children of `schema.errors.CorollaError`, so their codes travel over the wire. Nothing here imports torch.
"""

from schema.errors import CorollaError, StepFailed


class ModelError(CorollaError):
    """Base of everything that `corolla.models` refuses."""

    code = "model_error"


class ModelNotFound(ModelError):
    """No such local folder, repository, revision or file."""

    code = "model_not_found"
    http_status = 404


class FamilyRefused(ModelError):
    """A model type that is known not to work, or that no test covers yet."""

    code = "family_refused"


class RemoteCodeRefused(ModelError):
    """The checkpoint needs Python code of its own, which is never run."""

    code = "remote_code_refused"


class PickleRefused(ModelError):
    """The checkpoint has its weights in pickle files only, which are never opened."""

    code = "pickle_refused"


class CheckpointBroken(ModelError):
    """Files or tensors are missing, or have a shape that the config does not give them."""

    code = "checkpoint_broken"


class SpanRefused(ModelError):
    """A range of blocks that the model does not have."""

    code = "span_refused"


class QuantizationUnavailable(ModelError):
    """A library that the quantization needs is not installed, or does not work here."""

    code = "quantization_unavailable"


class RollbackRefused(StepFailed):
    """A KV cache that cannot be cut back to the position asked for."""

    code = "rollback_refused"


class ChunkRefused(StepFailed):
    """Several tokens at once after the first chunk, in a family whose recurrent state cannot take them."""

    code = "chunk_refused"
