"""Cheap clients: blocking sockets whose received bytes are not copied, and wrk for small responses."""

import hashlib
import re
import socket
import ssl
import subprocess
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from mirror.oci.manifest import DOCKER_LIST, DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST
from tests.bench.content import Blob
from tests.bench.contestants import Running

ACCEPT = ", ".join((DOCKER_MANIFEST, DOCKER_LIST, OCI_MANIFEST, OCI_INDEX))
BUFFER = 512 * 1024
TIMEOUT = 120.0

# Buffer of receive calls that discard; nothing is written to it.
NOWHERE = bytearray(BUFFER)


class Trouble(Exception):
    """Wrong response: the contestant has no figure then."""


class Connection:
    """One HTTP/1.1 connection. `tls`: encrypted; `receive`: size of the receive buffer in bytes.

    `timeout`: limit in seconds for each call.
    """

    def __init__(
        self, address: str, tls: ssl.SSLContext | None = None, receive: int = 0, timeout: float = TIMEOUT
    ) -> None:
        host, _, port = address.rpartition(":")
        self.address = address
        self._tls = tls
        self._buffer = bytearray()
        self.socket = socket.socket()
        self.socket.settimeout(timeout)
        if receive:  # before the connection, which announces it
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            self.socket.connect((host, int(port)))
        except OSError:
            self.socket.close()
            raise
        if tls is not None:
            self.socket = tls.wrap_socket(self.socket, server_hostname=host)

    def ask(self, path: str, headers: Mapping[str, str]) -> tuple[int, dict[str, str], bytes]:
        """Send a GET; return status, headers in lower case, and the first bytes of the body."""
        lines = [f"GET {path} HTTP/1.1", f"Host: {self.address}", f"Accept: {ACCEPT}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        self.socket.sendall("\r\n".join([*lines, "", ""]).encode())
        data = b""
        while b"\r\n\r\n" not in data:
            more = self.socket.recv(65536)
            if not more:
                raise Trouble("closed without a response")
            data += more
        head, _, rest = data.partition(b"\r\n\r\n")
        status, *fields = head.decode("latin-1").split("\r\n")
        pairs = (each.partition(":") for each in fields)
        return int(status.split()[1]), {name.lower(): value.strip() for name, _, value in pairs}, rest

    def read(self) -> memoryview:
        """Receive bytes into a buffer that the next read overwrites. Trouble at the end of the connection."""
        self._buffer = self._buffer or bytearray(BUFFER)
        count = self.socket.recv_into(self._buffer)
        if count == 0:
            raise Trouble("short body")
        return memoryview(self._buffer)[:count]

    def skip(self) -> int:
        """Have the kernel discard received bytes, so that the load is not the limit; return their number."""
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
    """Finished GET. `first`, `whole`: seconds from the request to the first and last byte of the body."""

    size: int
    first: float
    whole: float
    digest: str = ""


def fetch(server: Running, path: str, verify: bool = False, timeout: float = TIMEOUT) -> Fetched:
    """GET on new connections, with one redirect followed. Trouble when the body is not complete."""
    started = time.perf_counter()
    connection = Connection(server.address, server.tls, timeout=timeout)
    try:
        status, headers, rest = connection.ask(path, server.headers)
        if status == 307:
            connection.close()
            address, _, beyond = headers["location"].partition("://")[2].partition("/")
            connection = Connection(address, server.tls, timeout=timeout)
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
        raise Trouble("a response without Content-Length")
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
    """Fetch every path in order, `at_a_time` in parallel."""
    with ThreadPoolExecutor(at_a_time) as pool:
        return list(pool.map(lambda path: fetch(server, path), paths))


def throughput(server: Running, path: str, connections: int, seconds: float) -> float:
    """Return bytes per second, of complete and begun bodies, over `connections` for `seconds`."""
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
    """Rate in requests per second, and the 99th percentile of their times in milliseconds."""

    rate: float
    p99: float


UNITS = {"us": 0.001, "ms": 1.0, "s": 1000.0, "m": 60_000.0}


# Requests for a part of RANGE bytes anywhere in a blob; wrk gives its arguments behind "--" to `init`.
RANGE = 1024
RANGES = """
init = function(arguments) size = tonumber(arguments[1]); length = tonumber(arguments[2]) end
request = function()
  local first = math.random(0, size - length)
  return wrk.format(nil, nil, {["Range"] = string.format("bytes=%d-%d", first, first + length - 1)})
end
"""


def wrk_ranges(server: Running, blob: Blob, script: Path, connections: int, seconds: float) -> Small:
    """Run wrk as `wrk` does, each request for another RANGE bytes of the blob; `script`: a new file."""
    script.write_text(RANGES)
    more = ["--", str(blob.size), str(RANGE)]
    return wrk(server, blob.path, connections, seconds, ["-s", str(script)], more)


def wrk(
    server: Running,
    path: str,
    connections: int,
    seconds: float,
    options: Sequence[str] = (),
    more: Sequence[str] = (),
) -> Small:
    """Run wrk with one thread; `more`: behind the address.

    Trouble when a response was not 2xx, or a connection failed.
    """
    load = ["-t1", f"-c{connections}", f"-d{seconds:.0f}s", "--timeout", "30s", "--latency", *options]
    command = ["wrk", *load, "-H", f"Accept: {ACCEPT}", f"http://{server.address}{path}", *more]
    output = subprocess.run(command, capture_output=True, text=True, check=True, timeout=seconds + 60).stdout
    for line in ("Non-2xx", "Socket errors"):
        if line in output:
            raise Trouble(output[output.index(line) :].splitlines()[0])
    rate = re.search(r"Requests/sec:\s+([\d.]+)", output)
    p99 = re.search(r"99%\s+([\d.]+)([a-z]+)", output)
    if rate is None or p99 is None:
        raise Trouble(f"unexpected output of wrk: {output}")
    if float(rate[1]) == 0:
        raise Trouble(f"no response in {seconds:g} s")
    return Small(float(rate[1]), float(p99[1]) * UNITS[p99[2]])
