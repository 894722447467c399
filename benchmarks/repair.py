"""How long a reply waits when a volunteer dies under it: with what its hops have kept, and without.

    python -m benchmarks.repair [--full] [--context TOKENS] [--milliseconds N]

A random Llama of 83 million parameters in fp32 over three volunteers of one thread each, and a spare for the
middle one, behind one relay; round trips between volunteers and relay take so many milliseconds. There are
two such swarms at once: the volunteers of one keep what they send on, those of the other nothing, so that
theirs is computed anew from the tokens. Rounds alternate. In each a reply is under way, of a prompt of so
many tokens, and its middle volunteer is killed without a word. The pause is the longest time between two
tokens from then on; the reply must be what it is undisturbed.
"""

import argparse
import sys
import tempfile
import threading
import time
from contextlib import ExitStack
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import torch

from benchmarks.completion import TimedReply, complete
from benchmarks.delay import delayed
from benchmarks.models import SEED, SMALL, make_llama
from benchmarks.processes import NOTHING_KEPT, START_SECONDS, RelayProcess, Volunteer, relay, volunteer
from benchmarks.report import Bar, Report, Spread

SHAPE = replace(SMALL, context=4096)
SPANS = {"first": "0:5", "middle": "5:11", "spare": "5:11", "last": "11:16"}
VICTIMS = ("middle", "spare")
SWARMS = {"kept": (), "anew": ("--repair-memory", "0")}
"""What they do with what they send on, and how they are told."""
REPLY_TOKENS = 48
KILLED_AFTER = 8
"""Tokens."""


class Swarm:
    """The volunteers of one model."""

    def __init__(self, server: RelayProcess, url: str, model: str, folder: Path, stack: ExitStack) -> None:
        """`url`: where they dial the relay."""
        self.model = model
        self._server = server
        self._stack = stack
        self._arguments = ("--relay", url, "--model", f"{model}={folder}", "--kernels", "library")
        self._arguments += (*NOTHING_KEPT, *SWARMS[model])
        self._running: dict[str, Volunteer] = {}
        self._token = server.token("client", f"reader of {model}")
        for role in SPANS:
            self._plant(role)
            if role == "first":
                self._wait([role])  # which gets the head

    def _name(self, role: str) -> str:
        return f"{role} {self.model}"

    def _plant(self, role: str) -> None:
        started = volunteer(self._server, self._name(role), "--blocks", SPANS[role], *self._arguments)
        self._running[role] = self._stack.enter_context(started)

    def _wait(self, roles: list[str]) -> None:
        names = [self._name(role) for role in roles]
        self._server.wait_until_serving(names, [self._running[role] for role in roles], START_SECONDS)

    def mend(self) -> None:
        """Return when everybody serves."""
        for role in VICTIMS:
            if self._running[role].process.poll() is not None:
                self._plant(role)
        self._wait(list(SPANS))

    def ask(self, prompt: list[int], noted: list[float] | None = None) -> TimedReply:
        return complete(self._server.url, self._token, self.model, prompt, REPLY_TOKENS, noted=noted)

    def kill_used(self) -> None:
        """The middle volunteer that serves the reply, as soon as it is known to serve one."""
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            sessions = {one.name: one.sessions for one in self._server.swarm().volunteers}
            used = [role for role in VICTIMS if sessions.get(self._name(role))]
            if used:
                self._running[used[0]].process.kill()
                return
            time.sleep(0.02)
        raise RuntimeError("no volunteer serves the reply")


def pause(swarm: Swarm, prompt: list[int]) -> float:
    """The longest wait for a token of a reply from the death of its middle volunteer on. Seconds."""
    undisturbed = swarm.ask(prompt)
    noted: list[float] = []
    replies: list[TimedReply] = []
    reading = threading.Thread(target=lambda: replies.append(swarm.ask(prompt, noted)))
    reading.start()
    while len(noted) < KILLED_AFTER and reading.is_alive():
        time.sleep(0.01)
    swarm.kill_used()
    killed = time.perf_counter()
    reading.join()
    if not replies or replies[0].text != undisturbed.text:
        raise RuntimeError(f"the reply is {replies and replies[0].text!r}, not {undisturbed.text!r}")
    arrivals = replies[0].arrivals
    if not arrivals[0] < killed < arrivals[-1]:
        raise RuntimeError("the volunteer was not killed in the midst of the reply")
    return max(later - earlier for earlier, later in pairwise(arrivals) if later > killed)


def main() -> int:
    parser = argparse.ArgumentParser(description="How long a reply waits when a volunteer dies under it.")
    parser.add_argument("--full", action="store_true", help="more rounds")
    parser.add_argument("--context", type=int, default=1024, help="tokens of the prompt (1024)")
    parser.add_argument("--milliseconds", type=int, default=50, help="of a round trip to the relay (50)")
    options = parser.parse_args()
    rounds = 9 if options.full else 3
    report = Report("repair", options.full)
    generator = torch.Generator().manual_seed(SEED)
    found: dict[str, list[float]] = {name: [] for name in SWARMS}
    with ExitStack() as stack:
        folder = make_llama(Path(stack.enter_context(tempfile.TemporaryDirectory())), SHAPE)
        server = stack.enter_context(relay(",".join(SWARMS), LOG_LEVEL="WARNING", HEARTBEAT_SECONDS="0.5"))
        link = stack.enter_context(delayed(server.url))
        swarms = [Swarm(server, link.url, name, folder, stack) for name in SWARMS]
        link.seconds = options.milliseconds / 2000
        for number in range(rounds):
            prompt = torch.randint(SHAPE.vocabulary, (options.context,), generator=generator).tolist()
            for swarm in swarms:
                swarm.mend()
                found[swarm.model].append(waited := pause(swarm, prompt))
                print(f"round {number}: {waited:6.2f} s, {swarm.model}", flush=True)
    spreads = {name: Spread.of(values) for name, values in found.items()}
    what = f"seconds of pause, {options.context} tokens, {options.milliseconds} ms"
    report.figures[what] = spreads
    share = spreads["kept"].median / spreads["anew"].median
    report.bars.append(Bar("pause with what hops have kept / without", round(share, 3), "<=", 1.0))
    report.print_last_line()
    return 0


if __name__ == "__main__":
    sys.exit(main())
