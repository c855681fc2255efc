"""Clients that abuse a server, each kind in a process of its own, at a lower priority than the probe.

A process prints "ready" when the probe may begin, abuses until its input ends, and then prints a number: idle
connections that were opened, names that were answered, for the others requests that were sent.
"""

import asyncio
import json
import os
import subprocess
import sys
import threading
import zlib
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from resource import RLIMIT_NOFILE, getrlimit, setrlimit
from socket import SO_RCVBUF, SOL_SOCKET, create_connection, socket

from tests.bench.client import ACCEPT

NICENESS = 5

# Limit in seconds for one call of an abuser, and for its end.
TIMEOUT, PATIENCE = 5.0, 60.0

# Clients that ask and leave: so many are connected at a time.
ASKING = 100

# Bytes per second of a slow reader, read ten times a second, and its receive buffer.
RATE, TURNS, RECEIVE_BUFFER = 10_000, 10, 65536

# MiB of zeros in a compressed body, which is about 1 MB. One client in three sends an endless body instead.
ZEROS = 1024
THIRD = 3
PIECE = b"10000\r\n" + bytes(0x10000) + b"\r\n"

# Clients that share the names of each second.
NAME_CONNECTIONS = 64


@dataclass(frozen=True)
class Abuse:
    """One kind of abuse. `count`: connections or clients, or names per second."""

    kind: str
    address: str
    paths: Sequence[str]
    count: int

    def connect(self, number: int = 0, receive: int = 0) -> socket:
        """Return a new connection, from one of 250 addresses of loopback, so that ports suffice."""
        host, _, port = self.address.rpartition(":")
        if not receive:
            return create_connection((host, int(port)), TIMEOUT, (_address(number), 0))
        made = socket()
        made.setsockopt(SOL_SOCKET, SO_RCVBUF, receive)
        made.settimeout(TIMEOUT)
        made.bind((_address(number), 0))
        made.connect((host, int(port)))
        return made

    def request(self, path: str, *headers: str) -> bytes:
        lines = [f"GET {path} HTTP/1.1", f"Host: {self.address}", f"Accept: {ACCEPT}", *headers, "", ""]
        return "\r\n".join(lines).encode()

    def path(self, number: int) -> str:
        return self.paths[number % len(self.paths)]


class Abuser:
    """A running abuse; `result` is its number, once it has ended."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process
        self.result = 0

    def wait_ready(self) -> None:
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "ready\n", "abusers did not start"

    def end(self) -> None:
        self.result = int(self._process.communicate(timeout=PATIENCE)[0])


@contextmanager
def abusing(abuse: Abuse) -> Iterator[Abuser]:
    """Abuse a server until the block ends."""
    command = [sys.executable, "-m", "tests.bench.abusers", json.dumps(asdict(abuse))]
    folder = Path(__file__).parents[2]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=folder, stdin=pipe, stdout=pipe, text=True) as process:
        abuser = Abuser(process)
        try:
            abuser.wait_ready()
            yield abuser
            abuser.end()
        finally:
            process.kill()


def idle(abuse: Abuse, over: threading.Event) -> int:
    """Open connections, of which every second one sends a request first, and do nothing more with them."""
    opened = list[socket]()
    with suppress(OSError):
        while len(opened) < abuse.count and not over.is_set():
            opened.append(abuse.connect(len(opened)))
            if len(opened) % 2:
                opened[-1].sendall(abuse.request("/v2/"))
    _ready()
    over.wait()
    for connection in opened:
        connection.close()
    return len(opened)


def leave(abuse: Abuse, over: threading.Event) -> int:
    """Ask for cold blobs and leave. Every second client asks for a digest that does not exist."""
    _ready()
    asking, sent = deque[socket](), 0
    while sent < abuse.count and not over.is_set():
        path = abuse.path(sent // 2)
        if sent % 2:
            path = f"{path[:-64]}{sent:064x}"
        with suppress(OSError):
            asking.append(abuse.connect(sent))
            asking[-1].sendall(abuse.request(path))
        sent += 1
        if len(asking) > ASKING:
            asking.popleft().close()
    for connection in asking:
        connection.close()
    over.wait()
    return sent


def read_slowly(abuse: Abuse, over: threading.Event) -> int:
    """Read blobs far slower than any line is."""
    _ready()
    readers = list[socket]()
    while len(readers) < abuse.count and not over.is_set():
        with suppress(OSError):
            readers.append(abuse.connect(len(readers), RECEIVE_BUFFER))
            readers[-1].sendall(abuse.request(abuse.path(len(readers))))
            readers[-1].setblocking(False)
    while not over.wait(1 / TURNS):
        for reader in readers:
            with suppress(OSError):
                reader.recv(RATE // TURNS)
    return len(readers)


def send_bodies(abuse: Abuse, over: threading.Event) -> int:
    """Send requests with a compressed body, and with a body that does not end."""
    body = compressed_zeros(ZEROS)
    head = abuse.request(abuse.path(0), "Content-Encoding: gzip", f"Content-Length: {len(body)}")
    endless = abuse.request(abuse.path(0), "Transfer-Encoding: chunked")

    def compressed() -> None:
        with abuse.connect() as connection:
            connection.sendall(head)
            connection.sendall(body)
            while connection.recv(65536):
                pass

    def without_end() -> None:
        with abuse.connect() as connection:
            connection.sendall(endless)
            while not over.is_set():
                connection.sendall(PIECE)

    _ready()
    works = [compressed if number % THIRD else without_end for number in range(abuse.count)]
    return _repeat(works, over)


def compressed_zeros(mebibytes: int) -> bytes:
    """Return so many MiB of zeros as gzip, which takes a thousandth of them."""
    compressor = zlib.compressobj(9, wbits=31)
    zeros = bytes(1024 * 1024)
    return b"".join([*(compressor.compress(zeros) for _ in range(mebibytes)), compressor.flush()])


def ask_for_indexes(abuse: Abuse, over: threading.Event) -> int:
    """Pull huge indexes, each one cold at first."""
    numbers = iter(range(10**9))

    def pull() -> None:
        with abuse.connect() as connection:
            connection.sendall(abuse.request(abuse.path(next(numbers)), "Connection: close"))
            while connection.recv(1 << 20):
                pass

    _ready()
    return _repeat([pull] * abuse.count, over)


def _repeat(works: Sequence[Callable[[], None]], over: threading.Event) -> int:
    """Repeat each work in a thread of its own; return how often work was begun."""
    counts = [0] * len(works)

    def repeat(number: int) -> None:
        while not over.is_set():
            counts[number] += 1
            with suppress(OSError):
                works[number]()

    threads = [threading.Thread(target=repeat, args=(number,), daemon=True) for number in range(len(works))]
    for thread in threads:
        thread.start()
    over.wait()
    return sum(counts)


def ask_for_names(abuse: Abuse, over: threading.Event) -> int:
    """Ask for manifests of unique names, so many per second if the server answers so many."""
    _ready()
    return asyncio.run(_names(abuse, over))


async def _names(abuse: Abuse, over: threading.Event) -> int:
    loop = asyncio.get_running_loop()
    started, asked, answered = loop.time(), 0, 0

    async def client() -> None:
        nonlocal asked, answered
        host, _, port = abuse.address.rpartition(":")
        reader, writer = await asyncio.open_connection(host, int(port), local_addr=(_address(0), 0))
        try:
            while not over.is_set():
                asked += 1
                number = asked  # others count on while this one waits
                await asyncio.sleep(started + number / abuse.count - loop.time())
                path = f"/v2/library/{os.getpid()}-{number}/manifests/latest"
                writer.write(abuse.request(path))
                refused = await _response(reader)
                answered += refused
        finally:
            writer.close()

    async def clients() -> None:
        while not over.is_set():
            with suppress(OSError, EOFError, ValueError, asyncio.LimitOverrunError):
                await client()

    running = [asyncio.ensure_future(clients()) for _ in range(NAME_CONNECTIONS)]
    await asyncio.to_thread(over.wait)
    for task in running:
        task.cancel()
    await asyncio.gather(*running, return_exceptions=True)
    return answered


async def _response(reader: asyncio.StreamReader) -> bool:
    """Read a response; return whether it says that the name is unknown, or is not to be had."""
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    status = int(head.split(b" ", 2)[1])
    _, announced, rest = head.partition(b"\r\ncontent-length:")
    if not announced:
        raise EOFError("no length: the connection ends")
    await reader.readexactly(int(rest.split(b"\r\n", 1)[0]))
    return 400 <= status < 500 and status != 429


KINDS: dict[str, Callable[[Abuse, threading.Event], int]] = {
    "idle": idle,
    "leave": leave,
    "slow": read_slowly,
    "body": send_bodies,
    "names": ask_for_names,
    "index": ask_for_indexes,
}


def _address(number: int) -> str:
    """Return an address of an abuser: not that of the probe, who is another client."""
    return f"127.0.0.{2 + number % 250}"


def _ready() -> None:
    print("ready", flush=True)


def _end_with_input(over: threading.Event) -> None:
    sys.stdin.read()
    over.set()


def main() -> None:
    os.nice(NICENESS)
    hard = getrlimit(RLIMIT_NOFILE)[1]
    setrlimit(RLIMIT_NOFILE, (hard, hard))
    abuse = Abuse(**json.loads(sys.argv[1]))
    over = threading.Event()
    threading.Thread(target=_end_with_input, args=(over,), daemon=True).start()
    print(KINDS[abuse.kind](abuse, over), flush=True)
    os._exit(0)  # without waiting for threads that still send


if __name__ == "__main__":
    main()
