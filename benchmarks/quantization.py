"""What fewer bits cost in quality.

    python -m benchmarks.quantization [--full]

The demonstration model answers held-out questions, in blocks as a volunteer holds them: in fp32, bf16, int8
and nf4, with the head in bf16 beside bf16 and in fp32 otherwise. Measured on the tokens of the fitting
answers alone, each given all that is before it: perplexity, how far the logits are from those in fp32, and
how often the likeliest token is the same.
"""

import argparse
import math
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from typing import Any, Self

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from benchmarks.report import Report
from corolla.models.head import HeadModel
from corolla.models.loading import LoadOptions
from corolla.models.source import ModelSource
from corolla.models.span import SpanModel
from examples.demo_model.corpus.held_out import Question, held_out_questions
from examples.demo_model.evaluate import SHIPPED
from examples.demo_model.tokenizer import load_tokenizer

BATCH = 16
WITHOUT_ANSWER = "unseen wording"
"""The category whose questions are judged by phrases, and have no answer written out."""
FORMS = {
    "fp32": LoadOptions(),
    "bf16": LoadOptions(dtype=torch.bfloat16),
    "int8": LoadOptions(quantization="int8"),
    "nf4": LoadOptions(quantization="nf4"),
}
"""The first is what the others are compared with."""


@dataclass(frozen=True, slots=True)
class Text:
    """A chat's tokens, of which those from `answer` on are the assistant's last words."""

    ids: tuple[int, ...]
    answer: int


@dataclass(frozen=True, slots=True)
class Cost:
    """What one form makes of the text."""

    megabytes: float
    """Of the blocks' weights."""
    quantized_share: float
    perplexity: float
    logit_error: float
    """Root mean square of the difference to the reference's logits, relative to theirs."""
    same_top: float
    """Share of the positions at which the likeliest token is the reference's."""


class Model:
    """The whole model as a volunteer would hold it."""

    def __init__(self, source: ModelSource, options: LoadOptions) -> None:
        self._head = HeadModel.load(source, options)
        self._blocks = SpanModel.load(source, 0, source.block_count, options)
        self.weights = self._blocks.weights

    def logits(self, ids: Tensor, wanted: Tensor) -> Tensor:
        """In fp32, [positions, vocabulary], where `wanted` is true.

        `ids`: [batch, tokens], padded at the end, which a causal model does not see.
        """
        with torch.inference_mode():
            hidden = self._blocks.forward(self._head.embed(ids))
            return self._head.logits(hidden[wanted].unsqueeze(0)).squeeze(0).float()


@dataclass(slots=True)
class Sums:
    """Adds up what `Cost` is made of."""

    loss: float = 0.0
    squares: float = 0.0
    difference: float = 0.0
    same: int = 0
    tokens: int = 0

    def add(self, logits: Tensor, reference: Tensor, targets: Tensor) -> Self:
        """Logits are [positions, vocabulary], targets [positions]."""
        self.loss += float(cross_entropy(logits, targets, reduction="sum"))
        self.squares += float(reference.double().square().sum())
        self.difference += float((logits - reference).double().square().sum())
        self.same += int((logits.argmax(-1) == reference.argmax(-1)).sum())
        self.tokens += targets.numel()
        return self


def text_of(question: Question, tokenizer: Any) -> Text:
    asked = list(question.messages)
    answered = [*asked, {"role": "assistant", "content": question.fitting}]
    before = tokenizer.apply_chat_template(asked, add_generation_prompt=True, return_dict=False)
    return Text(tuple(tokenizer.apply_chat_template(answered, return_dict=False)), len(before))


def batches(texts: Sequence[Text]) -> Iterator[tuple[Tensor, Tensor]]:
    """Token ids [batch, tokens], and which of them are the answers'; texts of about a length together."""
    ordered = sorted(texts, key=lambda text: len(text.ids))
    for at in range(0, len(ordered), BATCH):
        part = ordered[at : at + BATCH]
        ids = torch.zeros(len(part), len(part[-1].ids), dtype=torch.long)
        is_answer = torch.zeros_like(ids, dtype=torch.bool)
        for row, text in enumerate(part):
            ids[row, : len(text.ids)] = torch.tensor(text.ids)
            is_answer[row, text.answer : len(text.ids)] = True
        yield ids, is_answer


def measure(source: ModelSource, texts: Sequence[Text]) -> tuple[dict[str, Cost], int]:
    """The cost of every form, and how many tokens it was measured on."""
    models = {name: Model(source, options) for name, options in FORMS.items()}
    sums = {name: Sums() for name in FORMS}
    for ids, is_answer in batches(texts):
        # The logits at a position are of the token after it.
        found = {name: model.logits(ids[:, :-1], is_answer[:, 1:]) for name, model in models.items()}
        targets = ids[is_answer]
        reference = next(iter(found.values()))
        for name, logits in found.items():
            sums[name].add(logits, reference, targets)
    costs = {name: cost_of(model, sums[name]) for name, model in models.items()}
    return costs, next(iter(sums.values())).tokens


def cost_of(model: Model, sums: Sums) -> Cost:
    return Cost(
        megabytes=round(model.weights.nbytes / 1e6, 2),
        quantized_share=round(model.weights.quantized_share, 4),
        perplexity=round(math.exp(sums.loss / sums.tokens), 5),
        logit_error=round(math.sqrt(sums.difference / sums.squares), 6),
        same_top=round(sums.same / sums.tokens, 5),
    )


def main() -> int:
    parser = argparse.ArgumentParser(description="What int8 and nf4 cost in quality.")
    parser.add_argument("--full", action="store_true", help="four times as many questions")
    full = parser.parse_args().full
    torch.set_num_threads(1)
    tokenizer = load_tokenizer(SHIPPED)
    questions = held_out_questions(per_category=40 if full else 10)
    texts = [text_of(one, tokenizer) for one in questions if one.category != WITHOUT_ANSWER]
    costs, tokens = measure(ModelSource.open(str(SHIPPED)), texts)
    print(f"{len(texts)} answers, {tokens} tokens")
    print(
        f"{'blocks':>10} {'MB':>7} {'quantized':>10} {'perplexity':>11} {'logit error':>12} {'same top':>9}"
    )
    for name, cost in costs.items():
        print(
            f"{name:>10} {cost.megabytes:7.2f} {cost.quantized_share:10.1%} {cost.perplexity:11.4f} "
            f"{cost.logit_error:12.5f} {cost.same_top:9.2%}"
        )
    report = Report("quantization", full)
    report.figures = {
        "answers": len(texts),
        "tokens": tokens,
        "bitsandbytes": version("bitsandbytes"),
        **{name: asdict(cost) for name, cost in costs.items()},
    }
    report.print_last_line()
    return 0


if __name__ == "__main__":
    sys.exit(main())
