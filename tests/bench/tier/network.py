"""Nodes on a switch, each in a network namespace of its own, with lines that are shaped by tc.

The namespaces have no names: this process holds them open, so that they vanish with it and with the programs
that it has started inside, however it ends. The line of a node has the same rate in both directions. Packets
take no time on it but that of their length and of those before them: the kernel's queue for delays (netem) is
not everywhere.
"""

import ctypes
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cached_property
from itertools import count
from pathlib import Path

from tests.programs import SYSTEM_PATH

CLONE_NEWNET = 0x40000000

MBIT = 1_000_000

# Bytes that may go at once: more than the largest packet, which would be cut otherwise, by the processor.
BURST = 256 * 1024

# Bytes that a port of the switch holds back.
QUEUE = 2 * 1024 * 1024

# Connections of a node that have a share each, of clients and of others.
CLASSES = 256

# The port of a mirror's listener for others.
PEERS_PORT = 5002

# Packets that the kernel cuts late: a slow line has smaller ones, each of which takes a millisecond.
SMALLEST, LARGEST, PACKETS = 3028, 65536, 1000

# The congestion controls of most systems. A namespace begins with that of the machine, and may not have all.
CONGESTION = ("cubic", "reno")

# A hardware address that no node has.
NOWHERE = "02:00:00:00:ff:ff"


def missing() -> str:
    """Return what a network needs and is not there; "" for nothing."""
    if os.geteuid() != 0:
        return "network namespaces need root: sudo, or unshare --map-root-user"
    return ""


class Node:
    """A namespace with one interface; programs that are started inside `with` have no other network."""

    def __init__(self, descriptor: int, number: int) -> None:
        self.address = f"10.77.{number // 256}.{number % 256}"
        self._descriptor = descriptor
        self._port = f"port{number}"

    @contextmanager
    def inside(self) -> Iterator[None]:
        """Have this thread, and what it starts, in the namespace."""
        here = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        try:
            _enter(self._descriptor)
            try:
                yield
            finally:
                _enter(here)
        finally:
            os.close(here)

    def shape(self, bits: int) -> None:
        """Give the line a rate, in bits per second; 0 for no limit."""
        with self.inside():
            _shape("line", bits)
        _limit(self._port, bits)

    @cached_property
    def hardware(self) -> str:
        """The hardware address of the interface."""
        with self.inside():
            return _run("ip", "-brief", "link", "show", "line").split()[2]

    @property
    def traffic(self) -> tuple[int, int]:
        """Bytes that the node has received, and those that it has sent, heads included."""
        with self.inside():
            return _traffic("line")

    def lose(self, other: "Node") -> None:
        """Have packets to another node vanish from now on."""
        self._point(other, NOWHERE)

    def find(self, other: "Node") -> None:
        """Have packets reach another node again."""
        self._point(other, other.hardware)

    def _point(self, other: "Node", hardware: str) -> None:
        with self.inside():
            words = ("neigh", "replace", other.address, "lladdr", hardware, "nud", "permanent", "dev", "line")
            _run("ip", *words)


class Network:
    """A switch; make one with `network`."""

    def __init__(self) -> None:
        self._numbers = count(2)  # none comes again: other nodes would send to the one that had it before

    @contextmanager
    def node(self, bits: int = 0) -> Iterator[Node]:
        """Have a node with a line of this rate, in bits per second; 0 for no limit."""
        descriptor = _new_namespace()
        try:
            node = self._connected(descriptor, next(self._numbers))
            node.shape(bits)
            yield node
        finally:
            os.close(descriptor)

    def _connected(self, descriptor: int, number: int) -> Node:
        node, port = Node(descriptor, number), f"port{number}"
        there = f"/proc/{os.getpid()}/fd/{descriptor}"
        _run("ip", "link", "add", port, "type", "veth", "peer", "name", "line", "netns", there)
        _run("ip", "link", "set", port, "master", "switch", "up")
        with node.inside():
            _run("ip", "link", "set", "lo", "up")
            _run("ip", "address", "add", f"{node.address}/16", "dev", "line")
            _run("ip", "link", "set", "line", "up")
            _control_congestion()
        return node


@contextmanager
def network() -> Iterator[Network]:
    """Yield a new network; this thread is at its switch until the block ends, and reaches all nodes."""
    outside = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    try:
        switch = _new_namespace()
        try:
            _enter(switch)
            _run("ip", "link", "set", "lo", "up")
            _run("ip", "link", "add", "switch", "type", "bridge")
            _run("ip", "address", "add", "10.77.0.1/16", "dev", "switch")
            _run("ip", "link", "set", "switch", "up")
            yield Network()
        finally:
            _enter(outside)
            os.close(switch)
    finally:
        os.close(outside)


def _new_namespace() -> int:
    """Return a descriptor of a new network namespace."""
    here = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    try:
        _checked(_libc().unshare(CLONE_NEWNET))
        try:
            return os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        finally:
            _enter(here)
    finally:
        os.close(here)


def _control_congestion() -> None:
    for name in CONGESTION:
        with suppress(PermissionError):
            Path("/proc/sys/net/ipv4/tcp_congestion_control").write_text(name)
            return


def _enter(descriptor: int) -> None:
    _checked(_libc().setns(descriptor, CLONE_NEWNET))


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _checked(result: int) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"network namespace: {os.strerror(number)}")


def _shape(interface: str, bits: int) -> None:
    """Give what leaves an interface a rate; its connections have equal shares, as behind `fq_codel`."""
    with suppress(OSError):  # it has none yet
        _run("tc", "qdisc", "del", "dev", interface, "root")
    _run("ip", "link", "set", "dev", interface, "gso_max_size", str(_largest(bits)))
    if bits:
        _run("tc", "-batch", "-", text="\n".join(_fair(interface, bits)))


def _largest(bits: int) -> int:
    """Return the bytes of the largest packet."""
    return min(max(SMALLEST, bits // 8 // PACKETS), LARGEST) if bits else LARGEST


def _limit(interface: str, bits: int) -> None:
    """Give what leaves a port of the switch a rate; its queue is one, and drops what is beyond its length."""
    if bits:
        words = ("tbf", "rate", f"{bits}bit", "burst", str(BURST), "limit", str(QUEUE))
        _run("tc", "qdisc", "replace", "dev", interface, "root", *words)


def _fair(interface: str, bits: int) -> Iterator[str]:
    """Yield commands of tc: a class for each connection, found by the port that the kernel has chosen for it.

    The kernel chooses ports from 32768 on, even ones first, and those of one client in a row. What the node
    has asked for, and what other mirrors ask of it, have classes of their own: else most of these few would
    share that of a client.
    """
    on, largest = f"dev {interface}", _largest(bits)
    rule = f"filter add {on} parent 1: prio 1 protocol ip u32"
    yield f"qdisc add {on} root handle 1: htb default fff"
    whole = f"rate {bits}bit ceil {bits}bit burst {2 * largest} cburst {2 * largest}"
    yield f"class add {on} parent 1: classid 1:1 htb {whole}"
    for table in (2, 3):
        yield f"filter add {on} parent 1: prio 1 handle {table}: protocol ip u32 divisor {CLASSES}"
    # Next to nothing is a connection's own: what it sends is lent, by turns, within the rate of the line.
    share = f"rate 8kbit burst {SMALLEST} ceil {bits}bit cburst {largest} quantum {largest}"
    yield f"class add {on} parent 1:1 classid 1:fff htb {share}"
    for number in range(2 * CLASSES):
        name, table = 0x100 + number, 2 + number // CLASSES
        yield f"class add {on} parent 1:1 classid 1:{name:x} htb {share}"
        yield f"{rule} ht {table}:{number % CLASSES:x}: match u32 0 0 flowid 1:{name:x}"
    theirs, ours = "hashkey mask 0x000001fe at 20", "hashkey mask 0x01fe0000 at 20"
    yield f"{rule} ht 800:: match ip sport {PEERS_PORT} 0xffff {theirs} link 3:"
    yield f"{rule} ht 800:: match ip dport 0x8000 0x8000 {theirs} link 2:"
    yield f"{rule} ht 800:: match u32 0 0 {ours} link 3:"


def _traffic(interface: str) -> tuple[int, int]:
    with open("/proc/thread-self/net/dev") as table:
        for line in table:
            name, _, figures = line.partition(":")
            if name.strip() == interface:
                fields = figures.split()
                return int(fields[0]), int(fields[8])
    raise RuntimeError(f"no interface {interface}")


def _run(*command: str, text: str | None = None) -> str:
    env = {**os.environ, "PATH": SYSTEM_PATH}
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=False, env=env)
    if done.returncode != 0:
        raise OSError(f"{' '.join(command)}: {done.stderr.strip()}")
    return done.stdout
