"""The process that plays the wide-area network: what one node's TAP device sends, it writes to another's.

    python -m benchmarks.emulator CONDITIONS NAMESPACE...

Makes one TAP device in each network namespace, says so on its output, and carries frames until its input
says something or ends; then says how well it did. Many kernels lack netem, and nearly all have TAP. Needs
root. Delays are as exact as the system wakes it up: it asks to run before everything else. Does not know
what the nodes do, nor how frames are timed (benchmarks/link.py).
"""

import contextlib
import fcntl
import os
import select
import struct
import sys
import time

import orjson

from benchmarks.link import Account, Conditions, Network
from benchmarks.namespaces import DEVICE, entered

FRAME_BYTES = 2048
"""More than a frame of the devices' 1500 bytes has."""
BURST = 64
"""Frames that are read from one device before others have their turn."""

# linux/if_tun.h: a device that carries Ethernet frames, without a header of its own before each.
_TUNSETIFF = 0x400454CA
_IFF_TAP = 0x0002
_IFF_NO_PI = 0x1000
_IFREQ = struct.Struct("16sH22x")


def open_tap() -> int:
    """A new TAP device in the namespace that this process is in; it lives as long as the descriptor."""
    descriptor = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(descriptor, _TUNSETIFF, _IFREQ.pack(DEVICE.encode(), _IFF_TAP | _IFF_NO_PI))
    return descriptor


def carry(taps: list[int], network: Network, until: int) -> Account:
    """Carry frames between devices until the descriptor `until` has something to read."""
    account = Account()
    while True:
        due = network.next_due
        wait = None if due is None else max(0.0, due - time.monotonic())
        readable, _, _ = select.select([*taps, until], [], [], wait)
        if until in readable:
            account.lost = network.lost
            return account
        for node, tap in enumerate(taps):
            if tap in readable:
                _read(tap, node, network)
        now = time.monotonic()
        for arrival in network.arrivals(now):
            account.count(now - arrival.due)
            with contextlib.suppress(OSError):  # a node that is not up, or has gone, hears nothing
                os.write(taps[arrival.node], arrival.frame)


def _read(tap: int, node: int, network: Network) -> None:
    with contextlib.suppress(OSError):  # nothing left to read, or the node has gone
        for _ in range(BURST):
            frame = os.read(tap, FRAME_BYTES)
            network.send(node, frame, time.monotonic())


def main() -> int:
    conditions = Conditions(**orjson.loads(sys.argv[1]))
    taps: list[int] = []
    for namespace in sys.argv[2:]:
        with entered(namespace):
            taps.append(open_tap())
    with contextlib.suppress(OSError):  # some containers do not let anybody
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    print("carrying", flush=True)
    account = carry(taps, Network(len(taps), conditions), sys.stdin.fileno())
    with contextlib.suppress(BrokenPipeError):  # nobody is left to be told
        os.write(sys.stdout.fileno(), orjson.dumps(account))
    return 0


if __name__ == "__main__":
    sys.exit(main())
