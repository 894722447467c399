"""Whether a model decides a greedy reply, as the chaos benchmark sees it."""

from pathlib import Path
from typing import Any

import torch
from transformers import LlamaForCausalLM

from benchmarks.chaos import LEAST_MARGIN, Judge, draw
from benchmarks.models import SEED, TINY, make_llama, prompt_ids


def test_a_margin_is_that_of_the_closest_choice(tmp_path: Path) -> None:
    folder = make_llama(tmp_path, TINY)
    model = LlamaForCausalLM.from_pretrained(folder).double().eval()
    tokens, margins = prompt_ids(8, TINY.vocabulary), list[float]()
    for _ in range(12):
        with torch.inference_mode():
            first, second = model(torch.tensor([tokens])).logits[0, -1].topk(2).values.tolist()
        margins.append(first - second)
        with torch.inference_mode():
            tokens = [*tokens, int(model(torch.tensor([tokens])).logits[0, -1].argmax())]
    reply = "".join(f"{token} " for token in tokens[8:])
    assert abs(Judge(folder).margin(tokens[:8], reply) - min(margins)) < 1e-9


def test_a_choice_that_fp32_cannot_make_is_none(tmp_path: Path) -> None:
    """This prompt was drawn once: its reply says 410 or 163, as the last bits will."""
    prompt, folder = draw(SEED, 59).prompts[0], make_llama(tmp_path, TINY)
    model: Any = LlamaForCausalLM.from_pretrained(folder).double().eval()
    tokens = model.generate(torch.tensor([prompt]), max_new_tokens=100, do_sample=False)[0, len(prompt) :]
    reply = "".join(f"{token} " for token in tokens.tolist())
    assert Judge(folder).margin(prompt, reply) < LEAST_MARGIN


def test_a_round_is_the_same_whenever_it_is_drawn() -> None:
    assert draw(SEED, 5) == draw(SEED, 5)
    assert draw(SEED, 5).prompts != draw(SEED, 5, 1).prompts
