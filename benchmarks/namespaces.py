"""Nodes that share a machine but no network: one network namespace each, behind the link emulator.

    with emulated(("relay", "client"), conditions) as nodes:
        nodes["relay"].address        # of its only device
        nodes["relay"].command        # starts a process there
        with entered(nodes["relay"].namespace): ...  # this thread is there

Linux only, and as root. Everything is gone at the end, however that comes; what a killed run has left, the
next one removes. Does not know what runs on the nodes, nor how the emulator works.
"""

import contextlib
import ctypes
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import orjson

from benchmarks.link import Account, Conditions, address

DEVICE = "wan"
"""The name of each node's device, in its own namespace."""
PREFIX = "corolla-"
RUNNING = Path("/run/netns")
"""Where `ip netns` keeps its namespaces."""
CONGESTION_CONTROL = Path("/proc/sys/net/ipv4/tcp_congestion_control")
"""Of the namespace of whoever looks."""
STOP_SECONDS = 10.0
_CLONE_NEWNET = 0x40000000
"""linux/sched.h; `os.setns` came with Python 3.12."""


class NetworkUnavailable(Exception):
    """The network cannot be emulated here; says why, and what helps."""


@dataclass(frozen=True, slots=True)
class Node:
    """One machine of the emulated network."""

    namespace: str
    address: str

    @property
    def command(self) -> tuple[str, ...]:
        """What to put before a command, so that it runs on this node, where no proxy can be reached."""
        return ("ip", "netns", "exec", self.namespace, "env", "no_proxy=*")


@dataclass(slots=True)
class Nodes:
    """The nodes by name, and at the end what the emulator says of its work."""

    by_name: dict[str, Node]
    account: Account

    def __getitem__(self, name: str) -> Node:
        return self.by_name[name]


def require_network() -> None:
    """Raises NetworkUnavailable where namespaces and devices cannot be made."""
    if sys.platform != "linux":
        raise NetworkUnavailable("network namespaces are Linux's: run this on Linux")
    if os.geteuid() != 0:
        raise NetworkUnavailable(
            "network namespaces and TAP devices need root, and this is another user: run it with sudo"
        )
    if shutil.which("ip") is None:
        raise NetworkUnavailable("the command `ip` is missing: install iproute2")
    if not Path("/dev/net/tun").exists():
        raise NetworkUnavailable("/dev/net/tun is missing: run `modprobe tun`, or give it to the container")


@contextlib.contextmanager
def emulated(names: Sequence[str], conditions: Conditions, congestion: str = "") -> Iterator[Nodes]:
    """A network of nodes with these names, under these conditions.

    `congestion`: TCP's congestion control on all of them, in place of the kernel's own choice.

    Raises:
        NetworkUnavailable: it cannot be made here.
    """
    require_network()
    _sweep()
    nodes = {
        name: Node(f"{PREFIX}{os.getpid()}-{name}", f"198.18.0.{number}")  # for benchmarks, says RFC 2544
        for number, name in enumerate(names, start=1)
    }
    running = Nodes(nodes, Account())
    try:
        for node in nodes.values():
            _ip("netns", "add", node.namespace)
        with _emulator(running, conditions):
            for number, node in enumerate(nodes.values()):
                _configure(number, list(nodes.values()))
                _choose(congestion, node)
            yield running
    finally:
        for node in nodes.values():
            if (RUNNING / node.namespace).exists():
                _ip("netns", "del", node.namespace)


@contextlib.contextmanager
def entered(namespace: str) -> Iterator[None]:
    """Puts this thread, and what it starts meanwhile, on a node; sockets stay where they were made."""
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    try:
        there = os.open(RUNNING / namespace, os.O_RDONLY)
        try:
            _enter(there)
        finally:
            os.close(there)
        try:
            yield
        finally:
            _enter(home)
    finally:
        os.close(home)


def _enter(descriptor: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(descriptor, _CLONE_NEWNET) != 0:
        error = os.strerror(ctypes.get_errno())
        raise NetworkUnavailable(f"a network namespace cannot be entered ({error}): CAP_SYS_ADMIN is needed")


@contextlib.contextmanager
def _emulator(nodes: Nodes, conditions: Conditions) -> Iterator[None]:
    """The emulator, carrying; leaves its account with the nodes."""
    command = [sys.executable, "-m", "benchmarks.emulator", orjson.dumps(asdict(conditions)).decode()]
    child = subprocess.Popen(
        [*command, *(node.namespace for node in nodes.by_name.values())],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,  # Ctrl-C is for this process, which needs the network to stop the others
    )
    try:
        if child.stdout is None or child.stdout.readline() != "carrying\n":
            raise NetworkUnavailable("the link emulator could not start: what it wrote above says why")
        yield
    finally:
        try:
            said, _ = child.communicate(input="\n", timeout=STOP_SECONDS)
            if said:
                nodes.account = Account(**orjson.loads(said))
        finally:
            child.kill()
            child.wait()


def _configure(number: int, nodes: list[Node]) -> None:
    """Give a node its addresses. It knows its neighbours', so that nothing but TCP travels."""
    node = nodes[number]
    lines = [
        "link set lo up",
        f"link set {DEVICE} address {address(number).hex(':')} addrgenmode none",
        f"addr add {node.address}/24 dev {DEVICE}",
        f"link set {DEVICE} up",
    ]
    for other, neighbour in enumerate(nodes):
        if other != number:
            hardware = address(other).hex(":")
            lines.append(f"neigh add {neighbour.address} lladdr {hardware} dev {DEVICE} nud permanent")
    _ip("-n", node.namespace, "-batch", "-", text="\n".join(lines))


def _choose(congestion: str, node: Node) -> None:
    if not congestion:
        return
    try:
        with entered(node.namespace):
            CONGESTION_CONTROL.write_text(congestion)
    except OSError as error:
        raise NetworkUnavailable(
            f"the congestion control {congestion!r} cannot be chosen ({error}): "
            "/proc/sys/net/ipv4/tcp_allowed_congestion_control lists those that can"
        ) from error


def _sweep() -> None:
    """Remove the namespaces of runs that were killed."""
    for path in RUNNING.glob(f"{PREFIX}*"):
        process = path.name.removeprefix(PREFIX).partition("-")[0]
        if process.isdecimal() and not Path(f"/proc/{process}").exists():
            _ip("netns", "del", path.name)


def _ip(*arguments: str, text: str = "") -> None:
    done = subprocess.run(["ip", *arguments], input=text, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        command = " ".join(("ip", *arguments))
        raise NetworkUnavailable(
            f"`{command}` failed ({done.stderr.strip()}): it needs CAP_NET_ADMIN and CAP_SYS_ADMIN"
        )
