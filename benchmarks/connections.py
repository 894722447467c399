"""Ten thousand idle volunteers on one relay: what each costs, and what a busy session beside them notices.

    python -m benchmarks.connections [--volunteers N] [--full]

Volunteers are plain sockets in a few processes (benchmarks/crowd.py). They join as real ones do, each with a
token of its own, and send heartbeats at the default interval. One session goes over three more of them, a
step of 16 KiB `STEPS_A_SECOND` times a second, whether the one before is back or not: so a relay that stands
still for a while makes all steps of that while late, and not just one. A step's time counts from when it was
due. The hops answer at once: all of it is the relay's time, and that of the sockets.

Measured without the idle ones, with them, and without them again; each time first as any process runs, and
then with the relay and the session going before everything else on their cores, where the system allows it.
The second is nearer to the relay's own time: the session, and each idle volunteer, would be on a machine of
its own, and on two cores they share one with each other and with whatever else runs. With more cores the idle
ones have those that are left. The bar is for both.
"""

import argparse
import asyncio
import os
import resource
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import quantiles

import uvloop

from benchmarks.plain_peer import Card, PlainPeer, connect, facts
from benchmarks.processes import RelayProcess, going_first, pin, relay
from benchmarks.report import Bar, Report
from schema.credentials import new_credential
from schema.frames import Frame, FrameType
from schema.ids import Span, model_key, new_session_id
from schema.routes import Hop, Route, sign_route

MODEL, BLOCKS = "plain", 12
PROCESSES = 4
"""That the idle volunteers are in."""
AT_ONCE = 16
"""Joins at the same time, of each process."""
SPARE_FILES = 200
HOPS = 3
STEP_BYTES = 16 << 10
STEPS_A_SECOND = 100
RELAY_CORE, SESSION_CORE, FIRST_FREE_CORE = 0, 1, 2
MEMORY_BAR, SLOWER_BAR = 60.0, 1.5
"""KB of a connection, and how much longer the session's 99th percentile may get."""
SETTLE_SECONDS = 5.0
PATIENCE_SECONDS = 300.0
"""For the relay to have put away what thousands have left behind."""
AT_REST = 0.03
"""Of a core, above what it uses without them."""


@dataclass(frozen=True, slots=True)
class Usage:
    """Of the relay's process, beside what else was connected."""

    memory: float
    """KB."""
    processor: float
    """Of one core, while no session was going on."""


@dataclass(frozen=True, slots=True)
class Steps:
    """Seconds of each step of the session."""

    ordinary: list[float]
    first: list[float]
    """While nothing else took the relay's and the session's cores; empty where that is not allowed."""


def allow_files(wanted: int) -> int:
    """How many sockets a process may have, and those it starts, raised as far as this user may."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = wanted + SPARE_FILES
    if soft < needed:
        soft = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    if soft < needed:
        print(f"only {soft} open files are allowed here: {soft - SPARE_FILES} volunteers (see `ulimit -Hn`)")
    return min(wanted, soft - SPARE_FILES)


def make_tokens(server: RelayProcess, count: int) -> list[str]:
    """Volunteers' tokens, written into the relay's database at once."""
    made = [new_credential("volunteer", server.url) for _ in range(count)]
    rows = [(one.id, "volunteer", f"idle {i}", one.secret_hash, time.time()) for i, one in enumerate(made)]
    path = server.environment["DATABASE_URL"].removeprefix("sqlite:///")
    with sqlite3.connect(path, timeout=30) as database:
        database.executemany(
            "INSERT INTO tokens (id, kind, name, secret_hash, created_at) VALUES (?, ?, ?, ?, ?)", rows
        )
    database.close()
    return [str(one) for one in made]


@contextmanager
def crowd(server: RelayProcess, tokens: list[str]) -> Iterator[float]:
    """Idle volunteers, all serving; the seconds that it took."""
    command = [sys.executable, "-m", "benchmarks.crowd", server.url, MODEL, str(BLOCKS), str(AT_ONCE)]
    begun = time.monotonic()
    with ExitStack() as stack:
        running: list[subprocess.Popen[str]] = []
        for number in range(PROCESSES):
            one = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            stack.callback(_end, one)
            leave_alone(one.pid)
            running.append(one)
            if one.stdin is None:
                raise RuntimeError("a pipe was asked for")
            one.stdin.write("\n".join(tokens[number::PROCESSES]))
            one.stdin.close()
        for one in running:
            if one.stdout is None or not one.stdout.readline():
                raise RuntimeError("idle volunteers could not join; their error stands above")
        yield time.monotonic() - begun
        if any(one.poll() is not None for one in running):
            raise RuntimeError("idle volunteers were lost; which and why stands above")


def leave_alone(pid: int) -> None:
    """Keep a process off the cores of the relay and of the session, where there are others."""
    if hasattr(os, "sched_setaffinity") and (free := range(FIRST_FREE_CORE, os.cpu_count() or 1)):
        os.sched_setaffinity(pid, free)


def _end(one: subprocess.Popen[str]) -> None:
    one.kill()
    one.wait()


class Session:
    """A driver and its hops, and the steps that go round."""

    def __init__(self, server: RelayProcess, peers: list[PlainPeer]) -> None:
        self._driver, *hops = peers
        route = tuple(Hop(peer.id, Span(4 * number, 4 * number + 4)) for number, peer in enumerate(hops))
        signed = Route(self._driver.id, route, model_key(MODEL), int(time.time()) + 24 * 3600)
        self._id = new_session_id()
        self._route = sign_route(signed, self._id, server.secret)
        self._due: dict[int, float] = {}
        self._times: list[float] = []
        self._number = 0
        self._all_back = asyncio.Event()
        self._driver.on_frame = self._arrived

    async def measure(self, seconds: float) -> list[float]:
        """Seconds of each step."""
        clock = time.monotonic
        self._times = []
        begun, payload = clock(), bytes(STEP_BYTES)
        for number in range(int(seconds * STEPS_A_SECOND)):
            due = begun + number / STEPS_A_SECOND
            await asyncio.sleep(max(0.0, due - clock()))
            self._due[self._number] = due
            self._all_back.clear()
            self._driver.send_frame(
                Frame(FrameType.STEP, 0, self._id, self._number, self._number, self._route, payload)
            )
            self._number += 1
        async with asyncio.timeout(60.0):
            await self._all_back.wait()
        return self._times

    def _arrived(self, frame: Frame) -> None:
        self._times.append(time.monotonic() - self._due.pop(frame.step))
        if not self._due:
            self._all_back.set()


def memory(process: int) -> float:
    """KB that are in memory."""
    (line,) = (line for line in Path(f"/proc/{process}/status").read_text().splitlines() if "VmRSS" in line)
    return float(line.split()[1])


def processor_seconds(process: int) -> float:
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def p99(times: list[float]) -> float:
    """Milliseconds."""
    return round(quantiles(times, n=100, method="inclusive")[98] * 1e3, 3)


async def observe(server: RelayProcess, session: Session, seconds: float, what: str) -> tuple[Usage, Steps]:
    """The relay's use of the machine without a session for as long again, and the session's steps."""
    process = server.process.pid
    used, begun = processor_seconds(process), time.monotonic()
    await asyncio.sleep(seconds)
    share = (processor_seconds(process) - used) / (time.monotonic() - begun)
    usage = Usage(memory(process), round(share, 3))
    print(f"{what:>24}: {usage.memory / 1024:6.0f} MB, {share:5.1%} of a core", flush=True)
    ordinary = await session.measure(seconds)
    _print_steps(ordinary, "as any process")
    with going_first(process, os.getpid()) as is_allowed:
        first = await session.measure(seconds) if is_allowed else []
    if first:
        _print_steps(first, "going first")
    return usage, Steps(ordinary, first)


def _print_steps(times: list[float], what: str) -> None:
    half = quantiles(times, n=2, method="inclusive")[0] * 1e3
    print(
        f"{what:>24}: a step {half:.2f} ms, 99th percentile {p99(times):.2f} ms, "
        f"longest {max(times) * 1e3:.1f} ms",
        flush=True,
    )


async def come_to_rest(server: RelayProcess, usual: float) -> None:
    """Return when the relay uses as much of a core as it usually does."""
    end = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < end:
        used = processor_seconds(server.process.pid)
        await asyncio.sleep(SETTLE_SECONDS)
        if (processor_seconds(server.process.pid) - used) / SETTLE_SECONDS < usual + AT_REST:
            return
    print(f"the relay is still busy {PATIENCE_SECONDS:g} s after they left", flush=True)


async def run(server: RelayProcess, count: int, seconds: float, report: Report) -> None:
    tokens = make_tokens(server, count + HOPS + 1)
    spans = [(0, 4), (0, 4), (4, 8), (8, 12)]
    cards = [
        Card(token, f"busy {number}", facts(MODEL, BLOCKS), span)
        for number, (token, span) in enumerate(zip(tokens[count:], spans, strict=True))
    ]
    session = Session(server, [await connect(server.url, card) for card in cards])
    await session.measure(1.0)  # warms up
    before, alone = await observe(server, session, seconds, "without idle volunteers")
    stack = ExitStack()
    with stack:
        took = await asyncio.to_thread(stack.enter_context, crowd(server, tokens[:count]))
        await asyncio.sleep(SETTLE_SECONDS)
        beside, crowded = await observe(server, session, seconds, f"with {count}")
    await come_to_rest(server, before.processor)
    _, again = await observe(server, session, seconds, "without them again")
    each = (beside.memory - before.memory) / count
    print(f"{took:.1f} s until all had joined; {each:.1f} KB for each", flush=True)
    report.figures |= {
        "idle volunteers": count,
        "joins a second": round(count / took, 1),
        "processor, share of a core": {"without": before.processor, "with": beside.processor},
        "the session and the relay go first": bool(crowded.first),
    }
    report.bars.append(Bar("memory of a connection, KB", round(each, 1), "<=", MEMORY_BAR))
    _report_steps(report, "as any process", [alone.ordinary, again.ordinary], crowded.ordinary)
    if crowded.first:
        _report_steps(report, "going first", [alone.first, again.first], crowded.first)


def _report_steps(report: Report, how: str, without: list[list[float]], beside: list[float]) -> None:
    report.figures[f"step {how}, ms"] = {
        "99th percentile": {"without": [p99(times) for times in without], "with": p99(beside)},
        "longest": {
            "without": [round(max(times) * 1e3, 1) for times in without],
            "with": round(max(beside) * 1e3, 1),
        },
    }
    # Of those without, the smaller one: what else runs here makes a figure larger, and the ratio better.
    slower = p99(beside) / min(p99(times) for times in without)
    report.bars.append(
        Bar(f"99th percentile of a step {how}, with / without", round(slower, 2), "<=", SLOWER_BAR)
    )


def main() -> int:
    parser = argparse.ArgumentParser(description="Idle volunteers beside a busy session.")
    parser.add_argument("--full", action="store_true", help="10,000 volunteers, and for longer")
    parser.add_argument("--volunteers", type=int, help="how many (default: 1,000, with --full 10,000)")
    options = parser.parse_args()
    wanted: int = options.volunteers or (10_000 if options.full else 1_000)
    count = allow_files(wanted)
    report = Report("connections", options.full)
    pin(SESSION_CORE)
    with relay(MODEL, RELAY_CORE, LOG_LEVEL="WARNING") as server:
        uvloop.run(run(server, count, 30.0 if options.full else 8.0, report))
    report.print_last_line()
    return 0


if __name__ == "__main__":
    sys.exit(main())
