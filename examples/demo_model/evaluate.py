"""Scores a checkpoint on the held-out questions, greedily. The last line printed is one JSON object.

`python -m examples.demo_model.evaluate` takes about six minutes on one CPU core for the shipped model. A
reply counts when it ends by itself within `MOST_TOKENS` and its question's check passes. The questions are
the same every time; on one machine and one dtype the score is too.
"""

import argparse
import json
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

from .corpus.held_out import Question, held_out_questions
from .tokenizer import CONTEXT, load_tokenizer

SHIPPED = Path(__file__).parents[2] / "corolla" / "demo_model"
MOST_TOKENS = 420


@dataclass(frozen=True)
class Judged:
    """A question with the model's reply; `ended` says whether it stopped by itself."""

    question: Question
    reply: str
    ended: bool

    @property
    def right(self) -> bool:
        """Whether the reply counts."""
        return self.ended and self.question.check.passes(self.reply)

    def as_line(self) -> str:
        """A line of JSON for a reader who wants to see what went wrong."""
        asked = [message["content"] for message in self.question.messages]
        shown = {"category": self.question.category, "asked": asked, "fitting": self.question.fitting}
        return json.dumps(shown | {"reply": self.reply, "ended": self.ended}, ensure_ascii=False) + "\n"


def load(folder: Path, device: str) -> tuple[Any, PreTrainedTokenizerFast]:
    """The checkpoint in fp32, and its tokenizer."""
    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    return model.to(device).eval(), load_tokenizer(folder)


@torch.inference_mode()
def replies(
    model: Any, tokenizer: PreTrainedTokenizerFast, chats: list[list[dict[str, str]]]
) -> list[tuple[str, bool]]:
    """The greedy reply to each chat, and whether it ended by itself. One padded batch."""
    inputs: Any = tokenizer.apply_chat_template(
        chats, add_generation_prompt=True, return_dict=True, return_tensors="pt", padding=True
    )
    inputs = inputs.to(model.device)
    start = inputs["input_ids"].shape[1]
    output = model.generate(**inputs, max_new_tokens=min(MOST_TOKENS, CONTEXT - start), do_sample=False)
    found: list[tuple[str, bool]] = []
    for ids in output[:, start:].tolist():
        ended = tokenizer.eos_token_id in ids
        kept = ids[: ids.index(tokenizer.eos_token_id)] if ended else ids
        found.append((str(tokenizer.decode(kept)), ended))
    return found


def judge(folder: Path, questions: list[Question], device: str, batch: int) -> list[Judged]:
    """Ask every question; results come in the order of `questions`."""
    model, tokenizer = load(folder, device)
    order = sorted(range(len(questions)), key=lambda i: sum(len(m["content"]) for m in questions[i].messages))
    judged: dict[int, Judged] = {}
    for at in range(0, len(order), batch):
        part = order[at : at + batch]
        answers = replies(model, tokenizer, [list(questions[i].messages) for i in part])
        judged |= {i: Judged(questions[i], *answer) for i, answer in zip(part, answers, strict=True)}
    return [judged[i] for i in range(len(questions))]


def score(judged: list[Judged]) -> dict[str, object]:
    """The share of right replies, overall and by category, in percent."""
    groups: dict[str, list[bool]] = defaultdict(list)
    for one in judged:
        groups[one.question.category].append(one.right)
    by_category = {
        name: {"questions": len(group), "percent": round(100 * sum(group) / len(group), 1)}
        for name, group in groups.items()
    }
    right = sum(one.right for one in judged)
    return {
        "percent": round(100 * right / len(judged), 1),
        "questions": len(judged),
        "categories": by_category,
    }


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, default=SHIPPED)
    parser.add_argument("--per-category", type=int, default=40)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--save", type=Path, help="also write the score to this file")
    parser.add_argument("--wrong", type=Path, help="write the wrong replies to this file")
    args = parser.parse_args()
    judged = judge(args.model, held_out_questions(args.per_category), args.device, args.batch)
    result = score(judged)
    if args.wrong:
        args.wrong.write_text("".join(one.as_line() for one in judged if not one.right))
    if args.save:
        args.save.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
