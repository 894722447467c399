"""Frames through the relay, against a bare forwarder on the same uvicorn.

    python -m benchmarks.relay [--full]

Both servers run on one core each of their own kind, the load on another; rounds alternate between
them. A frame goes from one peer to another along a signed route of one hop, so that the relay does
all it does for a token: header, route, sender, queue, counters.
"""

import argparse
import statistics
import sys
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass

from benchmarks.processes import RelayProcess, free_port, pin, process, relay
from benchmarks.raw_websocket import RawWebSocket, framed_size, masked
from benchmarks.report import Bar, Report, Spread
from schema.frames import PROTOCOL_VERSION, Frame, FrameType, encode_frame
from schema.ids import PeerId, Span, model_key, new_instance_key, new_session_id
from schema.messages import Hello, Welcome, decode_from_relay, encode_message
from schema.routes import Hop, Route, sign_route

SIZES = {"256 B": 256, "16 KiB": 16 << 10, "64 KiB": 64 << 10, "1 MiB": 1 << 20}
BARRED = ("16 KiB", "64 KiB")
BAR = 0.8
WINDOW_BYTES = 4 << 20
"""Bytes under way at most: enough to keep the server busy, too few to overflow a queue."""
SERVER_CORE, LOAD_CORE = 0, 1


@dataclass(slots=True)
class Pair:
    """A sender and a receiver at one server, and how a payload is wrapped for it."""

    sender: RawWebSocket
    receiver: RawWebSocket
    route: bytes | None
    session: bytes

    def frame(self, size: int) -> bytes:
        """A message of about `size` bytes."""
        if self.route is None:
            return bytes(size)
        head = Frame(FrameType.STEP, 0, self.session, 0, 0, self.route, b"")  # pyright: ignore[reportArgumentType]
        return encode_frame(head._replace(payload=bytes(size - len(encode_frame(head)))))

    def close(self) -> None:
        self.sender.close()
        self.receiver.close()


def bare_pair(port: int) -> Pair:
    receiver = RawWebSocket(f"ws://127.0.0.1:{port}/receive")
    return Pair(RawWebSocket(f"ws://127.0.0.1:{port}/send"), receiver, None, b"")


def relay_pair(server: RelayProcess) -> Pair:
    token = server.token("client", "benchmark")
    session = new_session_id()
    (sender, origin), (receiver, hop) = (_join(server, token, name) for name in ("sender", "receiver"))
    route = Route(origin, (Hop(hop, Span(0, 1)),), model_key("none"), int(time.time()) + 3600)
    return Pair(sender, receiver, sign_route(route, session, server.secret), session)


def _join(server: RelayProcess, token: str, name: str) -> tuple[RawWebSocket, PeerId]:
    client = RawWebSocket(server.url.replace("http", "ws") + "/ws/peer", token)
    hello = Hello(protocol=PROTOCOL_VERSION, software="benchmark", instance=new_instance_key(), name=name)
    client.send_text(encode_message(hello))
    welcome = decode_from_relay(client.receive_text())
    if not isinstance(welcome, Welcome):
        raise RuntimeError(f"no welcome but {welcome}")
    return client, PeerId(welcome.peer)


def throughput(pair: Pair, size: int, seconds: float) -> float:
    """Frames a second over about `seconds`, with a window of bytes under way."""
    message = pair.frame(size)
    wire, arriving = masked(message), framed_size(len(message))
    window = max(1, WINDOW_BYTES // size)
    permits = threading.Semaphore(window)
    stop = threading.Event()

    def send() -> None:
        while not stop.is_set():
            permits.acquire()
            pair.sender.socket.sendall(wire)
            sent.append(1)

    sent: list[int] = []
    sender = threading.Thread(target=send)
    buffer = memoryview(bytearray(1 << 20))
    sender.start()
    received = 0
    begun = time.perf_counter()
    while time.perf_counter() - begun < seconds:
        pair.receiver.receive_bytes(arriving, buffer)
        permits.release()
        received += 1
    elapsed = time.perf_counter() - begun
    stop.set()
    permits.release()
    sender.join()
    for _ in range(len(sent) - received):
        pair.receiver.receive_bytes(arriving, buffer)
    return received / elapsed


def latency(pair: Pair, size: int, count: int) -> float:
    """Median seconds from the first byte sent to the last byte received, one frame at a time."""
    message = pair.frame(size)
    wire, arriving = masked(message), framed_size(len(message))
    buffer = memoryview(bytearray(1 << 20))
    times: list[float] = []
    for _ in range(count):
        begun = time.perf_counter()
        pair.sender.socket.sendall(wire)
        pair.receiver.receive_bytes(arriving, buffer)
        times.append(time.perf_counter() - begun)
    return statistics.median(times)


def measure(dial: Callable[[], dict[str, Pair]], rounds: int, seconds: float, report: Report) -> None:
    """Each size on connections of its own: the relay ends those who send no heartbeat for minutes."""
    print(f"{'frame':>8} {'server':>6} {'frames/s':>10} {'MB/s':>8} {'one way':>10}")
    for label, size in SIZES.items():
        pairs = dial()
        rates: dict[str, list[float]] = {name: [] for name in pairs}
        delays: dict[str, list[float]] = {name: [] for name in pairs}
        for _ in range(rounds):
            for name, pair in pairs.items():
                rates[name].append(throughput(pair, size, seconds))
                delays[name].append(latency(pair, size, 50))
        for name in pairs:
            rate, delay = Spread.of(rates[name]), Spread.of(delays[name])
            report.figures[f"{name} {label}"] = {"frames_per_second": rate, "one_way_seconds": delay}
            print(
                f"{label:>8} {name:>6} {rate.median:10.0f} {rate.median * size / 1e6:8.0f} "
                f"{delay.median * 1e6:7.0f} us"
            )
        ratio = statistics.median(a / b for a, b in zip(rates["relay"], rates["bare"], strict=True))
        added = statistics.median(a - b for a, b in zip(delays["relay"], delays["bare"], strict=True))
        report.figures[f"added one way {label}"] = added
        report.figures[f"ratio {label}"] = ratio
        if label in BARRED:
            report.bars.append(Bar(f"relay/bare frames per second at {label}", round(ratio, 3), ">=", BAR))
        for pair in pairs.values():
            pair.close()


def main() -> int:
    parser = argparse.ArgumentParser(description="Frames through the relay against a bare forwarder.")
    parser.add_argument("--full", action="store_true", help="more and longer rounds")
    full = parser.parse_args().full
    report = Report("relay", full)
    pin(LOAD_CORE)
    with ExitStack() as stack:
        server = stack.enter_context(relay("none", SERVER_CORE, LOG_LEVEL="WARNING", HEARTBEAT_SECONDS="60"))
        port = free_port()
        arguments = ["-m", "benchmarks.bare_forwarder", str(port)]
        stack.enter_context(process(arguments, {}, server.folder / "bare.log", SERVER_CORE))

        def dial() -> dict[str, Pair]:
            return {"bare": bare_pair(port), "relay": relay_pair(server)}

        measure(dial, rounds=9 if full else 5, seconds=2.0 if full else 0.6, report=report)
    report.print_last_line()
    return 0


if __name__ == "__main__":
    sys.exit(main())
