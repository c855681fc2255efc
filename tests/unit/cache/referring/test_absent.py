"""Signature tags that do not exist: 404 also while the upstream cannot be asked."""

from pathlib import Path

import pytest

from mirror.oci.digest import Digest
from tests.fakes.faults import Fault
from tests.fakes.registry import FakeRegistry
from tests.running import Running, configured, serving
from tests.wire import Reply, get, head

NAME = "library/x"
X = f"/v2/docker.io/{NAME}/manifests"
GONE = Fault(raw=b"")


def tag_of(digest: Digest, suffix: str = ".sig") -> str:
    return f"{str(digest).replace(':', '-')}{suffix}"


async def ask(mirror: Running, tag: str) -> tuple[int, Reply]:
    """Return the status of a HEAD, and the answer to a GET."""
    return (await head(mirror.address, f"{X}/{tag}")).status, await get(mirror.address, f"{X}/{tag}")


@pytest.mark.parametrize("suffix", [".sig", ".att", ".sbom", ""])
@pytest.mark.parametrize("fault", [GONE, Fault(status=503), Fault(status=429)], ids=str)
async def test_absent_signature_is_remembered(
    fake: FakeRegistry, tmp_path: Path, suffix: str, fault: Fault
) -> None:
    """After a restart, and with the reason in the message; once the upstream is back it is asked."""
    image = fake.add_image(NAME, "t", [b"a"])
    tag = tag_of(image.manifest, suffix)
    config = configured(tmp_path, {"docker.io": fake.url}, tags={"missing": 0})
    async with serving(config) as mirror:
        await get(mirror.address, f"{X}/t")
        assert (await get(mirror.address, f"{X}/{tag}")).status == 404
    async with serving(config) as mirror:
        fake.fault(fault, times=10_000)
        status, reply = await ask(mirror, tag)
        assert (status, reply.status, b"did not exist when last asked" in reply.body) == (404, 404, True)
        status, reply = await ask(mirror, tag_of(image.manifest, ".other"))
        assert (status, reply.status) != (404, 404)  # was never asked for
        fake.forgive()
        mirror.service._upstreams["docker.io"].own.health._open_until = 0.0  # some time later
        fake.limit = None
    fake.add_manifest(NAME, image.manifest_data, tag=tag)
    async with serving(config) as mirror:
        assert (await get(mirror.address, f"{X}/{tag}")).status == 200


async def test_absent_signature_of_an_unknown_image_is_not_remembered(
    fake: FakeRegistry, tmp_path: Path
) -> None:
    """Made-up names take no room, and other tags are no signatures."""
    fake.add_image(NAME, "t", [b"a"])
    async with serving(configured(tmp_path, {"docker.io": fake.url}, tags={"missing": 0})) as mirror:
        await get(mirror.address, f"{X}/t")
        for tag in (tag_of(Digest.of(b"?")), "other"):
            assert (await get(mirror.address, f"{X}/{tag}")).status == 404
        fake.fault(GONE, times=10_000)
        for tag in (tag_of(Digest.of(b"?")), "other"):
            status, reply = await ask(mirror, tag)
            assert (status, reply.status) == (424, 424)


async def test_absent_signature_is_not_taken_from_a_refusal(fake: FakeRegistry, tmp_path: Path) -> None:
    """Only the registry's own word counts: not the bare 404 of a proxy without its registry."""
    image = fake.add_image(NAME, "t", [b"a"])
    tag = tag_of(image.manifest)
    async with serving(configured(tmp_path, {"docker.io": fake.url}, tags={"missing": 0})) as mirror:
        await get(mirror.address, f"{X}/t")
        fake.fault(Fault(status=404), tag, times=2)
        assert (await get(mirror.address, f"{X}/{tag}")).status == 404
        fake.forgive()
        fake.fault(GONE, times=10_000)
        assert (await get(mirror.address, f"{X}/{tag}")).status == 424


@pytest.mark.parametrize("seconds", [0, 3600])
async def test_absent_signature_has_the_terms_of_tags(
    fake: FakeRegistry, tmp_path: Path, seconds: int
) -> None:
    """`stale_if_error` counts for what does not exist, too."""
    image = fake.add_image(NAME, "t", [b"a"])
    tags = {"missing": 0, "fresh": 0, "stale_while_revalidate": 0, "stale_if_error": seconds}
    async with serving(configured(tmp_path, {"docker.io": fake.url}, tags=tags)) as mirror:
        await get(mirror.address, f"{X}/t")
        assert (await get(mirror.address, f"{X}/{tag_of(image.manifest)}")).status == 404
        fake.fault(GONE, times=10_000)
        reply = await get(mirror.address, f"{X}/{tag_of(image.manifest)}")
        assert reply.status == (404 if seconds else 424)
