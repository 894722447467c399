"""Between a model's text and its token ids: prompts and chats in, pieces of a reply out.

Wraps the tokenizer of a local model folder, as transformers loads it. Code from a model folder is never
run and nothing is downloaded; a chat template is data, which the library renders in a sandbox.

What takes long, because a text or a schema is long, runs in threads of the codec's own: neither the loop nor
whoever draws tokens waits for it. Does not know what a token costs.
"""

import asyncio
import json
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar, cast

from jinja2 import TemplateError
from msgspec.structs import replace
from transformers import AutoConfig, AutoTokenizer, GenerationConfig, PreTrainedTokenizerBase

from corolla.calls import CallReader, forced_reader, form_of
from corolla.constraints import GrammarConstraint, Grammars
from corolla.detokenizer import Detokenizer
from corolla.models.errors import CheckpointBroken, ModelNotFound, RemoteCodeRefused
from corolla.templates import template_message, template_tool
from corolla.token_texts import ScoreTeller, TokenTexts
from schema.errors import ContextTooLong, InvalidRequest
from schema.generation import GenerationRequest, Message, Tools

LEAST_TOKEN_CHARS = 32
"""Characters that a token of any tokenizer may stand for: some drop spaces, or have one token for every word
that they do not know."""
USUAL_TOKEN_CHARS = 8
"""Hardly a text has more for each of its tokens: for one that may not fit, as much is encoded first."""
_CUT_TOKENS = 16
"""How many more a text may have than it had as a part of a longer one."""

_T = TypeVar("_T")


class TextCodec:
    """The tokenizer of one model. It keeps no state from call to call: threads may share it."""

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, vocab_size: int, eos_token_ids: frozenset[int]
    ) -> None:
        self._tokenizer = tokenizer
        self._worker = ThreadPoolExecutor(1, "text")
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

    async def aside(self, work: Callable[[], _T]) -> _T:
        """Runs work with texts, one after the other, in the codec's own thread."""
        return await asyncio.get_running_loop().run_in_executor(self._worker, work)

    def encode_prompt(
        self, prompt: str | Sequence[int], context: int | None = None, param: str = "prompt"
    ) -> list[int]:
        """Ids of a plain completion's prompt. `param`: the request's field that it is of.

        Text gets the tokens that the tokenizer puts at its beginning by default. Control tokens
        written out in the text are taken as such. Ids are taken as they are.

        Raises:
            InvalidRequest: an id that the model does not have.
            ContextTooLong: a text that certainly has more than `context` tokens; it is not encoded then.
        """
        if isinstance(prompt, str):
            return self._known(self._encoded(prompt, context, param), param)
        return self._known(list(prompt), param)

    def encode_chat(
        self,
        messages: Sequence[Message],
        tools: Tools | None = None,
        context: int | None = None,
        *,
        continues: bool = False,
    ) -> list[int]:
        """Ids of a conversation in the form that the model was trained on, up to where its answer begins,
        or, where it continues the last message, up to where that ends.

        Raises:
            InvalidRequest: no messages, a last one that cannot be continued, a model without a chat template,
                or a template that refuses them, or that does not know tools or calls.
            ContextTooLong: as `encode_prompt`.
        """
        if not messages:
            raise InvalidRequest("A chat needs at least one message.", param="messages")
        if continues and (messages[-1].role != "assistant" or not messages[-1].content.strip()):
            raise InvalidRequest(
                "Only an assistant's message with some text can be continued: it has to be the last one.",
                param="messages",
            )
        if not self._tokenizer.chat_template:
            raise InvalidRequest(
                "This model has no chat template: it continues text, and was not made for chats. "
                "Use /v1/completions.",
                param="messages",
            )
        written = self._rendered(messages, tools, continues)
        self._check_tools(messages, tools, continues, written)
        return self._known(self._encoded(written, context, "messages", is_whole=True), "messages")

    def _encoded(self, text: str, context: int | None, param: str, is_whole: bool = False) -> list[int]:
        """`is_whole`: it has all its control tokens already. As much as is known to be too long is left."""
        if context is not None:
            self._check_length(text, context, param)
        return self._tokenizer.encode(text, add_special_tokens=not is_whole)

    def _check_length(self, text: str, context: int, param: str) -> None:
        """Raises ContextTooLong. Encoding a MB takes seconds."""
        if len(text) > context * self._longest_token:
            raise ContextTooLong(
                f"the text has {len(text)} characters, and {context} positions cannot hold so many: "
                "shorten it",
                param=param,
            )
        first = text[: context * USUAL_TOKEN_CHARS]
        if len(first) < len(text) and len(self._tokenizer.encode(first)) > context + _CUT_TOKENS:
            raise ContextTooLong(
                f"the text has more tokens than the model has positions, which are {context}: shorten it",
                param=param,
            )

    @cached_property
    def _longest_token(self) -> int:
        """Characters that a token stands for at most."""
        return max(LEAST_TOKEN_CHARS, *map(len, self._tokenizer.get_vocab()))

    def _check_tools(
        self, messages: Sequence[Message], tools: Tools | None, continues: bool, written: str
    ) -> None:
        """Raises InvalidRequest where the template leaves out tools, calls or their results: what it has
        `written` is the same without them."""
        if tools is not None and self._writes(messages, None, continues, written):
            raise InvalidRequest(
                "This model's chat template does not know tools: use a model that was made for them.",
                param="tools",
            )
        without_calls = [replace(message, tool_calls=[]) for message in messages]
        if without_calls != list(messages) and self._writes(without_calls, tools, continues, written):
            raise InvalidRequest(
                "This model's chat template does not know tool calls: leave them out of the conversation.",
                param="messages",
            )
        without_results = [message for message in messages if message.role != "tool"]
        if len(without_results) < len(messages) and self._writes(without_results, tools, continues, written):
            raise InvalidRequest(
                "This model's chat template does not know results of tools: tell them as a user.",
                param="messages",
            )

    def _writes(
        self, messages: Sequence[Message], tools: Tools | None, continues: bool, written: str
    ) -> bool:
        """Whether this conversation is written so. One that the template refuses is not."""
        try:
            return self._rendered(messages, tools, continues) == written
        except InvalidRequest:
            return False

    def _rendered(self, messages: Sequence[Message], tools: Tools | None, continues: bool) -> str:
        """A conversation as text."""
        try:
            written = self._tokenizer.apply_chat_template(
                list(map(template_message, messages)),
                tools=None if tools is None else list(map(template_tool, tools.functions)),
                add_generation_prompt=not continues,
                continue_final_message=continues,
                tokenize=False,
            )
            return cast(str, written)
        except (TemplateError, ValueError, TypeError) as error:
            raise InvalidRequest(
                f"This model's chat template refuses the conversation: {error}", param="messages"
            ) from error
        except RecursionError as error:
            raise InvalidRequest(
                "The JSON Schema of a tool, or the arguments of a call, are nested too deep to be written: "
                "use flatter ones.",
                param="messages" if tools is None else "tools",
            ) from error

    def constraint(self, request: GenerationRequest) -> GrammarConstraint | None:
        """What a reply is to be held to. May take a second, when it is the model's first one.

        Raises:
            InvalidRequest: it cannot be held to that.
        """
        return self.grammars.constraint(request, self.end_tokens(request.stopping.stop_token_ids))

    async def constraint_aside(self, request: GenerationRequest) -> GrammarConstraint | None:
        """As `constraint`. Neither the loop nor whoever draws tokens waits while a grammar is compiled."""
        ends = self.end_tokens(request.stopping.stop_token_ids)
        return await self.grammars.constraint_aside(request, ends)

    def call_reader(self, tools: Tools) -> tuple[CallReader, dict[int, str]]:
        """What finds calls in a reply, and the marks around them that are tokens without text."""
        names = [function.name for function in tools.functions]
        if tools.must_call:
            return forced_reader(names), {}
        form = form_of(str(self._tokenizer.chat_template))
        tokens = {mark: cast(Any, self._tokenizer.convert_tokens_to_ids(mark)) for mark in form.marks}
        is_mark = self.token_texts.is_mark
        silent = {
            token: mark
            for mark, token in tokens.items()
            if token is not None and token != self._tokenizer.unk_token_id and is_mark(token)
        }
        return form.reader(names), silent

    def end_tokens(self, asked: Sequence[int]) -> frozenset[int]:
        """Ids that end a reply: the model's own end tokens and those that its request asks for.

        Raises:
            InvalidRequest: an id that the model does not have. It could never come, and is a mistake.
        """
        return self.eos_token_ids.union(self._known(list(asked), "stop_token_ids"))

    def check_bias(self, biased: Iterable[int]) -> None:
        """Raises InvalidRequest for an id that the model does not have."""
        self._known(list(biased), "logit_bias")

    def decode(self, ids: Sequence[int]) -> str:
        """The text of tokens, special ones left out. Ids without a token say nothing."""
        return cast(str, self._tokenizer.decode(list(ids), skip_special_tokens=True))

    def detokenizer(self, after: Sequence[int] = ()) -> Detokenizer:
        """For one reply; `after` as `Detokenizer` takes it: a completion's prompt, nothing for a chat."""
        return Detokenizer(self.decode, after)

    def score_teller(self, after: Sequence[int] = ()) -> ScoreTeller:
        """For one sequence of tokens; `after` as for `detokenizer`."""
        return ScoreTeller(self.token_texts, after)

    def prepare(self) -> None:
        """Make now what else would be made for the first reply that needs it, while others' tokens wait."""
        _ = self.grammars, self.token_texts, self._longest_token

    @cached_property
    def grammars(self) -> Grammars:
        """What replies can be held to."""
        return Grammars(self._tokenizer, self.vocab_size, self.eos_token_ids)

    @cached_property
    def token_texts(self) -> TokenTexts:
        """What single tokens say."""
        return TokenTexts(self._tokenizer)

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
