"""Bounds of lengths: a long part of a request is refused before its characters are read."""

import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from mirror.oci.ranges import MAX_RANGES
from tests.fakes.registry import FakeRegistry
from tests.running import Running, mirror_of
from tests.wire import get

LONG = 60_000
CONTENT = bytes(range(256)) * 4096

# Processor time, in seconds, of one request together with its client, on a slow machine. The slowest of these
# requests took 48 to 250 ms.
SECONDS = 0.02


@pytest.fixture
async def mirror(fake: FakeRegistry, tmp_path: Path) -> AsyncIterator[Running]:
    async with mirror_of(fake, tmp_path / "cache") as mirror:
        yield mirror


def repeated(text: str) -> str:
    return text * (LONG // len(text))


@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [
        (f"/v2/{'a' * LONG}/manifests/t", [], 414),
        (f"/v2/{repeated('a/')}manifests/t", [], 414),
        (f"/v2/{repeated('%41')}/manifests/t", [], 414),
        (f"/v2/{repeated('../')}", [], 414),
        (f"/v2/library/x/manifests/{'a' * LONG}", [], 414),
        (f"/{'a' * LONG}", [], 414),
        (f"/v2/?{repeated('a=b&')}", [], 414),
        (f"/v2/?ns={repeated('%41')}", [], 414),
        (f"/v2/library/x/tags/list?last={'a' * LONG}", [], 414),
        (f"/v2/library/x/referrers/sha256:{'a' * 64}?{repeated('artifactType=a&')}", [], 414),
        (f"http://{'a' * LONG}/v2/", [], 200),
        (f"http://{repeated('://@')}/v2/", [], 400),
        ("/v2/", [f"Host: {'a' * LONG}"], 200),
        ("/v2/", [f"Host: {repeated(':1')}"], 200),
        ("/v2/library/x/manifests/t", [f"Accept: {repeated('a,')}"], 404),
        ("BLOB", [f"If-None-Match: {repeated(',')}"], 200),
        ("BLOB", [f"If-Range: {repeated(',')}", "Range: bytes=0-1"], 200),
        ("BLOB", [f"Range: bytes={repeated(',')}"], 200),
        ("BLOB", [f"Range: bytes={repeated('0-1,')}"], 200),
        ("BLOB", [f"Range: bytes={'9' * LONG}-"], 200),
        ("BLOB", [f"Range: {' ' * (LONG - 10)}bytes=0-1"], 206),
    ],
    ids=lambda value: f"{value[:24]}" if isinstance(value, str) else None,
)
async def test_long_request_costs_no_time(
    mirror: Running, fake: FakeRegistry, path: str, headers: list[str], status: int
) -> None:
    """A length that no client needs is an error or is ignored, and costs hardly more than a short one."""
    path = path.replace("BLOB", f"/v2/library/x/blobs/{fake.add_blob('library/x', CONTENT)}")
    took = []
    for _ in range(5):
        before = time.process_time()
        reply = await get(mirror.address, path, *headers)
        took.append(time.process_time() - before)
        assert reply.status == status
    assert min(took) < SECONDS


async def test_many_ranges_send_no_more_than_the_whole(mirror: Running, fake: FakeRegistry) -> None:
    """6,000 ranges of one byte were 1 MB of part heads: more ranges than podman's get the whole content."""
    path = f"/v2/library/x/blobs/{fake.add_blob('library/x', CONTENT)}"
    for count, length, status in (
        (200, 1, 206),
        (MAX_RANGES, 200, 206),
        (MAX_RANGES, 1000, 200),
        (1025, 1, 200),
    ):
        ranges = ",".join(f"{start}-{start + length - 1}" for start in range(0, count * 1000, 1000))
        reply = await get(mirror.address, path, f"Range: bytes={ranges}")
        assert reply.status == status, (count, length)
        assert len(reply.body) <= len(CONTENT)
