"""Between a model's text and its token ids: prompts and chats in, pieces of a reply out.

Wraps the tokenizer of a local model folder, as transformers loads it. Code from a model folder is never
run and nothing is downloaded; a chat template is data, which the library renders in a sandbox.

Does not know the context length, nor what a token costs.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import cast

from jinja2 import TemplateError
from transformers import AutoConfig, AutoTokenizer, GenerationConfig, PreTrainedTokenizerBase

from corolla.detokenizer import Detokenizer
from corolla.models.errors import CheckpointBroken, ModelNotFound, RemoteCodeRefused
from schema.errors import InvalidRequest
from schema.generation import Message


class TextCodec:
    """The tokenizer of one model. It keeps no state from call to call: threads may share it."""

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, vocab_size: int, eos_token_ids: frozenset[int]
    ) -> None:
        self._tokenizer = tokenizer
        self.vocab_size = vocab_size
        """Rows of the model's embedding. The tokenizer itself may know more ids, or fewer."""
        self.eos_token_ids = eos_token_ids
        """Ids with which the model ends a reply."""

    @classmethod
    def load(cls, folder: str | Path) -> "TextCodec":
        """The codec of a local model folder: its tokenizer's files, config.json and generation_config.json.

        Raises:
            ModelNotFound: no such folder.
            RemoteCodeRefused: the tokenizer is Python code in the folder.
            CheckpointBroken: files are missing or unreadable.
        """
        folder = Path(folder)
        if not folder.is_dir():
            raise ModelNotFound(f"There is no model folder {folder}. Check the path.")
        try:
            config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
            tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
            vocab_size = config.get_text_config().vocab_size
            # As the library's `generate` chooses it.
            if (folder / "generation_config.json").is_file():
                generation = GenerationConfig.from_pretrained(folder, local_files_only=True)
            else:
                generation = GenerationConfig.from_model_config(config)
        except Exception as error:  # the Rust library raises bare Exception for a file it cannot read
            raise _cannot_load(folder, error) from error
        eos_token_ids = _ids(generation.eos_token_id) | _ids(tokenizer.eos_token_id)
        return cls(tokenizer, vocab_size, eos_token_ids)

    def encode_prompt(self, prompt: str | Sequence[int]) -> list[int]:
        """Ids of a plain completion's prompt.

        Text gets the tokens that the tokenizer puts at its beginning by default. Control tokens
        written out in the text are taken as such. Ids are taken as they are.

        Raises:
            InvalidRequest: an id that the model does not have.
        """
        if isinstance(prompt, str):
            return self._known(self._tokenizer.encode(prompt), "prompt")
        return self._known(list(prompt), "prompt")

    def encode_chat(self, messages: Sequence[Message]) -> list[int]:
        """Ids of a conversation in the form that the model was trained on, up to where its answer begins.

        Raises:
            InvalidRequest: no messages, a model without a chat template, or a template that refuses them.
        """
        if not messages:
            raise InvalidRequest("A chat needs at least one message.", param="messages")
        if not self._tokenizer.chat_template:
            raise InvalidRequest(
                "This model has no chat template: it continues text, and was not made for chats. "
                "Use /v1/completions.",
                param="messages",
            )
        try:
            ids = self._tokenizer.apply_chat_template(
                [{"role": message.role, "content": message.content} for message in messages],
                add_generation_prompt=True,
                return_dict=False,
            )
        except (TemplateError, ValueError) as error:
            raise InvalidRequest(
                f"This model's chat template refuses the conversation: {error}", param="messages"
            ) from error
        return self._known(cast(list[int], ids), "messages")

    def end_tokens(self, asked: Sequence[int]) -> frozenset[int]:
        """Ids that end a reply: the model's own end tokens and those that its request asks for.

        Raises:
            InvalidRequest: an id that the model does not have. It could never come, and is a mistake.
        """
        return self.eos_token_ids.union(self._known(list(asked), "stop_token_ids"))

    def decode(self, ids: Sequence[int]) -> str:
        """The text of tokens, special ones left out. Ids without a token say nothing."""
        return cast(str, self._tokenizer.decode(list(ids), skip_special_tokens=True))

    def detokenizer(self, after: Sequence[int] = ()) -> Detokenizer:
        """For one reply; `after` as `Detokenizer` takes it: a completion's prompt, nothing for a chat."""
        return Detokenizer(self.decode, after)

    def _known(self, ids: list[int], param: str) -> list[int]:
        """`ids`, if the model has an embedding for all. Some tokenizers have more tokens than their model."""
        if ids and not 0 <= min(ids) <= max(ids) < self.vocab_size:
            wrong = next(token for token in ids if not 0 <= token < self.vocab_size)
            raise InvalidRequest(
                f"Token id {wrong} of {param!r} is not one of this model's: "
                f"they go from 0 to {self.vocab_size - 1}.",
                param=param,
            )
        return ids


def _ids(ids: int | list[int] | None) -> frozenset[int]:
    if ids is None:
        return frozenset()
    return frozenset([ids] if isinstance(ids, int) else ids)


def _cannot_load(folder: Path, error: Exception) -> RemoteCodeRefused | CheckpointBroken:
    if any(_names_code(folder / name) for name in ("tokenizer_config.json", "config.json")):
        return RemoteCodeRefused(
            f"The tokenizer or config in {folder} is Python code of its own, which is never run. "
            "Use a model that transformers supports without it."
        )
    return CheckpointBroken(
        f"The tokenizer in {folder} cannot be loaded: {error}. Get its files and config.json again."
    )


def _names_code(path: Path) -> bool:
    try:
        return "auto_map" in json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return False
