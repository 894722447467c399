"""Turns the endless text into training rows: token ids, which are learnt, and where each document ends.

A row holds several documents; attention does not cross from one to another. In a chat only the assistant's
words are learnt, in plain text all of them. A chunk of rows depends on the seed and its number alone, so any
process can make it.
"""

from dataclasses import dataclass
from pathlib import Path
from random import Random

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from .corpus import converse, plain_text
from .tokenizer import BEGIN, CONTEXT, END, PAD

PLAIN_SHARE = 0.08
IGNORED = -100
"""The label of a position that is not learnt, as PyTorch's cross-entropy knows it."""


@dataclass(frozen=True)
class Rows:
    """Training rows. Each array is int16, [rows, CONTEXT].

    `labels` has the next token or IGNORED; `documents` numbers the documents of a row, from 1 (0 is padding).
    """

    tokens: NDArray[np.int16]
    labels: NDArray[np.int16]
    documents: NDArray[np.int16]


class Packer:
    """Makes chunks of rows. One per process; holds the tokenizer."""

    def __init__(self, tokenizer_folder: Path, seed: str, rows: int) -> None:
        self._tokenizer = Tokenizer.from_file(str(tokenizer_folder / "tokenizer.json"))
        self._seed = seed
        self._rows = rows
        self._begin, self._end, self._pad = (self._id(token) for token in (BEGIN, END, PAD))

    def _id(self, token: str) -> int:
        found = self._tokenizer.token_to_id(token)
        if found is None:
            raise ValueError(f"the tokenizer has no token {token}")
        return found

    def chunk(self, number: int) -> Rows:
        """The rows of chunk `number`."""
        rng = Random(f"{self._seed} chunk {number}")
        documents = self._documents(rng, self._rows * CONTEXT)
        tokens = np.full((self._rows, CONTEXT), self._pad, np.int16)
        labels = np.full((self._rows, CONTEXT), IGNORED, np.int16)
        which = np.zeros((self._rows, CONTEXT), np.int16)
        filled = [0] * self._rows
        count = [0] * self._rows
        for ids, learnt in sorted(documents, key=lambda document: -len(document[0])):
            row = next((r for r in range(self._rows) if filled[r] + len(ids) <= CONTEXT), None)
            if row is None:
                continue
            start, stop = filled[row], filled[row] + len(ids)
            count[row] += 1
            tokens[row, start:stop] = ids
            which[row, start:stop] = count[row]
            labels[row, start : stop - 1] = np.where(learnt[1:], ids[1:], IGNORED)
            filled[row] = stop
        return Rows(tokens, labels, which)

    def _documents(self, rng: Random, size: int) -> list[tuple[NDArray[np.int16], NDArray[np.bool_]]]:
        """Documents of about `size` tokens together, each with the mask of what is learnt."""
        found: list[tuple[NDArray[np.int16], NDArray[np.bool_]]] = []
        while size > 0:
            ids, learnt = self._plain(rng) if rng.random() < PLAIN_SHARE else self._chat(rng)
            found.append((np.array(ids[:CONTEXT], np.int16), np.array(learnt[:CONTEXT], np.bool_)))
            size -= len(found[-1][0])
        return found

    def _plain(self, rng: Random) -> tuple[list[int], list[bool]]:
        ids = [self._begin, *self._tokenizer.encode(plain_text(rng), add_special_tokens=False).ids, self._end]
        return ids, [True] * len(ids)

    def _chat(self, rng: Random) -> tuple[list[int], list[bool]]:
        messages = converse(rng).messages()
        encoded = self._tokenizer.encode_batch_fast(
            [m["content"].strip() for m in messages], add_special_tokens=False
        )
        begins = 2 if rng.random() < 0.03 else 1  # some programs add a second one to a rendered chat
        ids, learnt = [self._begin] * begins, [False] * begins
        for message, encoding in zip(messages, encoded, strict=True):
            part = [self._id(f"<|{message['role']}|>"), *encoding.ids, self._end]
            ids += part
            learnt += [False, *[message["role"] == "assistant"] * (len(part) - 1)]
        return ids, learnt
