"""Own endpoint down, and a source that is trusted with tags and has everything: the image can be pulled.

Clients as podman and skopeo GET a manifest by tag first, and then what it names, cached or not.
"""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from mirror.config.endpoints import SourceSettings
from mirror.config.schema import Config
from tests.fakes.content import FakeImage
from tests.fakes.faults import Fault, oci_error
from tests.fakes.registry import FakeRegistry
from tests.running import CHUNK, LARGE_DATA, NEVER, Running, configured, serving
from tests.wire import get, head

X = "/v2/docker.io/library/x"
BIG = LARGE_DATA
NOBODY = "http://127.0.0.1:9"
FOREVER = 10_000


def failing(**values: object) -> Callable[[FakeRegistry], None]:
    """Answer all requests so."""
    return lambda fake: fake.fault(Fault(**values), times=FOREVER)  # type: ignore[arg-type]


def hanging(fake: FakeRegistry) -> None:
    """Answer no request."""
    for _ in range(100):
        fake.hold("", after=-1, method="GET")
        fake.hold("", after=-1, method="HEAD")


DOWN: dict[str, Callable[[FakeRegistry], None] | None] = {
    "no server": None,
    "500": failing(status=500),
    "503": failing(status=503),
    "429": failing(status=429, headers={"Retry-After": "3600"}),
    "firewall 403": failing(status=403, body=b"<html>", headers={"Content-Type": "text/html"}),
    "firewall 451": failing(status=451, body=b"<html>", headers={"Content-Type": "text/html"}),
    "firewall 200": failing(status=200, body=b"<html>", headers={"Content-Type": "text/html"}),
    "bare 404": failing(status=404),
    "401": failing(status=401, body=oci_error("UNAUTHORIZED", "no")),
    "garbage": failing(raw=b"\x15\x03\x01"),
    "cut": failing(raw=b""),
    "hangs": hanging,
}


def config_of(own: str, source: FakeRegistry, cache: Path, **values: object) -> Config:
    each = SourceSettings(url=source.url, prefix="hub", attempts=1, tags=True)
    upstream = {"sources": (each,), **values}
    tags = {"fresh": 0, "fallback_after": NEVER, "missing": 0}
    fill = {"parallel_above": 16 * CHUNK}
    return configured(cache, {"docker.io": own}, tags=tags, upstream=upstream, fill=fill)


async def pull(mirror: Running, image: FakeImage) -> None:
    """Ask for an image as podman and skopeo do, and for the rest by HEAD."""
    reply = await get(mirror.address, f"{X}/manifests/t")
    assert (reply.status, reply.body) == (200, image.manifest_data)
    assert (await head(mirror.address, f"{X}/manifests/t")).status == 200
    assert (await get(mirror.address, f"{X}/manifests/{image.manifest}")).body == image.manifest_data
    blobs = zip((image.config, *image.layers), (image.config_data, *image.layers_data), strict=True)
    for digest, data in blobs:
        assert (await head(mirror.address, f"{X}/blobs/{digest}")).header("content-length") == str(len(data))
        assert (await get(mirror.address, f"{X}/blobs/{digest}")).body == data


@pytest.mark.parametrize("way", DOWN)
async def test_source_that_speaks_serves_pulls(
    fake: FakeRegistry, other: FakeRegistry, tmp_path: Path, way: str
) -> None:
    """Nothing cached; then the same with the breaker open; lists and blobs that no manifest names too."""
    images = [other.add_image("hub/library/x", "t", [b"small", BIG])]
    unnamed = other.add_blob("hub/library/x", b"unnamed")
    down = DOWN[way]
    if down is not None:
        down(fake)
    own = NOBODY if down is None else fake.url
    async with serving(config_of(own, other, tmp_path)) as mirror:
        await pull(mirror, images[0])
        await pull(mirror, other.add_image("hub/library/x", "t", [b"another"]))
        tags = await get(mirror.address, f"{X}/tags/list")
        assert (tags.status, json.loads(tags.body)["tags"]) == (200, ["t"])
        assert (await get(mirror.address, f"{X}/referrers/{images[0].manifest}")).status == 200
        assert (await get(mirror.address, f"{X}/blobs/{unnamed}")).body == b"unnamed"


@pytest.mark.parametrize("way", DOWN)
async def test_source_that_speaks_completes_a_cached_image(
    fake: FakeRegistry, other: FakeRegistry, tmp_path: Path, way: str
) -> None:
    """The manifest is here, and its blobs are not, when the own endpoint goes down."""
    image = fake.add_image("library/x", "t", [b"small"])
    copied, original = other.repository("hub/library/x"), fake.repository("library/x")
    copied.tags, copied.manifests, copied.blobs = original.tags, original.manifests, original.blobs
    async with serving(config_of(fake.url, other, tmp_path)) as mirror:
        assert (await get(mirror.address, f"{X}/manifests/t")).status == 200
        (DOWN[way] or failing(raw=b""))(fake)
        await pull(mirror, image)


async def test_source_that_is_not_trusted_completes_a_stale_image(
    fake: FakeRegistry, other: FakeRegistry, tmp_path: Path
) -> None:
    """Blobs come from any source: the stale manifest is offered while one answers."""
    image = fake.add_image("library/x", "t", [b"small"])
    for data in (image.config_data, *image.layers_data):
        other.add_blob("hub/library/x", data)
    config = config_of(fake.url, other, tmp_path, sources=(SourceSettings(url=other.url, prefix="hub"),))
    async with serving(config) as mirror:
        assert (await get(mirror.address, f"{X}/manifests/t")).status == 200
        failing(raw=b"")(fake)
        for _ in range(2):
            reply = await get(mirror.address, f"{X}/manifests/t")
            assert (reply.status, reply.header("warning")[:4]) == (200, "110 ")
        assert (await get(mirror.address, f"{X}/blobs/{image.layers[0]}")).body == b"small"
        assert (await get(mirror.address, f"{X}/manifests/other")).status == 424


async def test_source_that_is_not_trusted_overrules_no_404(
    fake: FakeRegistry, other: FakeRegistry, tmp_path: Path
) -> None:
    """A blob that the upstream does not have is not had from a source that may not speak for it."""
    fake.add_image("library/x", "t", [b"small"])
    digest = other.add_blob("hub/library/x", b"not the upstream's")
    config = config_of(fake.url, other, tmp_path, sources=(SourceSettings(url=other.url, prefix="hub"),))
    async with serving(config) as mirror:
        assert (await get(mirror.address, f"{X}/blobs/{digest}")).status == 404
    assert other.requests(match=digest) == 0


async def test_prefix_of_the_own_endpoint(fake: FakeRegistry, tmp_path: Path) -> None:
    """The own endpoint is a project of another registry: every request has its prefix."""
    image = fake.add_image("hub-proxy/library/x", "t", [b"small", BIG])
    config = configured(tmp_path, {"docker.io": fake.url}, upstream={"prefix": "hub-proxy"})
    async with serving(config) as mirror:
        await pull(mirror, image)
        assert (await get(mirror.address, f"{X}/tags/list")).status == 200
        assert (await get(mirror.address, f"{X}/referrers/{image.manifest}")).status == 200
    assert {seen.path.split("/")[2] for seen in fake.log} == {"hub-proxy"}
