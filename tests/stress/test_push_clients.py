"""Every night: a client's pushes to two workers that are killed, and a layer of five gigabytes."""

import asyncio
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import tarfile
from contextlib import suppress
from pathlib import Path

import pytest

from mirror.oci.digest import Digest
from tests.e2e.matrix.tools import Command, tool
from tests.e2e.mirror import PROGRAM, Mirror
from tests.e2e.processes import attempt, run
from tests.fakes.pusher import LAYER, Pusher, descriptor, manifest_of
from tests.pinned import pinned
from tests.wire import request_head

pytestmark = [pytest.mark.nightly, pytest.mark.timeout(3600)]

CONFIG = """
[server]
workers = 2

[[hosted]]
name = "office"

[[rule]]
name = "all"
effect = "allow"
networks = ["127.0.0.1"]
actions = ["push", "delete"]
"""

ROUNDS = int(os.environ.get("PUSH_KILLS", "100"))

MIB = 1024 * 1024
LARGE = 5120 * MIB


def started(folder: Path) -> Mirror:
    config = folder / "mirror.toml"
    config.write_text(CONFIG)
    return Mirror(folder / "mirror", "http://127.0.0.1:9", "--config", config)


def layer_file(folder: Path, data: bytes) -> Path:
    """A layer, as a tar, with a file of these bytes."""
    (folder / "content").write_bytes(data)
    with tarfile.open(folder / "layer.tar", "w") as archive:
        archive.add(folder / "content", "content")
    return folder / "layer.tar"


def kill_a_worker(mirror: Mirror, random_: random.Random) -> None:
    children = Path(f"/proc/{mirror.pid}/task/{mirror.pid}/children").read_text().split()
    with suppress(ProcessLookupError, IndexError):
        os.kill(int(random_.choice(children)), signal.SIGKILL)


def test_client_pushes_again_after_kills_at_random_moments(tmp_path: Path) -> None:
    """The second push of crane succeeds, the image is whole, and stays so."""
    if not pinned()["crane"].installed:
        pytest.skip("crane is not installed")
    random_, crane = random.Random(2), tool("crane")
    mirror = started(tmp_path)
    mirror.start()
    try:
        for number in range(ROUNDS):
            layer = layer_file(tmp_path, random_.randbytes(3 * MIB))
            image = f"{mirror.address}/office/app:v{number}"
            push: Command = [crane, "append", "--insecure", "--oci-empty-base", "-f", layer, "-t", image]
            pushing = subprocess.Popen(push, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            with suppress(subprocess.TimeoutExpired):
                pushing.wait(random_.uniform(0, 0.5))
            if number % 2:
                kill_a_worker(mirror, random_)
            else:
                mirror.kill()
                mirror.start()
            pushing.wait(120)
            last = attempt(push)
            if last.returncode and number % 2:  # the connection was to the worker that died
                last = attempt(push)
            assert last.returncode == 0, last.stderr
            run([crane, "validate", "--insecure", "--remote", image])
        for number in range(ROUNDS):
            run(
                [
                    crane,
                    "validate",
                    "--fast",
                    "--insecure",
                    "--remote",
                    f"{mirror.address}/office/app:v{number}",
                ]
            )
    finally:
        mirror.stop()
    run([*PROGRAM, "verify", "--cache-dir", mirror.cache, "--config", tmp_path / "mirror.toml"])


def pieces() -> list[bytes]:
    """A mebibyte for each number, of which the disk and the hash take little longer than of any other."""
    noise = hashlib.shake_256(b"noise").digest(MIB)
    return [number.to_bytes(8, "big") + noise[8:] for number in range(64)]


async def push_large(address: str, few: list[bytes]) -> Digest:
    """Push a layer of five gigabytes in one request, and an image of it; return the layer's digest."""
    hash_ = hashlib.sha256()
    async with await Pusher.open(address) as pusher:
        location = await pusher.session()
        pusher.wire.writer.write(request_head("PATCH", location, [f"Content-Length: {LARGE}"]))
        for number in range(LARGE // MIB):
            hash_.update(few[number % len(few)])
            pusher.wire.writer.write(few[number % len(few)])
            await pusher.wire.writer.drain()
        patched = await pusher.wire.reply("PATCH")
        assert patched.status == 202
        digest = Digest.parse(f"sha256:{hash_.hexdigest()}")
        location = patched.header("location")
        assert (await pusher.finish(location, digest)).status == 201
        await pusher.blob(b"{}")
        large = {**descriptor(b"", LAYER), "digest": str(digest), "size": LARGE}
        manifest = json.dumps({**json.loads(manifest_of([])), "layers": [large]}).encode()
        assert (await pusher.manifest("large", manifest)).status == 201
    return digest


async def pull_large(address: str, digest: Digest, few: list[bytes]) -> None:
    hash_ = hashlib.sha256()
    async with await Pusher.open(address) as pusher:
        head = await pusher.ask("HEAD", f"blobs/{digest}")
        assert (head.status, head.header("content-length")) == (200, str(LARGE))
        end = await pusher.ask("GET", f"blobs/{digest}", f"Range: bytes={LARGE - MIB}-")
        assert (end.status, end.body) == (206, few[-1])
        pusher.wire.writer.write(request_head("GET", f"/v2/office/app/blobs/{digest}", []))
        assert (await pusher.wire.head()).status == 200
        left = LARGE
        while left:
            data = await pusher.wire.reader.read(min(left, MIB))
            assert data
            hash_.update(data)
            left -= len(data)
    assert str(digest) == f"sha256:{hash_.hexdigest()}"


def test_push_of_a_layer_of_five_gigabytes(tmp_path: Path) -> None:
    if shutil.disk_usage(tmp_path).free < 3 * LARGE:
        pytest.skip("no room for a layer of 5 GiB")
    few = pieces()
    with started(tmp_path) as mirror:
        digest = asyncio.run(push_large(mirror.address, few))
        asyncio.run(pull_large(mirror.address, digest, few))
    shutil.rmtree(mirror.cache)
