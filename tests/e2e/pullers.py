"""python -m tests.e2e.pullers: many clients of one blob, whose bytes the kernel discards.

It reads an order as one line of JSON, and prints how many of its pulls have failed. Each client goes on at
the next mirror when one fails, as containerd does with several hosts. Bytes are counted only: clients beside
these hash theirs.
"""

import json
import sys
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass

from tests.bench.client import Connection, Trouble

# How often a client goes on at another mirror.
TRIES = 8


@dataclass(frozen=True)
class Order:
    """Work: so many `clients` of all `addresses` pull the blob at `path`, which has `size` bytes."""

    addresses: Sequence[str]
    path: str
    size: int
    clients: int
    timeout: float


def pull(order: Order, number: int) -> bool:
    """Pull the blob, from one mirror after the other if need be; return whether all of it came."""
    length = 0
    for attempt in range(TRIES):
        address = order.addresses[(number + attempt) % len(order.addresses)]
        with suppress(OSError, Trouble):
            connection = Connection(address, timeout=order.timeout)
            try:
                status, _, rest = connection.ask(order.path, {"Range": f"bytes={length}-"})
                if status != 206:
                    continue
                length += len(rest)
                while length < order.size:
                    length += connection.skip()
            finally:
                connection.close()
        if length == order.size:
            return True
    return False


def main() -> None:
    """Serve one order."""
    threading.stack_size(256 * 1024)  # of some hundred threads
    order = Order(**json.loads(sys.stdin.readline()))
    with ThreadPoolExecutor(max(1, order.clients)) as pool:
        whole = list(pool.map(lambda number: pull(order, number), range(order.clients)))
    print(whole.count(False))


if __name__ == "__main__":
    main()
