"""Bench of the tier: what its crowds count, its lines and partitions, and its table."""

import asyncio
import os
import socket
import time
from threading import Thread

import pytest

from tests.bench.tier.crowd import Found, Order, last, work
from tests.bench.tier.network import MBIT, Node, network
from tests.bench.tier.rows import ROWS, Figures, document, table
from tests.fakes.faults import Fault
from tests.fakes.registry import FakeRegistry

PORT = 5000

# Bits per second of a line, and bytes that take a second on it.
LINE, SECOND = 8 * MBIT, 1_000_000


def _order(fake: FakeRegistry, clients: int) -> tuple[Order, int]:
    """Return the order to pull an image that the fake has, and the bytes of one pull."""
    image = fake.add_image("library/app", "1", [b"first layer" * 1000, b"second layer" * 1000])
    paths = [f"/v2/library/app/blobs/{digest}" for digest in (image.config, *image.layers)]
    size = sum(len(fake.repository("library/app").blobs[path.rpartition("/")[2]]) for path in paths)
    address = fake.url.removeprefix("http://")
    return Order(address, clients, "/v2/library/app/manifests/1", paths), size


async def test_tier_crowd_counts_pulls_and_their_bytes(fake: FakeRegistry) -> None:
    """Each client pulls the whole image."""
    wanted, size = _order(fake, 5)
    found = await asyncio.to_thread(work, wanted)
    assert (found.failures, len(found.seconds), found.bytes) == ([], 5, 5 * size)
    assert last([found]) == max(found.seconds) >= max(found.first) > 0


async def test_tier_crowd_fails_pulls_that_break(fake: FakeRegistry) -> None:
    """A body that breaks off fails its pull, and no other."""
    wanted, size = _order(fake, 3)
    fake.fault(Fault(cut_at=5), match=wanted.blobs[1].rpartition("/")[2])
    found = await asyncio.to_thread(work, wanted)
    assert (len(found.failures), len(found.seconds), found.bytes) == (1, 2, 2 * size)


async def test_tier_crowd_fails_a_pull_of_wrong_bytes(fake: FakeRegistry) -> None:
    """The first client hashes what it receives."""
    wanted, _ = _order(fake, 1)
    blobs = fake.repository("library/app").blobs
    name = wanted.blobs[1].rpartition("/")[2]
    blobs[name] = bytes(len(blobs[name]))
    found = await asyncio.to_thread(work, wanted)
    assert len(found.failures) == 1
    assert "wrong bytes" in found.failures[0]


def _serve(node: Node, size: int) -> socket.socket:
    """Send `size` bytes to each client of the node."""
    with node.inside():
        listener = socket.create_server((node.address, PORT))

    def send() -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            with client:
                client.sendall(bytes(size))

    Thread(target=send, daemon=True).start()
    return listener


@pytest.mark.needs("ip", root=True)
def test_tier_lines_have_their_rate() -> None:
    """A megabyte takes a second over 8 Mbit/s at least; the thread is back where it was at the end."""
    outside = os.readlink("/proc/thread-self/ns/net")
    with network() as switch, switch.node(LINE) as one, switch.node() as other:
        assert os.readlink("/proc/thread-self/ns/net") != outside
        listener, started = _serve(one, SECOND), time.monotonic()
        with other.inside():
            client = socket.create_connection((one.address, PORT), timeout=60)
        with client:
            received = 0
            while data := client.recv(65536):
                received += len(data)
        assert received == SECOND
        assert time.monotonic() - started > 0.9
        assert one.traffic[1] > SECOND
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
    assert os.readlink("/proc/thread-self/ns/net") == outside


@pytest.mark.needs("ip", root=True)
def test_tier_nodes_that_are_parted_hear_nothing_of_each_other() -> None:
    """Packets vanish between two nodes, and between no others."""
    with network() as switch, switch.node() as one, switch.node() as other, switch.node() as third:
        listener = _serve(one, 1)
        other.lose(one)
        with other.inside(), pytest.raises(TimeoutError):
            socket.create_connection((one.address, PORT), timeout=0.2)
        for node in (third, other):
            other.find(one)
            with node.inside():
                socket.create_connection((one.address, PORT), timeout=60).close()
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()


def test_tier_table_compares_with_goals() -> None:
    """Each row that has figures is in the table, with its goal and whether it is reached."""
    figures = Figures()
    for value in (1.0, 1.2, 1.1):
        figures.add("herd-last", value)
    figures.add("lines-8", 7.2)
    figures.add("herd-alone", 30.0)
    figures.note("a note")
    figures.note("a note")
    assert table(figures, {"cores": "2"}).splitlines() == [
        "| work | found | goal | reached |",
        "| --- | --- | --- | --- |",
        "| same, one mirror with 50 clients: last client s | 30.0 | - | - |",
        "| same, by one mirror with 50 clients | 1.10 (1.00..1.20) | at most 1.15 | yes |",
        "| warm bytes of 8 mirrors, by those of one | 7.20 | at least 7.5 | no |",
        "",
        "cores 2.",
        "- a note",
    ]
    rows = document(figures, {})["rows"]
    assert [row["key"] for row in rows] == ["herd-alone", "herd-last", "lines-8"]


def test_tier_rows_are_unique() -> None:
    """No figure is in two rows."""
    keys = [row.key for row in ROWS]
    assert len(keys) == len(set(keys))


def test_tier_last_client_is_that_of_all_crowds() -> None:
    """The last client counts, of whichever mirror."""
    crowds = [Found([1.0, 3.0], [], [], 0, 0.0), Found([2.0], [], [], 0, 0.0), Found([], [], ["x"], 0, 0.0)]
    assert last(crowds) == 3.0
