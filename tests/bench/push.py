"""Pushes: a large blob in two ways, many at once, and manifests, beside docker-registry on the same disk."""

import asyncio
import hashlib
import json
import socket
import time
from collections.abc import Iterator

from tests.bench.bench import Bench
from tests.bench.client import Trouble
from tests.bench.contestants import MIRROR, REGISTRY, Running
from tests.bench.machine import cpu_seconds, rss_bytes, until_idle
from tests.fakes.pusher import OCI, joined, manifest_of
from tests.wire import Wire, request_head

CONFIG = """
[[hosted]]
name = "office"

[[rule]]
name = "everybody pushes"
effect = "allow"
networks = ["127.0.0.1"]
actions = ["push"]
"""

# Bytes of one write of the client: as Docker sends chunks, and as files are sent.
CHUNK, WRITE = 32 * 1024, 1024 * 1024

# Manifests, and connections that push them; uploads at once, and the size of each.
MANIFESTS, CONNECTIONS = 2000, 16
UPLOADS, UPLOAD_BYTES = 50, 24 * 1024 * 1024


def push_gib(bench: Bench) -> None:
    """Measure 1 GiB with a length and in chunks, each of its own content, then the memory of many uploads."""
    size = (1024 if not bench.options.quick else 64) * 1024 * 1024
    with bench.origin() as origin:
        for name in bench.turns(MIRROR, REGISTRY):
            with bench.attempt("push-gib", name), bench.cold(name, origin, CONFIG) as server:
                for row, chunked in (("push-gib", False), ("push-gib-chunked", True)):
                    until_idle(server.pid)
                    before, started = cpu_seconds(server.pid), time.perf_counter()
                    _push(server, size, chunked=chunked)
                    bench.add(row, name, size / 1024**2 / (time.perf_counter() - started))
                    used = cpu_seconds(server.pid) - before
                    bench.add(f"{row}-cpu", name, used / (size / 1e9))
                bench.add("push-memory", name, asyncio.run(_memory(server)) / 1024**2)


def push_small(bench: Bench) -> None:
    """Measure manifests of one image under tags of their own, over some connections."""
    count = 200 if bench.options.quick else MANIFESTS
    with bench.origin() as origin:
        for name in bench.turns(MIRROR, REGISTRY):
            with bench.attempt("push-small", name), bench.cold(name, origin, CONFIG) as server:
                before = cpu_seconds(server.pid)
                bench.add("push-small", name, asyncio.run(_manifests(server, count)))
                used = cpu_seconds(server.pid) - before
                bench.add("push-small-cpu", name, used / count * 1e6)


def _pieces(size: int, seed: int) -> Iterator[bytes]:
    """Yield a blob in pieces that differ, which cost the client little."""
    noise = hashlib.shake_256(str(seed).encode()).digest(WRITE)
    for number in range(size // WRITE):
        yield number.to_bytes(8, "big") + noise[8:]


def _push(server: Running, size: int, *, chunked: bool) -> None:
    """Push one blob as fast as the server takes it. The digest is known before."""
    seed = int(chunked)
    hash_ = hashlib.sha256()
    for piece in _pieces(size, seed):
        hash_.update(piece)
    host, _, port = server.address.rpartition(":")
    with socket.create_connection((host, int(port))) as client:
        location = _ask(client, "POST", "/v2/office/big/blobs/uploads/", ["Content-Length: 0"], 202)
        framing = "Transfer-Encoding: chunked" if chunked else f"Content-Length: {size}"
        client.sendall(request_head("PATCH", location, [framing]))
        for piece in _pieces(size, seed):
            client.sendall(_in_chunks(piece) if chunked else piece)
        location = _ask(client, "", "", [], 202, data=b"0\r\n\r\n" if chunked else b"")
        query = f"{joined(location)}digest=sha256:{hash_.hexdigest()}"
        _ask(client, "PUT", location + query, ["Content-Length: 0"], 201)


def _in_chunks(piece: bytes) -> bytes:
    parts = (piece[at : at + CHUNK] for at in range(0, len(piece), CHUNK))
    return b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts)


def _ask(
    client: socket.socket, method: str, path: str, headers: list[str], status: int, data: bytes = b""
) -> str:
    """Send a request, or the rest of one, and return the path of its Location."""
    client.sendall(request_head(method, path, headers) if method else data)
    head = b""
    while b"\r\n\r\n" not in head:
        received = client.recv(65536)
        if not received:
            raise Trouble(f"{method} {path}: the connection ended")
        head += received
    if int(head.split(b" ", 2)[1]) != status:
        raise Trouble(f"{method} {path}: {head[:500]!r}")
    lines = head.decode("latin-1").split("\r\n")
    found = next((line for line in lines if line.lower().startswith("location:")), ":")
    return _path_of(found.partition(":")[2].strip())


def _path_of(location: str) -> str:
    return location if location.startswith("/") else "/" + location.partition("://")[2].partition("/")[2]


async def _memory(server: Running) -> float:
    """Return the most bytes of memory that the server has while many uploads run."""
    most, running = 0, True

    async def watch() -> None:
        nonlocal most
        while running:
            most = max(most, rss_bytes(server.pid))
            await asyncio.sleep(0.05)

    watching = asyncio.ensure_future(watch())
    await asyncio.gather(*(_upload(server, number) for number in range(UPLOADS)))
    running = False
    await watching
    return most


async def _upload(server: Running, number: int) -> None:
    async with await Wire.open(server.address) as wire:
        wire.send("POST", f"/v2/office/many{number}/blobs/uploads/", ["Content-Length: 0"])
        begun = await wire.reply("POST")
        wire.send("PATCH", _path_of(begun.header("location")), [f"Content-Length: {UPLOAD_BYTES}"])
        for piece in _pieces(UPLOAD_BYTES, number):
            wire.writer.write(piece)
            await wire.writer.drain()
        if (await wire.reply("PATCH")).status != 202:
            raise Trouble("an upload was refused")


async def _manifests(server: Running, count: int) -> float:
    """Push manifests that differ; return how many per second."""
    async with await Wire.open(server.address) as wire:
        wire.send("POST", "/v2/office/app/blobs/uploads/", ["Content-Length: 0"])
        location = _path_of((await wire.reply("POST")).header("location"))
        digest = f"sha256:{hashlib.sha256(b'{}').hexdigest()}"
        wire.send("PUT", f"{location}{joined(location)}digest={digest}", ["Content-Length: 2"])
        wire.writer.write(b"{}")
        if (await wire.reply("PUT")).status != 201:
            raise Trouble("the config was refused")
    left = iter(range(count))
    started = time.perf_counter()
    await asyncio.gather(*(_pusher(server, left) for _ in range(CONNECTIONS)))
    return count / (time.perf_counter() - started)


async def _pusher(server: Running, left: Iterator[int]) -> None:
    async with await Wire.open(server.address) as wire:
        for number in left:
            data = manifest_of([], annotations={"number": json.dumps(number)})
            head = [f"Content-Length: {len(data)}", f"Content-Type: {OCI}"]
            wire.writer.write(request_head("PUT", f"/v2/office/app/manifests/t{number}", head) + data)
            reply = await wire.reply("PUT")
            if reply.status != 201:
                raise Trouble(f"a manifest was refused: {reply.body[:200]!r}")
