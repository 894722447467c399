"""Replies through a swarm whose volunteers are killed: all come to their end, and how long readers wait.

    python -m benchmarks.chaos [--rounds N] [--seed N] [--full]

A random tiny Llama, each of its three spans on three volunteers; those of the first blocks write replies.
In a round several replies are under way, of prompts of several lengths, and somewhere in their time a
volunteer that they use is killed, without a word. All must say what they say undisturbed, token for token.
Another volunteer takes its place while the next rounds run; nobody is killed before its span has a spare.
A round's pause is the longest time that one of its readers waits for a token.

There is one greedy reply only where the model decides: where its two likeliest tokens are nearer to each
other than fp32 can tell, the order of a sum does, and a repaired reply may say the other one. It happens once
in some hundred thousand tokens, so prompts with such a reply are drawn anew.

Rounds are drawn from the seed, and `--first` repeats them from a certain one on; who is in use at that time
is the swarm's choice.
"""

import argparse
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import quantiles
from typing import Any

import torch
from transformers import AutoModelForCausalLM

from benchmarks.completion import TimedReply, complete
from benchmarks.models import SEED, TINY, make_llama
from benchmarks.processes import START_SECONDS, RelayProcess, Volunteer, relay, volunteer
from benchmarks.report import Bar, Report, Spread

MODEL = "tiny-llama"
SPANS = ("0:4", "4:8", "8:12")
EACH = 3
"""Volunteers of a span: one, a spare, and one more that may still be starting."""
LEAST = 2
"""That serve when a round begins which kills one of them."""
PROMPTS = (8, 64, 512)
REPLY_TOKENS = 400
AT_ONCE = 3
LEAST_MARGIN = 3e-6
"""Of logits about 0.5 large: some times more than they differ by when sums are made in another order."""
MOST_DRAWS = 8
HALF_BAR, MOST_BAR = 2.0, 5.0
"""Seconds of the median pause, and of the 95th percentile."""


@dataclass(frozen=True, slots=True)
class Round:
    """What happens in it."""

    prompts: tuple[tuple[int, ...], ...]
    span: str
    """Whose volunteer is killed."""
    at: float
    """When, as a share of the time that a reply takes undisturbed."""


def draw(seed: int, number: int, attempt: int = 0) -> Round:
    chosen = random.Random(f"{seed} {number} {attempt}" if attempt else f"{seed} {number}")
    prompts = tuple(
        tuple(chosen.randrange(TINY.vocabulary) for _ in range(chosen.choice(PROMPTS)))
        for _ in range(AT_ONCE)
    )
    return Round(prompts, chosen.choice(SPANS), chosen.uniform(0.0, 0.9))


def name_of(span: str, number: int) -> str:
    return f"{span.replace(':', '-')}-{number}"


NAMES = {name_of(span, number): span for span in SPANS for number in range(EACH)}


class Swarm:
    """The relay and the volunteers, of which any may be killed."""

    def __init__(self, server: RelayProcess, folder: Path, stack: ExitStack) -> None:
        self._server = server
        self._folder = folder
        self._stack = stack
        self._token = server.token("client", "benchmark")
        self._threads = stack.enter_context(ThreadPoolExecutor(AT_ONCE))
        self._running: dict[str, Volunteer] = {}
        for name in NAMES:
            self.plant(name)
        self.wait(dict.fromkeys(SPANS, EACH))

    def plant(self, name: str) -> None:
        """Start a volunteer. It serves some seconds later."""
        arguments = ("--model", f"{MODEL}={self._folder}", "--blocks", NAMES[name], "--kernels", "library")
        started = volunteer(self._server, name, *arguments)
        self._running[name] = self._stack.enter_context(started)

    def kill(self, span: str) -> str:
        """Who was killed: a volunteer of that span that serves a session, as far as is known."""
        sessions = {
            one.name: one.sessions
            for one in self._server.swarm().volunteers
            if NAMES[one.name] == span and one.state == "serving"
        }
        name = max(sessions, key=lambda name: sessions[name])
        self._running[name].process.kill()
        self._running[name].process.wait()
        return name

    def replant(self) -> None:
        """Start somebody in the place of whoever does not live any more."""
        for name, one in list(self._running.items()):
            if one.process.poll() is not None:
                self.plant(name)

    def wait(self, least: Mapping[str, int]) -> None:
        """Return when so many serve of each span."""
        deadline = time.monotonic() + START_SECONDS
        while True:
            serving = Counter(
                NAMES[one.name] for one in self._server.swarm().volunteers if one.state == "serving"
            )
            if all(serving[span] >= count for span, count in least.items()):
                return
            if time.monotonic() > deadline:
                raise RuntimeError(f"only so many serve: {dict(serving)}")
            time.sleep(0.05)

    def ask(self, prompts: Sequence[Sequence[int]]) -> "list[Future[TimedReply]]":
        """Replies at the same time."""
        return [
            self._threads.submit(complete, self._server.url, self._token, MODEL, list(prompt), REPLY_TOKENS)
            for prompt in prompts
        ]


def pause(reply: TimedReply) -> float:
    """The longest time without a token. Seconds."""
    between = (later - earlier for earlier, later in zip(reply.arrivals, reply.arrivals[1:], strict=False))
    return max(reply.first_token, *between)


class Judge:
    """The whole model, in double precision."""

    def __init__(self, folder: Path) -> None:
        self._model: Any = AutoModelForCausalLM.from_pretrained(folder).double().eval()

    def margin(self, prompt: Sequence[int], reply: str) -> float:
        """How much likelier the likeliest token is than the next, where it is least along a greedy reply."""
        tokens = torch.tensor([[*prompt, *map(int, reply.split())]])
        with torch.inference_mode():
            logits = self._model(tokens).logits[0, len(prompt) - 1 : -1]
        best = logits.topk(2).values
        return (best[:, 0] - best[:, 1]).min().item()


def plan(swarm: Swarm, judge: Judge, seed: int, number: int) -> tuple[Round, list[TimedReply]]:
    """A round whose replies the model decides, and what they are undisturbed."""
    for attempt in range(MOST_DRAWS):
        planned = draw(seed, number, attempt)
        replies = [reply.result() for reply in swarm.ask(planned.prompts)]
        margins = [
            judge.margin(prompt, reply.text) for prompt, reply in zip(planned.prompts, replies, strict=True)
        ]
        if min(margins) >= LEAST_MARGIN:
            return planned, replies
        print(f"round {number:>3}: a reply turns on {min(margins):.1e}, prompts are drawn anew", flush=True)
    raise RuntimeError("no prompts were found whose replies the model decides")


def play(swarm: Swarm, planned: Round, undisturbed: Sequence[TimedReply]) -> tuple[str, float]:
    """Who was killed, and the round's pause. Raises RuntimeError for a reply that is not as it should be."""
    seconds = min(reply.first_token + reply.step * REPLY_TOKENS for reply in undisturbed)
    swarm.wait(dict.fromkeys(SPANS, 1) | {planned.span: LEAST})
    disturbed = swarm.ask(planned.prompts)
    time.sleep(planned.at * seconds)
    killed = swarm.kill(planned.span)
    replies = [reply.result() for reply in disturbed]
    for reply, expected in zip(replies, undisturbed, strict=True):
        if reply.text != expected.text:
            raise RuntimeError(f"a reply is {reply.text!r}, not {expected.text!r}")
    return killed, max(map(pause, replies))


def main() -> int:
    parser = argparse.ArgumentParser(description="Replies that outlive their volunteers.")
    parser.add_argument("--full", action="store_true", help="100 rounds")
    parser.add_argument("--rounds", type=int, help="how many (default: 5, with --full 100)")
    parser.add_argument("--first", type=int, default=0, help="number of the first round")
    parser.add_argument("--seed", type=int, default=SEED)
    options = parser.parse_args()
    rounds: int = options.rounds or (100 if options.full else 5)
    report = Report("chaos", options.full)
    pauses: list[float] = []
    with ExitStack() as stack:
        folder = make_llama(Path(stack.enter_context(tempfile.TemporaryDirectory())), TINY)
        server = stack.enter_context(relay(MODEL, LOG_LEVEL="WARNING", HEARTBEAT_SECONDS="0.5"))
        swarm, judge = Swarm(server, folder, stack), Judge(folder)
        for number in range(options.first, options.first + rounds):
            planned, undisturbed = plan(swarm, judge, options.seed, number)
            what = f"round {number:>3}, blocks {planned.span:>4} at {planned.at:4.0%}"
            try:
                killed, waited = play(swarm, planned, undisturbed)
            except (RuntimeError, OSError) as error:
                print(f"{what}: {error}", flush=True)
            else:
                pauses.append(waited)
                print(f"{what}: {killed} was killed, a pause of {waited:.2f} s", flush=True)
            swarm.replant()
    if len(pauses) < 2:
        sys.exit(f"{len(pauses)} of {rounds} rounds were completed: too few to tell how long pauses are")
    report.figures["pauses, seconds"] = {"of each round": Spread.of(pauses)}
    percentiles = quantiles(pauses, n=20, method="inclusive")
    report.bars += [
        Bar("rounds whose replies are complete and right, of all", len(pauses) / rounds, ">=", 1.0),
        Bar("median pause, seconds", round(percentiles[9], 2), "<=", HALF_BAR),
        Bar("95th percentile of pauses, seconds", round(percentiles[18], 2), "<=", MOST_BAR),
    ]
    report.print_last_line()
    return 0


if __name__ == "__main__":
    sys.exit(main())
