"""How people type: capitals, missing punctuation, typos, polite openings, words left out.

Works on any question, knows no topic.
"""

from collections.abc import Collection
from random import Random

from .grammar import capital, pick
from .lexicon import load

LETTERS = "abcdefghijklmnopqrstuvwxyz"


def typed(
    text: str, rng: Random, *, keep: Collection[str] = (), keep_case: bool = False, loose: bool = False
) -> str:
    """`text` as one of many people would type it.

    `keep` are words that must not change (operands, names). With `keep_case` capitals stay as they are and no
    word comes or goes. `loose` questions keep their meaning when words are left out or said otherwise.
    """
    roll = rng.random()
    if roll < 0.1:
        text = _dressed(text, rng)
    elif roll < 0.18:
        text = _with_typo(text, rng, keep)
    elif roll < 0.28 and not keep_case:
        text = _with_filler(text, rng) if roll < 0.22 else _shortened(text, rng, keep)
    if loose:
        text = _loosened(text, rng)
    if keep_case:
        return capital(text) if rng.random() < 0.5 else text
    return _styled(text, rng)


def _styled(text: str, rng: Random) -> str:
    roll = rng.random()
    if roll < 0.42:
        text = capital(text)
        return text + "." if text[-1:].isalnum() and rng.random() < 0.4 else text
    if roll < 0.52:
        return capital(text.rstrip("?.!"))
    if roll < 0.72:
        text = text.lower().rstrip("?.!")
        return text.replace("'", "") if rng.random() < 0.4 else text
    if roll < 0.86:
        return text.lower()
    if roll < 0.96:
        return text
    if roll < 0.98:
        return text.upper()
    return capital(text.rstrip("?.!")) + pick(rng, ("??", "!!", "...", " ?", " !", "?!"))


def _dressed(text: str, rng: Random) -> str:
    if rng.random() < 0.55:
        return pick(rng, load("typing")["openings"]) + text
    mark = text[-1] if text[-1:] in ("?", "!", ".") else ""
    return text.rstrip("?!.") + pick(rng, load("typing")["closings"]) + mark


def _with_filler(text: str, rng: Random) -> str:
    words = text.split(" ")
    if len(words) < 3:
        return text
    words.insert(1 + int(rng.random() * (len(words) - 1)), pick(rng, load("typing")["fillers"]))
    return " ".join(words)


def _shortened(text: str, rng: Random, keep: Collection[str]) -> str:
    """Without one of the small words."""
    words = text.split(" ")
    left_out: list[str] = load("typing")["left_out"]
    places = [i for i, word in enumerate(words) if word in left_out and word not in keep]
    if len(words) < 4 or not places:
        return text
    del words[pick(rng, places)]
    return " ".join(words)


def _loosened(text: str, rng: Random) -> str:
    """Sometimes with another word for one of its words, and rarely in keywords only."""
    roll = rng.random()
    words = text.split(" ")
    if roll < 0.12:
        synonyms: dict[str, list[str]] = load("typing")["synonyms"]
        places = [i for i, word in enumerate(words) if word.lower() in synonyms]
        if places:
            at = pick(rng, places)
            words[at] = pick(rng, synonyms[words[at].lower()])
    elif roll < 0.15 and len(words) > 4:
        kept = [word for word in words if word.lower() not in load("typing")["left_out"]]
        words = kept if len(kept) > 2 else words
    return " ".join(words)


def _with_typo(text: str, rng: Random, keep: Collection[str]) -> str:
    words = text.split(" ")
    places = [i for i, word in enumerate(words) if len(word) > 3 and word.isalpha() and word not in keep]
    if not places:
        return text
    at = pick(rng, places)
    words[at] = _misspelt(words[at], rng)
    return " ".join(words)


def _misspelt(word: str, rng: Random) -> str:
    at = 1 + int(rng.random() * (len(word) - 2))
    roll = rng.random()
    if roll < 0.35:
        return word[:at] + word[at + 1] + word[at] + word[at + 2 :]
    if roll < 0.65:
        return word[:at] + word[at + 1 :]
    if roll < 0.85:
        return word[:at] + word[at] + word[at:]
    return word[:at] + pick(rng, LETTERS) + word[at + 1 :]
