"""A timed reply through the REST API, as a script would ask for it."""

import threading
import time
import urllib.request
from dataclasses import dataclass

import orjson

_direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
"""The relay is one of this machine's own: no proxy of the environment's would find it."""


@dataclass(frozen=True, slots=True)
class TimedReply:
    """A streamed completion. Seconds."""

    text: str
    first_token: float
    step: float
    """From the first token to the last, divided by the steps between them."""
    arrivals: tuple[float, ...]
    """When each token came, on the clock of `time.perf_counter`."""

    @property
    def tokens(self) -> int:
        return len(self.arrivals)


def complete(
    url: str,
    token: str,
    model: str,
    prompt: list[int],
    tokens: int,
    until: threading.Event | None = None,
    noted: list[float] | None = None,
) -> TimedReply:
    """A greedy completion of `tokens` tokens, streamed, every event timed on arrival.

    Hangs up at the first token after `until` is set. `noted`: where arrivals are noted as they come.
    """
    body = {"model": model, "prompt": prompt, "max_tokens": tokens, "temperature": 0, "stream": True}
    request = urllib.request.Request(
        f"{url}/v1/completions",
        data=orjson.dumps(body),
        headers={"Authorization": f"Bearer {token}", "Content-Type": "application/json"},
    )
    pieces: list[str] = []
    arrivals: list[float] = [] if noted is None else noted
    begun = time.perf_counter()
    with _direct.open(request, timeout=600) as answer:
        for line in answer:
            if not line.startswith(b"data: {"):
                continue
            event = orjson.loads(line[6:])
            if "error" in event:
                raise RuntimeError(event["error"]["message"])
            text = event["choices"][0]["text"] if event["choices"] else ""
            if text:
                pieces.append(text)
                arrivals.append(time.perf_counter())
            if until is not None and until.is_set():
                break
    step = (arrivals[-1] - arrivals[0]) / max(1, len(arrivals) - 1)
    return TimedReply("".join(pieces), arrivals[0] - begun, step, tuple(arrivals))
