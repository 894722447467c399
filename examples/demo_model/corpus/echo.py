"""Saying something back, once or a few times. The text is what is held out."""

from random import Random

from .checks import Contains
from .exchange import TRIES, Exchange
from .grammar import pick
from .lexicon import in_words, plain_words, pseudo_word, tables
from .phrases import phrase, typed_for_training, ways
from .split import are_operands_held_out


def _saying(rng: Random) -> str:
    roll = rng.random()
    if roll < 0.3:
        return " ".join(pick(rng, plain_words()) for _ in range(rng.randint(1, 5)))
    if roll < 0.45:
        return " ".join(pseudo_word(rng) for _ in range(rng.randint(1, 3)))
    slots = {"n": str(rng.randint(2, 99)), "pseudo_name": pick(rng, tables()["name"])}
    return phrase(rng, ways("echo.sayings"), **slots)


def say(rng: Random, held_out: bool) -> Exchange | None:
    """Say something back."""
    for _ in range(TRIES):
        text = _saying(rng)
        if are_operands_held_out("say", text) != held_out:
            continue
        times = rng.randint(2, 5) if rng.random() < 0.3 else 1
        if times > 1:
            count = str(times) if rng.random() < 0.5 else in_words(times)
            question = phrase(rng, ways("echo.say_times"), s=text, k=count)
        else:
            question = phrase(rng, ways("echo.say"), s=text)
        answer = " ".join([text] * times)
        return Exchange(
            typed_for_training(question, rng, keep=text.split(), keep_case=True), answer, Contains(answer)
        )
    return None
