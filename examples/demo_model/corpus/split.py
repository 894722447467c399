"""Which questions are kept away from training, so that the score is about questions never seen.

Two rules, both a hash, so that every process agrees without sharing a list:

* a *wording*: the question before typing noise, in lower case and without punctuation. About 1 in 24 is held
  out, in all of its spellings. Wordings of one or two words ("hi", "bye now") and the documented first
  messages are never held out.
* the *operands* of a task with an exact answer (the pair to add, the list to sort, the word to spell): about
  1 in 12 is held out, whatever the wording.

Beside these there is a list of questions written by hand, in other words than any pattern
(`data/unseen.toml`). This module knows nothing about how questions are made.
"""

import re
import tomllib
from functools import cache
from pathlib import Path
from zlib import crc32

WORDING_RATE = 24
OPERAND_RATE = 12
DATA = Path(__file__).parent / "data"

FIRST_MESSAGES = (
    "hi",
    "Hello!",
    "What is Corolla?",
    "how do i join",
    "How can I share my GPU?",
    "tell me a story",
    "Tell me a short story about a cat",
    "what is 7 + 5?",
    "Count to ten",
    "sort 5 2 9 1",
    "spell banana",
    "who made you?",
    "what can you do?",
    "write a python function",
    "What is the capital of France?",
    "Are you ChatGPT?",
    "what's the weather?",
    "Who are you?",
    "Tell me a joke",
    "What is a relay?",
)
"""What the documentation suggests to type first: trained on freely, and never part of the score."""

_NOISE = re.compile(r"[^\w+\-*/<>=%]+")


def normalised(text: str) -> str:
    """`text` in lower case with punctuation and repeated spaces gone: the form in which questions are
    compared.
    """
    return _NOISE.sub(" ", text.lower().replace("'", "").replace("\u2019", "")).strip()


_FIRST = frozenset(normalised(text) for text in FIRST_MESSAGES)


@cache
def _unseen() -> frozenset[str]:
    """The hand-written questions, normalised. Never used for training."""
    with (DATA / "unseen.toml").open("rb") as file:
        data = tomllib.load(file)
    texts = [text for group in data["intents"].values() for text in group]
    texts += [text for entry in data["exact"] for text in entry["ask"]]
    return frozenset(normalised(text) for text in texts) - _FIRST


def is_unseen(text: str) -> bool:
    """Whether `text` is one of the hand-written test questions."""
    return normalised(text) in _unseen()


def is_wording_held_out(wording: str) -> bool:
    """Whether a question with this wording is only for the score."""
    plain = normalised(wording)
    if plain.count(" ") < 2 or plain in _FIRST:
        return False
    return crc32(plain.encode()) % WORDING_RATE == 0


def are_operands_held_out(kind: str, *operands: object) -> bool:
    """Whether a task of this kind with these operands is only for the score."""
    key = f"{kind}:{'|'.join(str(operand).lower() for operand in operands)}"
    return crc32(key.encode()) % OPERAND_RATE == 0
