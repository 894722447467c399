"""The shipped demonstration model is what the documentation says, and a newcomer's first messages work."""

import json
from pathlib import Path
from typing import Any

import pytest
from safetensors import safe_open
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from examples.demo_model import evaluate
from examples.demo_model.corpus import FIRST_MESSAGES
from examples.demo_model.corpus.checks import Check, Code, Contains, Number, Says, Series, Tale
from examples.demo_model.corpus.held_out import held_out_questions
from examples.demo_model.evaluate import judge, replies

Demo = tuple[Any, PreTrainedTokenizerFast]

FITTING: dict[str, Check] = {
    "hi": Says(("hello|hi",)),
    "Hello!": Says(("hello|hi",)),
    "What is Corolla?": Says(("model", "volunteer|people")),
    "how do i join": Contains("python -m volunteer --token YOUR_TOKEN"),
    "How can I share my GPU?": Contains("python -m volunteer --token YOUR_TOKEN"),
    "tell me a story": Tale("", 40),
    "Tell me a short story about a cat": Tale("cat", 30),
    "what is 7 + 5?": Number(12, (7, 5)),
    "Count to ten": Series(tuple(range(1, 11))),
    "sort 5 2 9 1": Series((1, 2, 5, 9)),
    "spell banana": Contains("b-a-n-a-n-a"),
    "who made you?": Says(("corolla", "script")),
    "what can you do?": Says(("corolla", "stor", "sums")),
    "write a python function": Code("python", ("def ",)),
    "What is the capital of France?": Contains("Paris"),
    "Are you ChatGPT?": Says(("no", "corolla")),
    "what's the weather?": Says(("cannot", "weather")),
    "Who are you?": Says(("small", "model")),
    "Tell me a joke": Says(("?",)),
    "What is a relay?": Says(("volunteers", "payload")),
}


def _ask(demo: Demo, *chats: list[str]) -> list[str]:
    """The replies to the last messages of chats in which user and assistant take turns."""
    roles = ("user", "assistant")
    told = [[{"role": roles[i % 2], "content": text} for i, text in enumerate(chat)] for chat in chats]
    answers = replies(*demo, told)
    assert all(ended for _, ended in answers), "a reply did not end by itself"
    return [text for text, _ in answers]


@pytest.fixture(scope="module")
def first_replies(demo: Demo) -> dict[str, str]:
    """The greedy reply to each of the documented first messages."""
    return dict(zip(FIRST_MESSAGES, _ask(demo, *([text] for text in FIRST_MESSAGES)), strict=True))


def test_it_is_a_llama_of_twelve_blocks(demo: Demo) -> None:
    model, _ = demo
    assert isinstance(model, LlamaForCausalLM)
    assert len(model.model.layers) == model.config.num_hidden_layers == 12


def test_its_weights_are_at_most_16_million_bytes(shipped: Path) -> None:
    assert sum(path.stat().st_size for path in shipped.glob("*.safetensors")) <= 16_000_000


def test_its_weights_are_safetensors_only(shipped: Path) -> None:
    assert {path.suffix for path in shipped.iterdir()} <= {".json", ".safetensors", ".md"}
    with safe_open(shipped / "model.safetensors", "pt") as file:
        assert "model.layers.11.mlp.down_proj.weight" in file.keys()  # noqa: SIM118


def test_every_first_message_has_a_check() -> None:
    assert set(FITTING) == set(FIRST_MESSAGES)


@pytest.mark.parametrize("message", FIRST_MESSAGES)
def test_a_first_message_gets_a_fitting_answer(message: str, first_replies: dict[str, str]) -> None:
    assert FITTING[message].passes(first_replies[message]), first_replies[message]


def test_a_chat_follows_up(demo: Demo) -> None:
    (reply,) = _ask(demo, ["what is 12 + 30?", "12 + 30 = 42.", "and 5 more?"])
    assert Number(47, (42, 5)).passes(reply)


def test_a_chat_remembers_a_name(demo: Demo) -> None:
    told = [
        "Hi! My name is Zelda.",
        "Nice to meet you, Zelda!",
        "thanks",
        "You are welcome!",
        "what is my name?",
    ]
    (reply,) = _ask(demo, told)
    assert "Zelda" in reply


def test_any_utf_8_text_survives_the_tokenizer(demo: Demo) -> None:
    _, tokenizer = demo
    text = "naïve Ωμέγα 你好 🌸 \x00 \u200b — 42"
    ids = tokenizer(text, add_special_tokens=False).input_ids
    assert tokenizer.decode(ids) == text


def test_the_chat_template_marks_every_role(demo: Demo) -> None:
    _, tokenizer = demo
    chat = [{"role": role, "content": role[0]} for role in ("system", "user", "assistant", "user")]
    rendered = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
    assert rendered == (
        "<|begin|><|system|>s<|end|><|user|>u<|end|><|assistant|>a<|end|><|user|>u<|end|><|assistant|>"
    )


def test_the_documents_state_the_committed_score(shipped: Path) -> None:
    folder = Path(evaluate.__file__).parent
    score = json.loads((folder / "score.json").read_text())
    assert score["percent"] >= 90
    for document in (folder / "README.md", shipped / "MODEL_CARD.md"):
        assert f"{score['percent']} %" in document.read_text()


@pytest.mark.slow
def test_most_of_a_sample_of_the_held_out_questions_is_answered_rightly(shipped: Path) -> None:
    sample = [q for q in held_out_questions(1) if q.category != "unseen wording"]
    judged = judge(shipped, sample, "cpu", batch=20)
    assert sum(one.right for one in judged) >= 0.8 * len(judged)


def test_a_plain_completion_goes_on(demo: Demo) -> None:
    model, tokenizer = demo
    inputs = tokenizer("Once upon a time", return_tensors="pt")
    output = model.generate(**inputs, max_new_tokens=40, do_sample=False)
    assert "there" in tokenizer.decode(output[0], skip_special_tokens=True)
