"""A swarm over a wide-area network: steps a second and the time to the first token.

    sudo .venv/bin/python -m benchmarks.wan [--full] [--congestion NAME]

Relay, client and every volunteer are nodes of an emulated network (benchmarks/namespaces.py), each 50 and
then 100 ms of round trip from every other, at 100 Mbit/s each way. Over it goes real TCP with the kernel's
own settings, unless a congestion control is named. A random Llama of 83 million parameters in fp32, one
thread a process, a prompt of 512 tokens, another one in every round. All times are the client's; the first
token's includes opening its connection. The first round is told apart, not counted: the volunteers'
connections are new then, and TCP is slow over new ones. Does not know how frames travel.
"""

import argparse
import contextlib
import signal
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from benchmarks.completion import TimedReply, complete
from benchmarks.link import Conditions
from benchmarks.linkcheck import LinkOff, check, require_punctual
from benchmarks.models import SMALL, make_llama, prompt_ids
from benchmarks.namespaces import (
    CONGESTION_CONTROL,
    NetworkUnavailable,
    Node,
    Nodes,
    emulated,
    entered,
    require_network,
)
from benchmarks.processes import RelayProcess, Volunteer, relay, volunteer
from benchmarks.report import Bar, Report, Spread
from benchmarks.swarm import even_spans

MODEL = "small-llama"
PROMPT_TOKENS = 512
COUNTS = (1, 2, 3)
RELAY, CLIENT = "relay", "client"
PORT = 8000
RATE = 100e6 / 8
QUEUE_BYTES = 2 << 20
"""Somewhat more than is under way at 100 ms and 100 Mbit/s."""


@dataclass(frozen=True, slots=True)
class Peer:
    """What Petals 2.2.0.post1 reached with three servers under the same conditions (2026-11-23)."""

    steps: float
    first_token: float


PETALS = {50: Peer(4.14, 3.38), 100: Peer(2.60, 4.60)}
"""By milliseconds of round trip."""
FIRST_TOKEN_SHARE = 0.6
"""Of the time that Petals takes."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What to measure, how, and for how long."""

    folder: Path
    congestion: str
    """TCP's congestion control; empty: the kernel's own choice."""
    rounds: int
    tokens: int


@dataclass(frozen=True, slots=True)
class Found:
    """What a swarm was found to do."""

    texts: list[str]
    steps: Spread
    """A second."""
    first_token: Spread
    """Seconds, as the rest."""
    first_token_at_first: float
    """Over new connections."""

    @classmethod
    def of(cls, replies: list[TimedReply]) -> "Found":
        """The first reply is not counted."""
        first, *counted = replies
        return cls(
            [reply.text for reply in replies],
            Spread.of([1 / reply.step for reply in counted]),
            Spread.of([reply.first_token for reply in counted]),
            first.first_token,
        )

    def figures(self) -> dict[str, Any]:
        return {
            "steps a second": self.steps,
            "seconds to the first token": self.first_token,
            "seconds to the first token over new connections": self.first_token_at_first,
        }

    def __str__(self) -> str:
        steps, first = self.steps, self.first_token
        return (
            f"{steps.median:8.2f} ({steps.low:.2f}-{steps.high:.2f})"
            f" {first.median:8.2f} s ({first.low:.2f}-{first.high:.2f}) {self.first_token_at_first:8.2f} s"
        )


@contextlib.contextmanager
def relay_on(node: Node) -> Iterator[RelayProcess]:
    """A relay on its node."""
    url = f"http://{node.address}:{PORT}"
    with relay(
        MODEL, within=node.command, HOST=node.address, PORT=str(PORT), PUBLIC_URL=url, LOG_LEVEL="WARNING"
    ) as server:
        yield server


@contextlib.contextmanager
def volunteers_on(nodes: Nodes, server: RelayProcess, folder: Path, count: int) -> Iterator[None]:
    """Volunteers on nodes of their own, all serving."""
    spans = even_spans(SMALL.blocks, count)
    model = f"{MODEL}={folder}"
    with contextlib.ExitStack() as stack:
        running: list[Volunteer] = []
        for name, span in spans.items():
            arguments = ("--blocks", span, "--model", model)
            one = volunteer(server, name, *arguments, within=nodes[name].command)
            running.append(stack.enter_context(one))
        server.wait_until_serving(spans.keys(), running)
        yield


def replies(server: RelayProcess, token: str, plan: Plan) -> list[TimedReply]:
    """A reply of each round, the first one's first."""
    prompt = prompt_ids(PROMPT_TOKENS, SMALL.vocabulary)
    found: list[TimedReply] = []
    for turn in range(plan.rounds + 1):
        fresh = [(identity + turn) % SMALL.vocabulary for identity in prompt]
        reply = complete(server.url, token, MODEL, fresh, plan.tokens)
        if reply.tokens != plan.tokens:
            raise RuntimeError(f"{reply.tokens} of {plan.tokens} tokens came")
        found.append(reply)
    return found


def measure(nodes: Nodes, milliseconds: int, plan: Plan) -> dict[int, Found]:
    """What swarms of every size do on one network."""
    found: dict[int, Found] = {}
    with relay_on(nodes[RELAY]) as server:
        token = server.token("client", "benchmark")
        for count in COUNTS:
            with volunteers_on(nodes, server, plan.folder, count):
                found[count] = Found.of(replies(server, token, plan))
            print(f"{milliseconds:>7} ms {count:>10} {found[count]}", flush=True)
            if found[count].texts != found[COUNTS[0]].texts:
                raise RuntimeError(f"{count} volunteers write other tokens than {COUNTS[0]}")
    return found


def bars(milliseconds: int, found: Found) -> list[Bar]:
    """What the largest swarm shall reach."""
    petals, where = PETALS[milliseconds], f"{COUNTS[-1]} volunteers at {milliseconds} ms"
    limit = round(FIRST_TOKEN_SHARE * petals.first_token, 2)
    return [
        Bar(f"steps a second, {where}", round(found.steps.median, 3), ">=", petals.steps),
        Bar(f"seconds to the first token, {where}", round(found.first_token.median, 3), "<=", limit),
    ]


def on_network(milliseconds: int, plan: Plan, report: Report) -> dict[int, Found]:
    """One network: checked, measured, removed."""
    conditions = Conditions(milliseconds / 2000, RATE, QUEUE_BYTES)
    names = (RELAY, CLIENT, *even_spans(SMALL.blocks, COUNTS[-1]))
    with emulated(names, conditions, plan.congestion) as nodes:
        link = check(nodes, conditions)
        with entered(nodes[CLIENT].namespace):
            used = CONGESTION_CONTROL.read_text().strip()
            found = measure(nodes, milliseconds, plan)
    account = nodes.account
    print(
        f"{milliseconds:>7} ms, checked: {link.shortest_round_trip:.1f} to {link.longest_round_trip:.1f} ms, "
        f"{link.rate:.1f} Mbit/s, {used}; "
        f"frames {1e6 * account.late:.0f} us late in the mean, {account.lost} lost",
        flush=True,
    )
    require_punctual(account)
    report.figures[f"{milliseconds} ms, the network"] = {
        "milliseconds of round trip": {"low": link.shortest_round_trip, "high": link.longest_round_trip},
        "Mbit/s of a transfer": link.rate,
        "congestion control": used,
        "frames": account,
    }
    return found


def run(plan: Plan, report: Report) -> None:
    """Every network in turn, and what the difference between them says."""
    print(f"{'round trip':>10} {'volunteers':>10} {'steps/s':>20} {'first token':>23} {'at first':>10}")
    found = {milliseconds: on_network(milliseconds, plan, report) for milliseconds in PETALS}
    for milliseconds, swarms in found.items():
        for count, swarm in swarms.items():
            report.figures[f"{milliseconds} ms, {count} volunteers"] = swarm.figures()
        report.bars.extend(bars(milliseconds, swarms[COUNTS[-1]]))
    near, far = min(found), max(found)
    for count in COUNTS:
        longer = 1 / found[far][count].steps.median - 1 / found[near][count].steps.median
        trips = longer / (far - near) * 1000
        report.figures[f"round trips a step, {count} volunteers"] = trips
        print(f"{count} volunteers: {trips:.2f} round trips a step")


def stop(signal_number: int, _: FrameType | None) -> None:
    """Ends the run as Ctrl-C does, so that all is removed."""
    raise KeyboardInterrupt(signal.Signals(signal_number).name)


def main() -> int:
    parser = argparse.ArgumentParser(description="A swarm over an emulated wide-area network. Needs root.")
    parser.add_argument("--full", action="store_true", help="more rounds and longer replies")
    parser.add_argument("--congestion", default="", help="TCP's congestion control (the kernel's choice)")
    arguments = parser.parse_args()
    rounds, tokens = (9, 48) if arguments.full else (3, 12)
    signal.signal(signal.SIGTERM, stop)
    report = Report("wan", arguments.full)
    try:
        require_network()
        with tempfile.TemporaryDirectory() as folder:
            model = make_llama(Path(folder), SMALL)
            run(Plan(model, arguments.congestion, rounds, tokens), report)
    except (NetworkUnavailable, LinkOff) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped; the network is removed", file=sys.stderr)
        return 130
    report.print_last_line()
    return 0


if __name__ == "__main__":
    sys.exit(main())
