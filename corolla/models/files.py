"""Where the files of a model are: in a local folder, or in a repository of the Hugging Face Hub.

Both answer the same questions: is there a file of this name, where is it on this disk (after a download
if need be), and which tensors does a weights file hold (without a download). Knows nothing of their meaning.
"""

from pathlib import Path
from typing import Protocol

from huggingface_hub import HfApi, constants, hf_hub_download, snapshot_download, try_to_load_from_cache
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from safetensors import SafetensorError, safe_open

from corolla.models.errors import CheckpointBroken, ModelNotFound

TOKENIZER_FILES = (
    *("tokenizer*", "special_tokens_map.json", "added_tokens.json", "vocab*", "merges.txt", "spiece.model"),
    *("sentencepiece*", "chat_template*", "generation_config.json", "config.json"),
)
"""Patterns of the small files that a tokenizer is made from: no weights, no Python."""


class ModelFiles(Protocol):
    """The files of one revision of one model. Methods raise `ModelNotFound` when the Hub does not answer."""

    revision: str | None

    def has(self, name: str) -> bool:
        """Whether the model has a file of this name."""
        ...

    def is_here(self, name: str) -> bool:
        """Whether the file is on this disk already."""
        ...

    def path(self, name: str) -> Path | None:
        """Where the file is on this disk, downloaded if need be; None if the model has no such file."""
        ...

    def tensors_in(self, name: str) -> list[str]:
        """Names of the tensors in a safetensors file, from its header alone. Raises `CheckpointBroken`."""
        ...

    def tokenizer_folder(self) -> Path:
        """A local folder with the tokenizer's files in it."""
        ...


class LocalFiles:
    """A folder as `save_pretrained` writes it."""

    revision: str | None = None

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def has(self, name: str) -> bool:
        return (self._folder / name).is_file()

    def is_here(self, name: str) -> bool:
        return self.has(name)

    def path(self, name: str) -> Path | None:
        return self._folder / name if self.has(name) else None

    def tensors_in(self, name: str) -> list[str]:
        return _tensor_names(self._folder / name)

    def tokenizer_folder(self) -> Path:
        return self._folder


class HubFiles:
    """A repository of the Hub at one commit. Files are kept in the library's own cache."""

    def __init__(self, repository: str, revision: str | None, endpoint: str | None = None) -> None:
        self._repository = repository
        self._api = HfApi(endpoint=endpoint or constants.ENDPOINT)
        self.revision: str | None = revision
        config = self.path("config.json")
        if config is None:
            raise ModelNotFound(f"{repository} has no config.json, so it is not a transformers model.")
        # The commit that `revision` names now: the cache files it under that, and all else comes from it.
        self.revision = config.parent.name

    def has(self, name: str) -> bool:
        if self._cached(name) is not None:
            return True
        try:
            return self._api.file_exists(self._repository, name, revision=self.revision)
        except HfHubHTTPError as error:
            raise self._not_found(error) from error

    def is_here(self, name: str) -> bool:
        return self._cached(name) is not None

    def path(self, name: str) -> Path | None:
        try:
            downloaded = hf_hub_download(
                self._repository, name, revision=self.revision, endpoint=self._api.endpoint
            )
        except LocalEntryNotFoundError as error:
            raise ModelNotFound(
                f"{name} of {self._repository} is not on this disk, and {self._api.endpoint} "
                "does not answer or may not be asked. "
                "Check the network, or give the path of a local folder."
            ) from error
        except EntryNotFoundError:
            return None
        except (HfHubHTTPError, HFValidationError) as error:
            raise self._not_found(error) from error
        return Path(downloaded)

    def tensors_in(self, name: str) -> list[str]:
        cached = self._cached(name)
        if cached is not None:
            return _tensor_names(cached)
        try:
            header = self._api.parse_safetensors_file_metadata(self._repository, name, revision=self.revision)
        except HfHubHTTPError as error:
            raise self._not_found(error) from error
        return list(header.tensors)

    def tokenizer_folder(self) -> Path:
        patterns = list(TOKENIZER_FILES)
        try:
            folder = snapshot_download(
                self._repository,
                revision=self.revision,
                endpoint=self._api.endpoint,
                allow_patterns=patterns,
                ignore_patterns=["*.py"],
            )
        except HfHubHTTPError as error:
            raise self._not_found(error) from error
        return Path(folder)

    def _cached(self, name: str) -> Path | None:
        found = try_to_load_from_cache(self._repository, name, revision=self.revision)
        return Path(found) if isinstance(found, str) else None

    def _not_found(self, error: Exception) -> ModelNotFound:
        where = f"{self._repository} at {self.revision}" if self.revision else self._repository
        if isinstance(error, GatedRepoError):
            return ModelNotFound(f"{where} is gated: accept its terms on the Hub, then set HF_TOKEN.")
        if isinstance(error, RevisionNotFoundError):
            return ModelNotFound(f"{where}: there is no such revision. Give a branch, a tag or a commit.")
        if isinstance(error, (RepositoryNotFoundError, HFValidationError)):
            return ModelNotFound(
                f"{self._repository} is neither a local folder nor a repository that the Hub shows you. "
                "Check the name; for a private one set HF_TOKEN."
            )
        return ModelNotFound(f"The Hub did not give {where}: {error}")


def _tensor_names(path: Path) -> list[str]:
    try:
        with safe_open(path, framework="pt") as shard:
            return list(shard.keys())
    except (OSError, SafetensorError) as error:
        raise CheckpointBroken(
            f"{path.name} is not readable as safetensors: {error}. Get it again."
        ) from error
