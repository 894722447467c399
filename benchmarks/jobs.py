"""Lines of batches through a relay of two replicas: as fast as plain requests, and each answered once.

    python -m benchmarks.jobs [--lines N] [--seed N] [--full]

A random tiny Llama on five volunteers, PostgreSQL, NATS, two replicas. First the same lines go through by
turns as requests of a client that keeps as many under way as batches do, and as batches. Then one batch of
all lines is answered while a fifth of the volunteers and one of the replicas are killed, without a word, when
shares of the lines that are drawn from the seed are answered; whoever asks goes on at the other replica.
Every line has to be in the batch's files just once, answered.
"""

import argparse
import asyncio
import random
import sys
import tempfile
import time
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import orjson

from benchmarks.models import TINY, make_llama
from benchmarks.processes import RelayProcess, Volunteer, volunteer
from benchmarks.replicas import replicas
from benchmarks.report import Bar, Report

MODEL = "tiny-llama"
ENDPOINT = "/v1/completions"
SPANS = {"anemone": "0:6", "bellis": "6:12", "crocus": "0:6", "dahlia": "6:12", "erica": "0:6"}
HEADS = 3
LINES_PER_HEAD = 16
PROMPT_TOKENS, REPLY_TOKENS = 8, 4
LINES_OF_A_TURN = 2500
"""After which the two ways take turns. Of a few lines one turn is all: a batch begins and ends once, too."""
FEW, ALL = 300, 10_000
LEAST_RATIO = 0.9
SETTLE_SECONDS = 7.0
"""After which replicas know that the other one's people have gone: until then lines leave them room."""
KILLED_BETWEEN = (0.1, 0.6)
REPLICA = "replica 0"
POLL_SECONDS = 0.05
PATIENCE_SECONDS = 3600.0


def line(number: int, chosen: random.Random) -> dict[str, Any]:
    """A line of an input file."""
    prompt = [chosen.randrange(TINY.vocabulary) for _ in range(PROMPT_TOKENS)]
    body = {"model": MODEL, "prompt": prompt, "max_tokens": REPLY_TOKENS, "temperature": 0}
    return {"custom_id": f"line-{number}", "method": "POST", "url": ENDPOINT, "body": body}


@dataclass(frozen=True, slots=True)
class Running:
    """Who may be killed."""

    replicas: list[RelayProcess]
    volunteers: dict[str, Volunteer]


@dataclass(frozen=True, slots=True)
class Asker:
    """Somebody with a token, who asks any replica that answers."""

    urls: list[str]
    token: str

    def client(self) -> httpx.AsyncClient:
        headers = {"Authorization": f"Bearer {self.token}"}
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
        return httpx.AsyncClient(headers=headers, timeout=600.0, trust_env=False, limits=limits)

    async def send_plainly(self, lines: list[dict[str, Any]]) -> float:
        """Seconds that all lines take as requests, as many at a time as lines of batches run."""
        waiting = iter(enumerate(lines))
        async with self.client() as http:

            async def send() -> None:
                for number, one in waiting:
                    url = self.urls[number % len(self.urls)] + ENDPOINT
                    (await http.post(url, json=one["body"])).raise_for_status()

            begun = time.perf_counter()
            await asyncio.gather(*(send() for _ in range(HEADS * LINES_PER_HEAD)))
            return time.perf_counter() - begun

    async def submit(self, http: httpx.AsyncClient, lines: list[dict[str, Any]]) -> str:
        """The id of a batch of these lines."""
        content = b"".join(orjson.dumps(one) + b"\n" for one in lines)
        files = {"file": ("lines.jsonl", content)}
        file = await http.post(f"{self.urls[0]}/v1/files", files=files, data={"purpose": "batch"})
        body = {"input_file_id": file.raise_for_status().json()["id"], "endpoint": ENDPOINT}
        made = await http.post(f"{self.urls[0]}/v1/batches", json=body | {"completion_window": "24h"})
        return made.raise_for_status().json()["id"]

    async def get(self, http: httpx.AsyncClient, path: str) -> httpx.Response:
        """What any replica answers."""
        for url in self.urls[::-1]:
            try:
                return (await http.get(url + path)).raise_for_status()
            except httpx.TransportError:
                continue
        raise RuntimeError("no replica answers")

    async def ended(self, http: httpx.AsyncClient, batch: str) -> dict[str, Any]:
        """A batch when it has ended."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < deadline:
            found = (await self.get(http, f"/v1/batches/{batch}")).json()
            if found["status"] in ("completed", "failed", "expired", "cancelled"):
                return found
            await asyncio.sleep(POLL_SECONDS)
        raise RuntimeError(f"{batch} has not ended within {PATIENCE_SECONDS:g} s")

    async def send_as_batch(self, lines: list[dict[str, Any]]) -> float:
        """Seconds that all lines take as a batch, from its file's upload to its end."""
        async with self.client() as http:
            begun = time.perf_counter()
            batch = await self.ended(http, await self.submit(http, lines))
            seconds = time.perf_counter() - begun
        if batch["status"] != "completed" or batch["request_counts"]["completed"] != len(lines):
            raise RuntimeError(f"the batch was not answered: {batch}")
        return seconds

    async def answers(self, http: httpx.AsyncClient, batch: dict[str, Any]) -> Counter[str]:
        """How often each line is in the files with an answer."""
        found: Counter[str] = Counter()
        for file in (batch["output_file_id"], batch["error_file_id"]):
            if file is not None:
                text = (await self.get(http, f"/v1/files/{file}/content")).text
                answers = [orjson.loads(one) for one in text.splitlines()]
                found.update(one["custom_id"] for one in answers if one["response"]["status_code"] == 200)
        return found


def draw(seed: int) -> list[tuple[float, str]]:
    """Who is killed, and when: at which share of the lines."""
    chosen = random.Random(f"kill {seed}")
    names = chosen.sample(sorted(SPANS), max(1, len(SPANS) // 5))
    return sorted((chosen.uniform(*KILLED_BETWEEN), name) for name in [*names, REPLICA])


async def kill(running: Running, asker: Asker, http: httpx.AsyncClient, batch: str, seed: int) -> list[str]:
    """End a fifth of the volunteers and one replica while a batch is answered. Who it was, and when."""
    told: list[str] = []
    for share, name in draw(seed):
        while True:
            found = (await asker.get(http, f"/v1/batches/{batch}")).json()
            counts = found["request_counts"]
            if counts["total"] and counts["completed"] >= share * counts["total"]:
                break
            await asyncio.sleep(POLL_SECONDS)
        process = running.replicas[0].process if name == REPLICA else running.volunteers[name].process
        process.kill()
        told.append(f"{name} after {counts['completed']} lines")
    return told


async def measure(running: Running, lines: list[dict[str, Any]], seed: int, report: Report) -> None:
    asker = Asker([one.url for one in running.replicas], running.replicas[0].token("client", "benchmark"))
    await asker.send_plainly(lines[: 2 * HEADS * LINES_PER_HEAD])  # nobody is cold afterwards
    plain = batch = 0.0
    turns = max(1, len(lines) // LINES_OF_A_TURN)
    for turn in range(turns):
        some = lines[turn::turns]
        plain += await asker.send_plainly(some)
        await asyncio.sleep(SETTLE_SECONDS)
        batch += await asker.send_as_batch(some)
    print(f"{len(lines)} lines: {plain:.1f} s as requests, {batch:.1f} s as batches", flush=True)
    async with asker.client() as http:
        begun = time.perf_counter()
        made = await asker.submit(http, lines)
        killed = await kill(running, asker, http, made, seed)
        ended = await asker.ended(http, made)
        seconds = time.perf_counter() - begun
        found = await asker.answers(http, ended)
    once = sum(1 for one in lines if found[one["custom_id"]] == 1)
    print(f"killed {', '.join(killed)}: {once} answered once, in {seconds:.1f} s", flush=True)
    report.figures |= {
        "lines": len(lines),
        "requests_per_second": len(lines) / plain,
        "batch_lines_per_second": len(lines) / batch,
        "seconds_with_kills": seconds,
        "killed": killed,
        "status": ended["status"],
        "counts": ended["request_counts"],
    }
    report.bars += [
        Bar("lines answered exactly once", once, ">=", len(lines)),
        Bar("throughput beside plain requests", plain / batch, ">=", LEAST_RATIO),
    ]


def run(folder: Path, lines: list[dict[str, Any]], seed: int, report: Report) -> None:
    model = make_llama(folder / "model", TINY)
    with (
        replicas(folder, MODEL, LINES_PER_HEAD=str(LINES_PER_HEAD)) as servers,
        ExitStack() as stack,
    ):
        planted: dict[str, Volunteer] = {}
        for number, (name, span) in enumerate(SPANS.items()):
            near = number % len(servers)
            urls = ",".join(one.url for one in servers[near:] + servers[:near])
            where = ("--relay", urls, "--model", f"{MODEL}={model}", "--blocks", span)
            planted[name] = stack.enter_context(volunteer(servers[near], name, *where))
        for server in servers:
            server.wait_until_serving(planted, list(planted.values()), PATIENCE_SECONDS)
        asyncio.run(measure(Running(servers, planted), lines, seed, report))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--lines", type=int)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--full", action="store_true", help=f"{ALL} lines in place of {FEW}")
    options = parser.parse_args()
    count = options.lines or (ALL if options.full else FEW)
    chosen = random.Random(options.seed)
    lines = [line(number, chosen) for number in range(count)]
    report = Report("jobs", options.full)
    with tempfile.TemporaryDirectory(prefix="corolla-") as folder:
        run(Path(folder), lines, options.seed, report)
    report.print_last_line()
    return 0


if __name__ == "__main__":
    sys.exit(main())
