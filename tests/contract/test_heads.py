"""HEADs that are answered otherwise than GETs: a HEAD may confirm, and whatever else it says is asked by GET.

Clients that never send a HEAD, as podman and skopeo, pull directly from each of these upstreams.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from mirror.config.types import Amount
from mirror.oci.digest import Digest
from mirror.oci.reference import Tag
from tests.fakes.access import BasicAuth, TokenAuth
from tests.fakes.content import FakeImage
from tests.fakes.faults import Fault, oci_error
from tests.fakes.limit import RateLimit
from tests.fakes.registry import FakeRegistry
from tests.fakes.upstream import registry_at
from tests.running import CHUNK, LARGE, LARGE_DATA, NEVER, Running, configured, serving
from tests.wire import get, head

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("no_pauses")]

X, Y = "library/x", "library/y"
LAYER = LARGE_DATA
SMALL = bytes(range(256)) * 100
TERMS = {"fresh": 0, "fallback_after": NEVER, "missing": 0}
PAGE = b"<html><body>Sign in</body></html>"
OFTEN = 99

REFUSALS: dict[str, Fault] = {
    **{str(status): Fault(status=status) for status in (400, 401, 403, 404, 405, 410, 500, 501)},
    **{f"{status} of a gateway": Fault(status=status) for status in (408, 502, 503, 504)},
    "404 with a code": Fault(status=404, body=oci_error("BLOB_UNKNOWN", "no")),
    "401 basic": Fault(status=401, headers={"WWW-Authenticate": 'Basic realm="proxy"'}),
    "204": Fault(status=204),
    "206": Fault(status=206),
    "page": Fault(status=200, body=PAGE, headers={"Content-Type": "text/html"}),
    "closed": Fault(raw=b""),
    "not HTTP": Fault(raw=b"what is a HEAD?\r\n\r\n"),
    "bad header": Fault(raw=b"HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\n"),
    "redirect in a circle": Fault(status=307, headers={"Location": f"/v2/{X}/circle"}),
}
WORDS: dict[str, Fault] = {
    "no length": Fault(chunked=True),
    "length 0": Fault(data=b""),
    "shorter": Fault(data=b"seven.."),
    "longer": Fault(data=b"x" * (LARGE + 1000)),
    "other digest": Fault(headers={"Docker-Content-Digest": str(Digest.of(b"other"))}),
    "no digest": Fault(headers={"Docker-Content-Digest": ""}),
    "no type": Fault(headers={"Content-Type": ""}),
    "200 to everything": Fault(status=200, headers={"Content-Type": "application/octet-stream"}),
}
HEADS = {**REFUSALS, **WORDS}


def misanswer(fake: FakeRegistry, way: str) -> None:
    """Answer each HEAD from now on in this way."""
    fake.fault(REFUSALS["redirect in a circle"], "circle", times=OFTEN)
    fake.fault(HEADS[way], method="HEAD", times=OFTEN)


def blob(digest: Digest, repository: str = X) -> str:
    return f"/v2/docker.io/{repository}/blobs/{digest}"


def manifest(reference: object, repository: str = X) -> str:
    return f"/v2/docker.io/{repository}/manifests/{reference}"


@asynccontextmanager
async def a_mirror(
    fake: FakeRegistry, folder: Path, size: int = 0, **sections: Any
) -> AsyncIterator[Running]:
    """Serve a mirror for which no tag is fresh; `size`: its quota, if there is one."""
    fake.piece = CHUNK
    config = configured(folder, {"docker.io": fake.url}, tags=TERMS, **sections)
    if size:
        cache = config.cache.model_copy(update={"max_size": Amount(size)})
        config = config.model_copy(update={"cache": cache})
    async with serving(config) as mirror:
        yield mirror


async def expect_image(mirror: Running, image: FakeImage, reference: object) -> None:
    """Check GET and HEAD of a manifest: the bytes, digest and length of this image, and not stale."""
    for _ in range(2):
        got, told = (
            await get(mirror.address, manifest(reference)),
            await head(mirror.address, manifest(reference)),
        )
        assert (got.status, got.body, got.headers.get("warning")) == (200, image.manifest_data, None)
        assert (told.status, told.header("docker-content-digest")) == (200, str(image.manifest))
        assert told.header("content-length") == str(len(image.manifest_data))
        assert told.headers.get("warning") is None


@pytest.mark.parametrize("way", HEADS)
async def test_heads_of_a_tag_that_moves(fake: FakeRegistry, tmp_path: Path, way: str) -> None:
    """A tag that is here stays, and goes with the upstream, whatever its HEADs say."""
    old = fake.add_image(X, "t", [b"old"])
    async with a_mirror(fake, tmp_path) as mirror:
        misanswer(fake, way)
        await expect_image(mirror, old, "t")
        new = fake.add_image(X, "t", [b"new"])
        await expect_image(mirror, new, "t")


@pytest.mark.parametrize("counted", [False, True], ids=["free", "counted"])
@pytest.mark.parametrize("way", HEADS)
async def test_heads_of_a_manifest_by_digest(
    fake: FakeRegistry, tmp_path: Path, way: str, *, counted: bool
) -> None:
    """A HEAD first, then a GET; where GETs are counted, the mirror asks with a HEAD as well."""
    image = fake.add_image(X, "t", [b"old"])
    if counted:
        fake.limit = RateLimit(1000)
    async with a_mirror(fake, tmp_path) as mirror:
        assert (await get(mirror.address, manifest("t"))).status == 200  # tells of the limit
        other = fake.add_image(X, None, [b"other"])
        misanswer(fake, way)
        told = await head(mirror.address, manifest(other.manifest))
        assert (told.status, told.header("docker-content-digest")) == (200, str(other.manifest))
        if not (counted and way in ("shorter", "longer")):  # where a HEAD alone is asked
            assert told.header("content-length") == str(len(other.manifest_data))
        assert (await get(mirror.address, manifest(other.manifest))).body == other.manifest_data
        await expect_image(mirror, image, image.manifest)


@pytest.mark.parametrize("named", [True, False], ids=["named", "unnamed"])
@pytest.mark.parametrize("way", HEADS)
async def test_heads_of_a_blob(fake: FakeRegistry, tmp_path: Path, way: str, *, named: bool) -> None:
    """HEAD and then GET. Without a manifest, a wrong length of a HEAD is only corrected by the GET."""
    content = LAYER if named else SMALL
    digest = fake.add_image(X, "t", [content]).layers[0]
    async with a_mirror(fake, tmp_path) as mirror:
        if named:
            assert (await get(mirror.address, manifest("t"))).status == 200
        misanswer(fake, way)
        told = await head(mirror.address, blob(digest))
        assert told.status == 200
        if named or way not in ("shorter", "longer"):
            assert told.header("content-length") == str(len(content))
        assert (await get(mirror.address, blob(digest))).body == content
        await mirror.landed(digest)
        assert (await head(mirror.address, blob(digest))).header("content-length") == str(len(content))


@pytest.mark.parametrize(("named", "ranges"), [(True, False), (False, True), (False, False)])
@pytest.mark.parametrize("way", HEADS)
async def test_heads_of_a_blob_whose_get_tells_no_length(
    fake: FakeRegistry, tmp_path: Path, way: str, *, named: bool, ranges: bool
) -> None:
    """The mirror asks by HEAD how large the blob is, and is not misled."""
    content = LAYER if ranges else SMALL
    digest = fake.add_image(X, "t", [content]).layers[0]
    async with a_mirror(fake, tmp_path) as mirror:
        if named:
            assert (await get(mirror.address, manifest("t"))).status == 200
        misanswer(fake, way)
        fake.fault(Fault(chunked=True, no_ranges=not ranges), digest, "GET", times=OFTEN)
        for _ in range(2):
            reply = await get(mirror.address, blob(digest))
            assert (reply.status, reply.body == content) == (200, True)
            await mirror.landed(digest)


@pytest.mark.parametrize("way", HEADS)
async def test_heads_for_another_repository(fake: FakeRegistry, tmp_path: Path, way: str) -> None:
    """A blob that is here, by way of one repository, is asked for by way of another one."""
    digest = fake.add_image(X, "t", [SMALL]).layers[0]
    fake.add_blob(Y, SMALL)
    async with a_mirror(fake, tmp_path) as mirror:
        assert (await get(mirror.address, blob(digest))).body == SMALL
        await mirror.landed(digest)
        misanswer(fake, way)
        assert (await get(mirror.address, blob(digest, Y))).body == SMALL


@pytest.mark.parametrize("way", HEADS)
async def test_heads_open_nothing_that_a_get_denies(fake: FakeRegistry, tmp_path: Path, way: str) -> None:
    """A HEAD alone gives no content to a repository, unless it tells the very length."""
    digest = fake.add_image(X, "t", [SMALL]).layers[0]
    async with a_mirror(fake, tmp_path) as mirror:
        assert (await get(mirror.address, blob(digest))).body == SMALL
        await mirror.landed(digest)
        misanswer(fake, way)
        assert (await get(mirror.address, blob(digest, Y))).status == 404


@pytest.mark.parametrize("named", [True, False], ids=["named", "unnamed"])
@pytest.mark.parametrize("way", HEADS)
async def test_heads_of_a_blob_that_is_passed_through(
    fake: FakeRegistry, tmp_path: Path, way: str, *, named: bool
) -> None:
    """A blob that the quota does not allow has its right length in the head of the answer.

    Where no manifest tells, a HEAD's wrong length cuts the first answer short, and no other.
    """
    digest = fake.add_image(X, "t", [LAYER]).layers[0]
    async with a_mirror(fake, tmp_path, 1024 * 1024) as mirror:
        if named:
            assert (await get(mirror.address, manifest("t"))).status == 200
        misanswer(fake, way)
        reply = await get(mirror.address, blob(digest))
        if not named and way in ("shorter", "longer"):
            assert reply.body != LAYER
            reply = await get(mirror.address, blob(digest))
        assert (reply.status, reply.complete, reply.body == LAYER) == (200, True, True)


@pytest.mark.parametrize("way", HEADS)
async def test_heads_about_private_content(fake: FakeRegistry, tmp_path: Path, way: str) -> None:
    """Content that came with an account is asked about again by HEAD: its failure takes nothing away."""
    fake.auth = BasicAuth("me", "geheim")
    account = {"username": "me", "password": "geheim", "recheck_access": 0, "private": "everybody"}
    image = fake.add_image(X, "t", [SMALL])
    async with a_mirror(fake, tmp_path, upstream=account) as mirror:
        assert (await get(mirror.address, manifest("t"))).status == 200
        assert (await get(mirror.address, blob(image.layers[0]))).body == SMALL
        await mirror.landed(image.layers[0])
        misanswer(fake, way)
        reply = await get(mirror.address, blob(image.layers[0]))
        assert (reply.body, reply.headers.get("warning")) == (SMALL, None)
        await expect_image(mirror, image, image.manifest)


TWO: dict[str, Any] = {
    "username": "ann",
    "password": "geheim-a",
    "accounts": [{"username": "bob", "password": "geheim-b"}],
    "private": "everybody",
    "attempts": 1,
}


@pytest.mark.parametrize("private", [False, True], ids=["public", "private"])
@pytest.mark.parametrize("way", HEADS)
async def test_heads_about_who_may_read(fake: FakeRegistry, way: str, *, private: bool) -> None:
    """A public repository is asked for with any account, a private one with one alone."""
    image = fake.add_image(X, "t", [SMALL])
    users = {"ann": "geheim-a", "bob": "geheim-b"}
    fake.auth = TokenAuth(users=users, private={X} if private else set())
    fake.limit = RateLimit(20)
    async with registry_at(fake.url, **TWO) as registry:
        await registry.get_manifest(X, Tag("t"))
        fake.limit.used["ann"] = 18
        await registry.get_manifest(X, Tag("t"))
        misanswer(fake, way)
        await registry.get_manifest(X, Tag("t"))
        await registry.get_blob(X, image.layers[0], len(SMALL))
        assert ("bob" in fake.askers(X)) is not private
