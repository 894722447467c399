"""What a codec promises: prompts and chats as the model expects them, and every refusal by name."""

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import GenerationConfig, LlamaConfig, PreTrainedTokenizerFast

from corolla.models.errors import CheckpointBroken, ModelNotFound, RemoteCodeRefused
from corolla.text import USUAL_TOKEN_CHARS, TextCodec
from schema.errors import ContextTooLong, InvalidRequest
from schema.generation import Message

CHAT_TEMPLATE = """
{%- for message in messages -%}
{%- if message.role == 'system' -%}{{ raise_exception('System role not supported') }}{%- endif -%}
<|{{ message.role }}|>{{ message.content }}</s>
{%- endfor -%}
{%- if add_generation_prompt -%}<|assistant|>{%- endif -%}
"""
SPECIAL = ["<s>", "</s>", "<|user|>", "<|assistant|>", "<pad>"]


def fast_tokenizer() -> PreTrainedTokenizerFast:
    """Byte-level BPE that puts <s> first; its last id, <pad>, has no row in the model's embedding."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=SPECIAL[:-1],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(["hello world, how are you?"] * 4, trainer)
    backend.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>", eos_token="</s>")
    tokenizer.add_special_tokens({"pad_token": "<pad>"})
    return tokenizer


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model folder without weights: config, generation config, tokenizer with a chat template."""
    tokenizer = fast_tokenizer()
    tokenizer.chat_template = CHAT_TEMPLATE
    tokenizer.save_pretrained(tmp_path)
    LlamaConfig(vocab_size=len(tokenizer) - 1, eos_token_id=2).save_pretrained(tmp_path)
    GenerationConfig(eos_token_id=[3, 2]).save_pretrained(tmp_path)
    return tmp_path


@pytest.fixture
def codec(folder: Path) -> TextCodec:
    return TextCodec.load(folder)


def change(path: Path, **fields: object) -> None:
    content = json.loads(path.read_text("utf-8")) if path.exists() else {}
    path.write_text(json.dumps(content | fields), "utf-8")


def test_a_prompt_begins_as_the_tokenizer_begins_by_default(codec: TextCodec):
    ids = codec.encode_prompt("hello")
    assert ids[0] == 0
    assert codec.decode(ids) == "hello"


def test_a_prompt_of_ids_is_taken_as_it_is(codec: TextCodec):
    assert codec.encode_prompt([5, 6, 7]) == [5, 6, 7]


def test_the_callers_ids_are_not_shared(codec: TextCodec):
    given = [5, 6]
    codec.encode_prompt(given).append(7)
    assert given == [5, 6]


@pytest.mark.parametrize("wrong", [-1, 10**6, 2**63])
def test_an_id_outside_the_vocabulary_is_refused_by_name(codec: TextCodec, wrong: int):
    said = f"Token id {wrong} .* from 0 to {codec.vocab_size - 1}"
    with pytest.raises(InvalidRequest, match=said) as caught:
        codec.encode_prompt([1, wrong])
    assert caught.value.param == "prompt"


class TestALongText:
    """The tokenizer here makes a token of each letter of what it was not made of."""

    CONTEXT = 100

    @pytest.fixture
    def encoded(self, codec: TextCodec, monkeypatch: pytest.MonkeyPatch) -> list[int]:
        """How many characters were encoded, call by call."""
        seen: list[int] = []
        encode = codec._tokenizer.encode

        def counting(text: str, **options: Any) -> Any:
            seen.append(len(text))
            return encode(text, **options)

        monkeypatch.setattr(codec._tokenizer, "encode", counting)
        return seen

    def test_that_no_context_holds_is_refused_and_not_encoded(
        self, codec: TextCodec, encoded: list[int]
    ) -> None:
        with pytest.raises(ContextTooLong, match=r"1000000 characters.* 100 positions") as caught:
            codec.encode_prompt("x" * 1_000_000, self.CONTEXT)
        assert (caught.value.param, encoded) == ("prompt", [])

    def test_of_a_chat_is_refused_too(self, codec: TextCodec, encoded: list[int]) -> None:
        chat = [Message("user", "x" * 1000), Message("assistant", "y" * 1000)] * 500
        with pytest.raises(ContextTooLong, match="characters") as caught:
            codec.encode_chat(chat, context=self.CONTEXT)
        assert (caught.value.param, encoded) == ("messages", [])

    def test_that_could_fit_is_encoded_no_further_than_it_does(
        self, codec: TextCodec, encoded: list[int]
    ) -> None:
        with pytest.raises(ContextTooLong, match=r"more tokens than .* 100"):
            codec.encode_prompt("x" * 3000, self.CONTEXT)
        assert encoded == [USUAL_TOKEN_CHARS * self.CONTEXT]

    @pytest.mark.parametrize("text", ["x" * 200, "hello world, how are you?" * 30])
    def test_with_the_usual_tokens_is_left_to_be_counted(self, codec: TextCodec, text: str) -> None:
        assert codec.encode_prompt(text, self.CONTEXT) == codec.encode_prompt(text)

    def test_of_long_tokens_passes(self, encoded: list[int]) -> None:
        """A tokenizer with one token for ever so many spaces."""
        tokenizer = fast_tokenizer()
        tokenizer.add_tokens([" " * 64])
        codec = TextCodec(tokenizer, len(tokenizer), frozenset({1}))
        assert len(codec.encode_prompt(" " * 64 * 90, self.CONTEXT)) == 91

    def test_may_have_any_length_where_no_context_is_given(self, codec: TextCodec) -> None:
        assert len(codec.encode_prompt("x" * 5000)) == 5001


def test_a_chat_is_rendered_once_where_there_are_no_tools(
    codec: TextCodec, monkeypatch: pytest.MonkeyPatch
) -> None:
    rendered: list[Any] = []
    render = codec._tokenizer.apply_chat_template
    monkeypatch.setattr(
        codec._tokenizer, "apply_chat_template", lambda *a, **k: (rendered.append(a), render(*a, **k))[1]
    )
    codec.encode_chat([Message("user", "hello")])
    assert len(rendered) == 1


def test_text_cannot_name_a_token_that_the_model_has_no_embedding_for(codec: TextCodec):
    with pytest.raises(InvalidRequest, match=f"Token id {codec.vocab_size} of 'prompt' is not one"):
        codec.encode_prompt("hello <pad>")


def test_a_chat_is_rendered_up_to_where_the_answer_begins(codec: TextCodec):
    ids = codec.encode_chat([Message("user", "hello"), Message("assistant", "how"), Message("user", "are")])
    written = "<|user|>hello</s><|assistant|>how</s><|user|>are</s><|assistant|>"
    assert ids == codec.encode_prompt(written)[1:]


def test_a_chat_is_rendered_up_to_the_end_of_what_is_continued(codec: TextCodec):
    messages = [Message("user", "hello"), Message("assistant", "how are")]
    ids = codec.encode_chat(messages, continues=True)
    assert ids == codec.encode_prompt("<|user|>hello</s><|assistant|>how are")[1:]


@pytest.mark.parametrize("last", [Message("user", "are"), Message("assistant", " ")])
def test_what_cannot_be_continued_is_refused_by_name(codec: TextCodec, last: Message):
    with pytest.raises(InvalidRequest, match="can be continued") as caught:
        codec.encode_chat([Message("user", "hello"), last], continues=True)
    assert caught.value.param == "messages"


def test_a_chat_does_not_get_a_second_beginning(codec: TextCodec):
    assert 0 not in codec.encode_chat([Message("user", "hello")])


def test_a_chat_without_messages_is_refused_by_name(codec: TextCodec):
    with pytest.raises(InvalidRequest, match="at least one message"):
        codec.encode_chat([])


def test_what_the_template_refuses_is_said_in_its_words(codec: TextCodec):
    with pytest.raises(InvalidRequest, match="System role not supported") as caught:
        codec.encode_chat([Message("system", "be kind"), Message("user", "hello")])
    assert caught.value.param == "messages"


def test_a_template_that_is_broken_is_the_requests_error_too(folder: Path):
    (folder / "chat_template.jinja").write_text("{{ nothing.at.all }}")
    with pytest.raises(InvalidRequest, match="chat template refuses"):
        TextCodec.load(folder).encode_chat([Message("user", "hello")])


def test_a_model_without_chat_template_points_to_completions(folder: Path):
    (folder / "chat_template.jinja").unlink()
    with pytest.raises(InvalidRequest, match="/v1/completions"):
        TextCodec.load(folder).encode_chat([Message("user", "hello")])


def test_end_tokens_are_those_of_generation_config_and_tokenizer(codec: TextCodec):
    assert codec.eos_token_ids == {1, 2, 3}


def test_without_generation_config_the_config_names_the_end_token(folder: Path):
    (folder / "generation_config.json").unlink()
    assert TextCodec.load(folder).eos_token_ids == {1, 2}


def test_a_model_may_have_no_end_token(folder: Path):
    (folder / "generation_config.json").unlink()
    change(folder / "config.json", eos_token_id=None)
    change(folder / "tokenizer_config.json", eos_token=None)
    assert TextCodec.load(folder).eos_token_ids == frozenset()


def test_a_requests_stop_tokens_end_replies_beside_the_models_own(codec: TextCodec):
    assert codec.end_tokens([7, 2]) == {1, 2, 3, 7}


def test_one_requests_stop_tokens_are_not_the_next_ones(codec: TextCodec):
    codec.end_tokens([7])
    assert codec.end_tokens([]) == codec.eos_token_ids


@pytest.mark.parametrize("wrong", [-1, 10**6, 2**63])
def test_a_stop_token_outside_the_vocabulary_is_refused_by_name(codec: TextCodec, wrong: int):
    said = f"Token id {wrong} of 'stop_token_ids' .* from 0 to {codec.vocab_size - 1}"
    with pytest.raises(InvalidRequest, match=said) as caught:
        codec.end_tokens([1, wrong])
    assert caught.value.param == "stop_token_ids"


def test_the_vocabulary_is_the_models_not_the_tokenizers(folder: Path):
    change(folder / "config.json", vocab_size=1000)
    codec = TextCodec.load(folder)
    assert codec.vocab_size == 1000
    assert codec.decode(codec.encode_prompt([999])) == ""


def test_decoding_leaves_special_tokens_out(codec: TextCodec):
    assert codec.decode(codec.encode_prompt("hello</s> world")) == "hello world"


def test_a_reply_is_detokenized_as_it_is_decoded(codec: TextCodec):
    ids = codec.encode_prompt("hello 😀 world</s>")
    detokenizer = codec.detokenizer()
    assert "".join([*map(detokenizer.push, ids), detokenizer.flush()]) == codec.decode(ids)


def test_a_folder_that_is_not_there_is_named(tmp_path: Path):
    with pytest.raises(ModelNotFound, match=r"no model folder .*nowhere"):
        TextCodec.load(tmp_path / "nowhere")


@pytest.mark.parametrize("name", ["tokenizer.json", "config.json", "generation_config.json"])
def test_a_damaged_file_is_said_to_be_broken(folder: Path, name: str):
    (folder / name).write_text('{"half": ')
    with pytest.raises(CheckpointBroken, match="cannot be loaded"):
        TextCodec.load(folder)


def test_a_folder_without_a_tokenizer_is_said_to_be_broken(folder: Path):
    for path in folder.glob("tokenizer*"):
        path.unlink()
    with pytest.raises(CheckpointBroken, match="cannot be loaded"):
        TextCodec.load(folder)


@pytest.mark.parametrize(
    ("name", "loads"),
    [("tokenizer_config.json", ["evil.EvilTokenizer", None]), ("config.json", "evil.EvilConfig")],
)
def test_code_in_the_folder_is_refused_and_not_run(folder: Path, name: str, loads: object):
    ran = folder / "ran"
    (folder / "evil.py").write_text(f"open({str(ran)!r}, 'w').close()")
    (folder / "tokenizer.json").unlink()
    change(
        folder / name,
        auto_map={"AutoTokenizer": loads, "AutoConfig": loads},
        tokenizer_class="EvilTokenizer",
        model_type="evil",
    )
    with pytest.raises(RemoteCodeRefused, match="never run"):
        TextCodec.load(folder)
    assert not ran.exists()


def test_code_that_is_named_but_not_needed_is_no_hindrance(folder: Path):
    change(folder / "config.json", auto_map={"AutoConfig": "evil.EvilConfig"})
    assert TextCodec.load(folder).encode_prompt("hello")


def test_what_is_prepared_is_not_made_again(codec: TextCodec):
    codec.prepare()
    made = codec.grammars, codec.token_texts
    assert (codec.grammars, codec.token_texts) == made


def test_threads_may_share_a_codec(folder: Path):
    """The file asks for truncation, which the library switches off at the first call."""
    content = json.loads((folder / "tokenizer.json").read_text("utf-8"))
    content["truncation"] = {
        "direction": "Right",
        "max_length": 3,
        "strategy": "LongestFirst",
        "stride": 0,
    }
    (folder / "tokenizer.json").write_text(json.dumps(content), "utf-8")
    codec = TextCodec.load(folder)
    text = "hello world, how are you? " * 50

    def encode_and_decode(_: int) -> str:
        return codec.decode(codec.encode_prompt(text))

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(encode_and_decode, range(64))) == {text}
