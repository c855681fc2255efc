"""Client-visible behaviour of a failing upstream: requests after a failure, and their responses."""

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.fakes.faults import Fault, flipped
from tests.fakes.registry import FakeRegistry
from tests.running import LARGE, LARGE_DATA, NEVER, Running, mirror_of
from tests.wire import Reply, get, head

pytestmark = pytest.mark.usefixtures("no_pauses")

BIG = LARGE_DATA
ROOT = "/v2/library/x"
NS = "?ns=docker.io"
PREFIX = "/v2/docker.io/library/x"


@pytest.fixture
async def mirror(fake: FakeRegistry, tmp_path: Path) -> AsyncIterator[Running]:
    async with mirror_of(fake, tmp_path / "cache", tags={"fresh": 0, "fallback_after": NEVER}) as mirror:
        yield mirror


def code(reply: Reply) -> str:
    assert reply.header("content-type") == "application/json"
    code: str = json.loads(reply.body)["errors"][0]["code"]
    return code


async def test_broken_transfer_can_be_resumed_by_the_client(fake: FakeRegistry, mirror: Running) -> None:
    """A short body ends with FIN, which containerd and podman resume; at RST both would give up."""
    image = fake.add_image("library/x", "t", [BIG])
    await get(mirror.address, f"{ROOT}/manifests/t{NS}")
    fake.fault(Fault(cut_at=LARGE // 2), image.layers[0], "GET")
    fake.fault(Fault(status=503), image.layers[0], "GET", times=4)
    path = f"{ROOT}/blobs/{image.layers[0]}{NS}"
    cut = await get(mirror.address, path)
    assert (cut.status, cut.complete, cut.reset) == (200, False, False)
    assert cut.body == BIG[: len(cut.body)]
    await mirror.landed(image.layers[0])
    rest = await get(mirror.address, path, f"Range: bytes={len(cut.body)}-")
    assert rest.status == 206
    assert cut.body + rest.body == BIG


async def test_target_with_a_host_that_is_none_is_refused(mirror: Running) -> None:
    """The client gets an answer and the end of its connection, and holds no place among the clients."""
    reply = await get(mirror.address, "http://xn--zzzz--/v2/")
    assert (reply.status, reply.complete) == (400, True)
    assert "names a host that is no host" in reply.body.decode()


async def test_wrong_bytes_are_never_complete(fake: FakeRegistry, mirror: Running) -> None:
    """No client can commit wrong bytes, the cache drops them, and the next request starts a new download."""
    image = fake.add_image("library/x", "t", [BIG])
    await get(mirror.address, f"{ROOT}/manifests/t")
    fake.fault(Fault(data=flipped(BIG, at=1)), image.layers[0], times=1)
    path = f"{ROOT}/blobs/{image.layers[0]}"
    wrong = await get(mirror.address, path)
    assert (wrong.complete, wrong.reset) == (False, False)
    await mirror.landed(image.layers[0])
    assert (await get(mirror.address, path)).body == BIG


@pytest.mark.parametrize("content", ["manifests/t", "blobs/sha256:" + "0" * 64])
async def test_silent_upstream_gets_an_error_in_time(
    fake: FakeRegistry, tmp_path: Path, content: str
) -> None:
    """A client that can try another registry gets 404, any other client 504, or 424 once that is known."""
    async with mirror_of(fake, tmp_path / "cache", server={"header_timeout": 0.05}) as mirror:
        gates = [fake.hold("/v2/", after=-1, method=method) for method in ("GET", "HEAD")]
        by_ns = await get(mirror.address, f"{ROOT}/{content}{NS}")
        by_prefix = await get(mirror.address, f"{PREFIX}/{content}")
        while "manifests" in content and by_prefix.status == 504:  # it is known once a request took that long
            by_prefix = await get(mirror.address, f"{PREFIX}/{content}")
        assert (by_ns.status, by_prefix.status) == (404, 504 if "blobs" in content else 424)
        assert code(by_ns) == ("BLOB_UNKNOWN" if "blobs" in content else "MANIFEST_UNKNOWN")
        for gate in gates:
            gate.release()


@pytest.mark.parametrize("path", [f"{ROOT}/manifests/t", f"{ROOT}/manifests/t{NS}", f"{PREFIX}/manifests/t"])
async def test_rate_limit_with_a_cached_tag_serves_stale(
    fake: FakeRegistry, mirror: Running, path: str
) -> None:
    """HEAD and GET get the stale entry, marked as stale, on every route."""
    image = fake.add_image("library/x", "t", [b"a"])
    await get(mirror.address, path)
    fake.fault(Fault(status=429), "/manifests/", times=2)
    reply = await get(mirror.address, path)
    assert (reply.status, reply.body) == (200, image.manifest_data)
    checked = await head(mirror.address, path)
    assert checked.header("docker-content-digest") == str(image.manifest)
    for each in (reply, checked):
        assert each.header("warning").startswith("110 ")


async def test_rate_limit_without_a_cached_tag(fake: FakeRegistry, mirror: Running) -> None:
    """The prefix gives 429 and the upstream's Retry-After, a mirror request 404 and no wait."""
    fake.fault(Fault(status=429, headers={"Retry-After": "17"}), "/manifests/", times=2)
    by_ns = await get(mirror.address, f"{ROOT}/manifests/t{NS}")
    assert (by_ns.status, code(by_ns), "retry-after" in by_ns.headers) == (404, "MANIFEST_UNKNOWN", False)
    by_prefix = await get(mirror.address, f"{PREFIX}/manifests/t")
    assert (by_prefix.status, code(by_prefix)) == (429, "TOOMANYREQUESTS")
    assert by_prefix.header("retry-after") == "17"


async def test_rate_limit_is_404_with_when_unavailable_next(fake: FakeRegistry, tmp_path: Path) -> None:
    """`when_unavailable = "next"` gives 404 on every route."""
    async with mirror_of(fake, tmp_path / "cache", server={"when_unavailable": "next"}) as mirror:
        fake.fault(Fault(status=429), "/manifests/")
        assert (await get(mirror.address, f"{PREFIX}/manifests/t")).status == 404
