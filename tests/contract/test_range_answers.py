"""Sources that mis-answer ranges: whatever a plain GET brings comes through the mirror, and right.

In none of these situations does the source send more than about twice the blob, and it is asked for no range
again for a while after one was refused.
"""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from mirror.config.endpoints import SourceSettings
from mirror.config.types import Amount
from mirror.oci.digest import Digest
from mirror.transfer.plan import PlanLimits
from mirror.upstream.http import range_support
from tests.fakes.faults import Fault
from tests.fakes.ranges import LYING_WAYS, RANGE_WAYS
from tests.fakes.registry import FakeRegistry
from tests.running import CHUNK, LARGE, LARGE_DATA, Running, configured, mirror_of, serving
from tests.wire import Reply, get

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("no_pauses")]

X = "library/x"
BLOB = LARGE_DATA
HALF = LARGE // 2 + 1000
WAYS = sorted(RANGE_WAYS)
PARALLEL = {"parallel": 4, "parallel_above": 1024 * 1024}
SPANS = PlanLimits(first_span=1024 * 1024)
# Answers that tell nothing against other ranges.
RIGHT = {"206 no total", "206 shorter", "206 longer", "206 labelled gzip", "206 other ETag"}


def path_of(digest: Digest) -> str:
    return f"/v2/docker.io/{X}/blobs/{digest}"


def misanswering(fake: FakeRegistry, way: str) -> Digest:
    """Add a blob, named by a manifest, to a fake that mis-answers each range in this way."""
    fake.piece = CHUNK
    fake.range_way = {**RANGE_WAYS, **LYING_WAYS}[way]
    return fake.add_image(X, "t", [BLOB]).layers[0]


async def ask(address: str, digest: Digest, *headers: str, named: bool = True) -> Reply:
    if named:
        assert (await get(address, f"/v2/docker.io/{X}/manifests/t")).status == 200
    return await get(address, path_of(digest), *headers)


async def first_answer(mirror: Running, way: str, digest: Digest, *, named: bool) -> Reply:
    """Return the answer to the first request; to the second where only the end of the blob shows the lie.

    A total that is one byte too large is in the client's head by then, if nothing else told the size.
    """
    reply = await ask(mirror.address, digest, named=named)
    if way == "206 wrong total" and not named and not reply.complete:
        await mirror.landed(digest)
        reply = await ask(mirror.address, digest)
    return reply


async def expect(mirror: Running, reply: Reply, body: bytes = BLOB) -> None:
    """Check the reply, and that the mirror has received each byte about twice at most."""
    assert (reply.status, reply.complete) == (206 if body != BLOB else 200, True)
    assert reply.body == body, "other bytes"
    received = await mirror.metric('registry_mirror_upstream_bytes_total{upstream="docker.io"}')
    assert received <= 2.3 * len(BLOB)


@pytest.mark.parametrize("named", [True, False], ids=["named", "unnamed"])
@pytest.mark.parametrize("way", WAYS)
async def test_download_that_breaks(fake: FakeRegistry, tmp_path: Path, way: str, *, named: bool) -> None:
    """The rest of a broken download comes, with a manifest's word about the size and without."""
    digest = misanswering(fake, way)
    async with mirror_of(fake, tmp_path / "cache") as mirror:
        if not named:
            fake.fault(Fault(), digest, "GET")  # the first range, which only asks how large the blob is
        fake.fault(Fault(cut_at=HALF), digest, "GET")
        await expect(mirror, await first_answer(mirror, way, digest, named=named))


@pytest.mark.parametrize("way", WAYS)
async def test_download_that_is_resumed_after_a_restart(fake: FakeRegistry, tmp_path: Path, way: str) -> None:
    digest = misanswering(fake, way)
    async with mirror_of(fake, tmp_path / "cache") as mirror:
        fake.fault(Fault(cut_at=HALF), digest, "GET")
        fake.fault(Fault(status=503), digest, "GET", times=5)
        assert not (await ask(mirror.address, digest)).complete
    fake._planned.clear()
    async with mirror_of(fake, tmp_path / "cache") as mirror:
        await expect(mirror, await ask(mirror.address, digest, named=False))


@pytest.mark.parametrize("named", [True, False], ids=["named", "unnamed"])
@pytest.mark.parametrize("way", WAYS)
async def test_large_blob(fake: FakeRegistry, tmp_path: Path, way: str, *, named: bool) -> None:
    """A blob over `parallel_above`; the next one is asked for as the source can answer."""
    digest = misanswering(fake, way)
    async with mirror_of(fake, tmp_path / "cache", SPANS, fill=PARALLEL) as mirror:
        await expect(mirror, await first_answer(mirror, way, digest, named=named))
        await mirror.landed(digest)
        asked = len(fake.log)
        other = BLOB[::-1]
        assert (await get(mirror.address, path_of(fake.add_blob(X, other)))).body == other
        if way not in RIGHT and "go-containerregistry" not in way:
            assert not any("Range" in seen.headers for seen in fake.log[asked:])


@pytest.mark.parametrize("way", WAYS)
async def test_range_of_a_client(fake: FakeRegistry, tmp_path: Path, way: str) -> None:
    """A client's own range of a blob that is not here."""
    digest = misanswering(fake, way)
    async with mirror_of(fake, tmp_path / "cache", SPANS, fill=PARALLEL) as mirror:
        reply = await ask(mirror.address, digest, "Range: bytes=2000000-2999999")
        await expect(mirror, reply, BLOB[2_000_000:3_000_000])
        assert (await get(mirror.address, path_of(digest))).body == BLOB
        await expect(mirror, await ask(mirror.address, digest))


@pytest.mark.parametrize("way", WAYS)
async def test_blob_that_is_passed_through(fake: FakeRegistry, tmp_path: Path, way: str) -> None:
    """A blob that the quota does not allow, broken in the middle; then a part of it."""
    digest = misanswering(fake, way)
    config = configured(tmp_path / "cache", {"docker.io": fake.url})
    cache = config.cache.model_copy(update={"max_size": Amount(1024 * 1024)})
    async with serving(config.model_copy(update={"cache": cache})) as mirror:
        fake.fault(Fault(cut_at=HALF), digest, "GET")
        await expect(mirror, await ask(mirror.address, digest))
        reply = await get(mirror.address, path_of(digest), "Range: bytes=100-199999")
        assert (reply.status, reply.body) == (206, BLOB[100:200_000])


@pytest.mark.parametrize("fill", [{}, PARALLEL], ids=["one", "parallel"])
@pytest.mark.parametrize("second", ["healthy", "silent", "as bad"])
@pytest.mark.parametrize(
    "way", ["404", "416", "500", "cut", "200 whole", "206 another range", "206 wrong total"]
)
async def test_second_source(
    fake: FakeRegistry, other: FakeRegistry, tmp_path: Path, way: str, second: str, fill: dict[str, Any]
) -> None:
    """Another source that can answer ranges, none at all, or plain requests alone as well."""
    digest = misanswering(fake, way)
    other.piece = CHUNK
    other.add_blob(X, BLOB)
    if second == "silent":
        other.fault(Fault(status=503), times=1000)
    elif second == "as bad":
        other.range_way = fake.range_way
    source = SourceSettings(url=other.url, attempts=1)
    async with mirror_of(
        fake, tmp_path / "cache", SPANS, upstream={"sources": (source,)}, fill=fill
    ) as mirror:
        fake.fault(Fault(cut_at=HALF), digest, "GET")
        await expect(mirror, await ask(mirror.address, digest))


@pytest.mark.parametrize("way", WAYS)
async def test_store_behind_a_redirect(fake: FakeRegistry, tmp_path: Path, way: str) -> None:
    """A redirect to a store that mis-answers ranges."""
    digest = misanswering(fake, way)
    fake.cdn = True
    async with mirror_of(fake, tmp_path / "cache", SPANS, fill=PARALLEL) as mirror:
        await expect(mirror, await ask(mirror.address, digest))


@pytest.mark.parametrize("way", sorted(LYING_WAYS))
async def test_source_that_lies_about_a_range(fake: FakeRegistry, tmp_path: Path, way: str) -> None:
    """Other bytes than it says: the client is cut short once, and the next request is plain."""
    digest = misanswering(fake, way)
    async with mirror_of(fake, tmp_path / "cache", SPANS, fill=PARALLEL) as mirror:
        reply = await ask(mirror.address, digest)
        if reply.complete:
            assert reply.body == BLOB
        await mirror.landed(digest)
        assert (await ask(mirror.address, digest)).body == BLOB


async def test_refusal_of_ranges_is_forgotten(
    fake: FakeRegistry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a while ranges are asked for again."""
    digest = misanswering(fake, "416")
    async with mirror_of(fake, tmp_path / "cache", SPANS, fill=PARALLEL) as mirror:
        assert (await ask(mirror.address, digest)).body == BLOB
        (source,) = mirror.service._upstreams["docker.io"].sources
        assert not source.ranges.available
        source.ranges.refuse(-1)  # the time is over
        fake.range_way, asked = None, len(fake.log)
        other = fake.add_blob(X, BLOB[::-1])
        assert (await get(mirror.address, path_of(other))).body == BLOB[::-1]
        assert any("Range" in seen.headers for seen in fake.log[asked:])
    assert range_support.REFUSED_FOR > range_support.DOUBTED_FOR > 0


async def test_size_is_asked_plainly_where_ranges_fail(fake: FakeRegistry, tmp_path: Path) -> None:
    """HEAD is refused and every range as well: the head of a GET has the size."""
    digest = misanswering(fake, "416")
    fake.head = False
    async with mirror_of(fake, tmp_path / "cache") as mirror:
        reader, writer = await asyncio.open_connection(*mirror.address.split(":"))
        writer.write(f"HEAD {path_of(digest)} HTTP/1.1\r\nHost: mirror.test\r\n\r\n".encode())
        head = await reader.readuntil(b"\r\n\r\n")
        writer.close()
        assert head.startswith(b"HTTP/1.1 200")
        assert f"content-length: {len(BLOB)}" in head.decode().lower()
