"""Clients that cost little: blocking sockets whose bytes nobody copies; and wrk for small answers."""

import hashlib
import re
import socket
import ssl
import subprocess
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from mirror.oci.manifest import DOCKER_LIST, DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST
from tests.bench.contestants import Running

ACCEPT = ", ".join((DOCKER_MANIFEST, DOCKER_LIST, OCI_MANIFEST, OCI_INDEX))
BUFFER = 512 * 1024
TIMEOUT = 120.0

# Nothing is ever written here.
NOWHERE = bytearray(BUFFER)


class Trouble(Exception):
    """An answer that is not what was asked for: the contestant has no figure then."""


class Connection:
    """One HTTP/1.1 connection. `tls`: encrypted; `receive`: with a receive buffer of so many bytes."""

    def __init__(self, address: str, tls: ssl.SSLContext | None = None, receive: int = 0) -> None:
        host, _, port = address.rpartition(":")
        self.address = address
        self._tls = tls
        self._buffer = bytearray()
        self.socket = socket.socket()
        self.socket.settimeout(TIMEOUT)
        if receive:  # before the connection, which announces it
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.connect((host, int(port)))
        if tls is not None:
            self.socket = tls.wrap_socket(self.socket, server_hostname=host)

    def ask(self, path: str, headers: Mapping[str, str]) -> tuple[int, dict[str, str], bytes]:
        """Status, headers in lower case, and what of the body came with them."""
        lines = [f"GET {path} HTTP/1.1", f"Host: {self.address}", f"Accept: {ACCEPT}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        self.socket.sendall("\r\n".join([*lines, "", ""]).encode())
        data = b""
        while b"\r\n\r\n" not in data:
            more = self.socket.recv(65536)
            if not more:
                raise Trouble("closed instead of an answer")
            data += more
        head, _, rest = data.partition(b"\r\n\r\n")
        status, *fields = head.decode("latin-1").split("\r\n")
        pairs = (each.partition(":") for each in fields)
        return int(status.split()[1]), {name.lower(): value.strip() for name, _, value in pairs}, rest

    def read(self) -> memoryview:
        """What has come, in a buffer that the next read overwrites. Trouble when it has ended."""
        self._buffer = self._buffer or bytearray(BUFFER)
        count = self.socket.recv_into(self._buffer)
        if count == 0:
            raise Trouble("short body")
        return memoryview(self._buffer)[:count]

    def skip(self) -> int:
        """The size of what has come, which the kernel throws away: the load must not be the limit."""
        if self._tls is not None:
            return len(self.read())
        count = self.socket.recv_into(NOWHERE, BUFFER, socket.MSG_TRUNC)
        if count == 0:
            raise Trouble("short body")
        return count

    def close(self) -> None:
        self.socket.close()


@dataclass(frozen=True)
class Fetched:
    """`first` and `whole`: seconds from the request to the first byte of the body, and to the last."""

    size: int
    first: float
    whole: float
    digest: str = ""


def fetch(server: Running, path: str, verify: bool = False) -> Fetched:
    """GET with one redirect followed, on new connections. Trouble when it is not whole."""
    started = time.perf_counter()
    connection = Connection(server.address, server.tls)
    try:
        status, headers, rest = connection.ask(path, server.headers)
        if status == 307:
            connection.close()
            address, _, beyond = headers["location"].removeprefix("http://").partition("/")
            connection = Connection(address)
            status, headers, rest = connection.ask(f"/{beyond}", {})
        if status != 200:
            raise Trouble(f"{status} {rest[:200]!r}")
        return _body(connection, _length(headers), rest, started, verify)
    except OSError as error:
        raise Trouble(str(error) or type(error).__name__) from error
    finally:
        connection.close()


def _length(headers: Mapping[str, str]) -> int:
    if "content-length" not in headers:
        raise Trouble("an answer that does not say how long it is")
    return int(headers["content-length"])


def _body(connection: Connection, size: int, rest: bytes, started: float, verify: bool) -> Fetched:
    hasher = hashlib.sha256(rest)
    done, first = len(rest), time.perf_counter() if rest else 0.0
    while done < size:
        if verify:
            data = connection.read()
            hasher.update(data)
            done += len(data)
        else:
            done += connection.skip()
        first = first or time.perf_counter()
    whole = time.perf_counter() - started
    return Fetched(done, first - started, whole, f"sha256:{hasher.hexdigest()}" if verify else "")


def fetch_all(server: Running, paths: Sequence[str], at_a_time: int) -> list[Fetched]:
    """Every path, so many at a time, in order."""
    with ThreadPoolExecutor(at_a_time) as pool:
        return list(pool.map(lambda path: fetch(server, path), paths))


def throughput(server: Running, path: str, connections: int, seconds: float) -> float:
    """Bytes per second, of whole and begun bodies, over so many connections for so long."""
    started = time.perf_counter()
    end = started + seconds
    with ThreadPoolExecutor(connections) as pool:
        counts = pool.map(lambda _: _read_until(server, path, end), range(connections))
        return sum(counts) / (time.perf_counter() - started)


def _read_until(server: Running, path: str, end: float) -> int:
    connection = Connection(server.address, server.tls)
    total = 0
    try:
        while time.perf_counter() < end:
            status, headers, rest = connection.ask(path, server.headers)
            if status != 200:
                raise Trouble(f"{status} {rest[:200]!r}")
            left = _length(headers) - len(rest)
            total += len(rest)
            while left and time.perf_counter() < end:
                count = connection.skip()
                left -= count
                total += count
    finally:
        connection.close()
    return total


@dataclass(frozen=True)
class Small:
    """Requests per second, and the 99th percentile of their times in milliseconds."""

    rate: float
    p99: float


UNITS = {"us": 0.001, "ms": 1.0, "s": 1000.0, "m": 60_000.0}


def wrk(server: Running, path: str, connections: int, seconds: float) -> Small:
    """wrk with one thread. Trouble when an answer was not 2xx, or a connection failed."""
    load = ["-t1", f"-c{connections}", f"-d{seconds:.0f}s", "--timeout", "30s", "--latency"]
    command = ["wrk", *load, "-H", f"Accept: {ACCEPT}", f"http://{server.address}{path}"]
    said = subprocess.run(command, capture_output=True, text=True, check=True, timeout=seconds + 60).stdout
    for line in ("Non-2xx", "Socket errors"):
        if line in said:
            raise Trouble(said[said.index(line) :].splitlines()[0])
    rate = re.search(r"Requests/sec:\s+([\d.]+)", said)
    p99 = re.search(r"99%\s+([\d.]+)([a-z]+)", said)
    if rate is None or p99 is None:
        raise Trouble(f"wrk said: {said}")
    return Small(float(rate[1]), float(p99[1]) * UNITS[p99[2]])
