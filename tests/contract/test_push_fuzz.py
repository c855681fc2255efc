"""Write paths under random requests: no status of a fault of ours, and nothing half pushed is visible."""

import asyncio
import json
import random
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from mirror.oci.digest import Digest
from tests.contract.hosting import hosting
from tests.contract.hosting import running as running  # a fixture
from tests.fakes.pusher import OCI, Pusher, chunked, descriptor, manifest_of
from tests.hosting import hosted_of
from tests.running import Running, serving
from tests.wire import Reply

LAYERS = [b"", b"a", b"layer" * 100, bytes(range(256)) * 300]
NAMES = ["office/app", "office/a/b", "office/UPPER", "office", "office/blobs/uploads", "hub.test/app"]
METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PURGE"]
TAGS = ["1", "latest", "-x", "a" * 129, "%00", ""]


class Fuzzer:
    """Maker of random requests, which remembers the sessions that it was given."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.sessions = ["x", "a" * 32]
        self.deletions: set[str] = set()  # paths of blobs that a request was to delete

    def pick(self, *choices: Any) -> Any:
        return self.random.choice(choices)

    def digest(self) -> str:
        data = self.pick(*LAYERS, b"{}")
        return str(self.pick(Digest.of(data), Digest.of(data, "sha512"), "sha256:x", "md5:0", ""))

    def path(self) -> str:
        query = self.pick(
            "", "", f"?digest={self.digest()}", f"?mount={self.digest()}", "?digest-algorithm=sha512"
        )
        if query.startswith("?mount"):
            query += self.pick("", f"&from={self.pick(*NAMES)}", "&from=%2e%2e")
        return f"/v2/{self.pick(*NAMES)}/" + str(
            self.pick(
                f"blobs/uploads/{query}",
                f"blobs/uploads/{self.pick(*self.sessions)}{query}",
                f"blobs/uploads/{self.pick(*self.sessions)}{query}",
                f"blobs/{self.digest()}",
                f"manifests/{self.pick(*TAGS, self.digest())}{self.pick('', '?tag=2&tag=3')}",
                "tags/list",
                f"referrers/{self.digest()}",
            )
        )

    def body(self) -> bytes:
        subject = self.pick({}, {"subject": descriptor(self.pick(*LAYERS), OCI)})
        manifest = manifest_of(self.random.sample(LAYERS, 2), **subject)
        odd: list[Any] = [
            [],
            {},
            {"schemaVersion": 2},
            {"layers": [descriptor(b"a")] * 9},
            {"config": 7},
            None,
        ]
        return bytes(self.pick(*LAYERS, b"{}", manifest, manifest[:-1], json.dumps(self.pick(*odd)).encode()))

    def headers(self) -> list[str]:
        found = [
            f"Content-Range: {self.pick('0-0', '0-9', '5-9', 'x', 'bytes 0-0/1', '9' * 30 + '-1')}",
            f"Content-Type: {self.pick(OCI, 'a/b', 'x', 'application/octet-stream')}",
            f"Range: bytes={self.pick('0-1', '-5', 'x')}",
            f"ns: {self.pick('office', 'x')}",
            f"OCI-Namespace: {self.pick('office', 'hub.test', 'x')}",
            "Registry-Mirror-Replica: 1",
        ]
        return self.random.sample(found, self.random.randrange(3))

    async def send(self, address: str) -> Reply | None:
        """Send a request over a connection of its own; return the reply, None where none is due."""
        method, path, body = self.pick(*METHODS), self.path(), self.body()
        framing = self.pick("length", "length", "chunked", "none", "short", "wrong chunks")
        headers = self.headers()
        if method == "DELETE" and "/blobs/sha" in path:
            self.deletions.add(path)
        sent = {"length": body, "chunked": chunked(body), "short": body[:-1], "wrong chunks": b"zz\r\n"}
        if framing in ("length", "short"):
            headers.append(f"Content-Length: {len(body)}")
        elif framing != "none":
            headers.append("Transfer-Encoding: chunked")
        async with await Pusher.open(address) as client:
            client.wire.send(method, path, headers)
            client.wire.writer.write(sent.get(framing, b""))
            if framing == "short":  # the client leaves in the middle
                client.wire.writer.write_eof()
            with suppress(EOFError, ConnectionError):
                reply = await client.wire.reply(method)
                if "docker-upload-uuid" in reply.headers:
                    self.sessions.append(reply.header("docker-upload-uuid"))
                return reply
        return None


@pytest.mark.parametrize(
    "count", [250, pytest.param(20_000, marks=[pytest.mark.nightly, pytest.mark.timeout(900)])]
)
async def test_random_pushes_find_no_fault_of_ours(running: Running, count: int) -> None:
    await fuzz(running, count)


RULED = {
    "name": "office",
    "hosts": ["office.lan"],
    "immutable_tags": ["latest"],
    "quota": "90KB",
    "max_blob": "80KB",
    "mirror_to": [{"url": "http://127.0.0.1:9", "deletes": True}],
}


@pytest.mark.parametrize(
    "count", [120, pytest.param(10_000, marks=[pytest.mark.nightly, pytest.mark.timeout(900)])]
)
async def test_random_pushes_into_a_small_registry_find_no_fault_of_ours(tmp_path: Path, count: int) -> None:
    """A quota, tags that never move, and another registry that is down."""
    async with serving(await hosting(tmp_path, hosted=[RULED])) as mirror:
        async with await Pusher.open(mirror.address) as pusher:
            first = await pusher.image("latest", b"a")
        await fuzz(mirror, count)
        async with await Pusher.open(mirror.address) as pusher:
            kept = await pusher.ask("HEAD", "manifests/latest")
        assert kept.header("docker-content-digest") == str(first)
        registry = hosted_of(mirror)
        assert (await registry.store.room.held(["office"]))["office"] <= 90_000


async def fuzz(running: Running, count: int) -> None:
    """Send random requests, ten at a time; then look at all that is visible."""
    fuzzer = Fuzzer(count)
    for _ in range(count // 10):
        for reply in await asyncio.gather(*(fuzzer.send(running.address) for _ in range(10))):
            assert reply is None or reply.status < 500, reply
    async with await Pusher.open(running.address) as pusher:
        for name in ("office/app", "office/a/b"):
            pusher.base = f"/v2/{name}"
            listed = await pusher.ask("GET", "tags/list")
            for tag in json.loads(listed.body).get("tags", ()):
                found = json.loads((await pusher.ask("GET", f"manifests/{tag}")).body)
                for each in (found["config"], *found["layers"]):
                    blob = await pusher.ask("GET", f"blobs/{each['digest']}")
                    if blob.status == 404:  # a client may delete what a manifest names
                        assert f"{pusher.base}/blobs/{each['digest']}" in fuzzer.deletions
                        continue
                    assert Digest.parse(each["digest"]) == Digest.of(blob.body)
    assert await running.service._store.upkeep.check() == []
