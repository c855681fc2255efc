"""Copies of images between folders, archives and registries: all of it, nothing twice, the tag last."""

from collections.abc import AsyncIterator

import pytest

from mirror.hosted.copying import copier
from mirror.hosted.copying.copier import Copied, Copier
from mirror.hosted.copying.places import CopiedManifest, CopyFailed, OpenBody
from mirror.oci.digest import Digest
from mirror.oci.manifest import OCI_INDEX, OCI_MANIFEST
from mirror.oci.reference import Tag
from tests.hosting import CONFIG, descriptor, index_of, manifest_of


class Memory:
    """Both ends in memory. `log`: what was put, in order."""

    def __init__(self, *blobs: bytes) -> None:
        self.blobs = {Digest.of(each): each for each in blobs}
        self.manifests: dict[Digest, bytes] = {}
        self.tags: dict[str, Digest] = {}
        self.attached: dict[Digest, list[Digest]] = {}
        self.log: list[str] = []

    def add(self, data: bytes) -> Digest:
        self.manifests[Digest.of(data)] = data
        return Digest.of(data)

    async def manifest(self, digest: Digest) -> CopiedManifest | None:
        data = self.manifests.get(digest)
        kind = OCI_INDEX if data and b'"manifests"' in data else OCI_MANIFEST
        return None if data is None else CopiedManifest(data, kind)

    async def blob(self, digest: Digest, _size: int) -> AsyncIterator[bytes]:
        data = self.blobs[digest]
        yield data[:2]
        yield data[2:]

    async def referrers(self, digest: Digest) -> list[Digest]:
        return self.attached.get(digest, [])

    async def digest_of(self, reference: Tag | Digest) -> Digest | None:
        if isinstance(reference, Tag):
            return self.tags.get(reference.name)
        return reference if reference in self.manifests else None

    async def has_blob(self, digest: Digest) -> bool:
        return digest in self.blobs

    async def put_blob(self, digest: Digest, size: int, body: OpenBody) -> bool:
        data = b"".join([piece async for piece in body()])
        assert len(data) == size
        self.blobs[digest] = data
        self.log.append("blob")
        return False

    async def put_manifest(self, reference: Tag | Digest, manifest: CopiedManifest) -> None:
        digest = self.add(manifest.data)
        if isinstance(reference, Tag):
            self.tags[reference.name] = digest
        self.log.append(str(reference) if isinstance(reference, Tag) else "manifest")


def platforms() -> tuple[Memory, Digest]:
    source = Memory(CONFIG, b"one", b"two", b"signature")
    images = [manifest_of([b"one"]), manifest_of([b"one", b"two"])]
    for each in images:
        source.add(each)
    root = source.add(index_of(images))
    subject = descriptor(Digest.of(images[0]), len(images[0]), OCI_MANIFEST)
    signed = source.add(manifest_of([b"signature"], subject=subject))
    source.attached[Digest.of(images[0])] = [signed]
    return source, root


async def test_copy_sends_blobs_then_platforms_then_the_tag() -> None:
    source, root = platforms()
    target = Memory()
    amounts: list[tuple[int, int]] = []
    found = await Copier(source, target).copy(root, [Tag("1")], lambda *each: amounts.append(each))
    assert found == Copied(root, 3, 3, 0, len(CONFIG) + 6)
    assert target.log == ["blob"] * 3 + ["manifest"] * 2 + ["1"]
    assert amounts[-1] == (found.size, found.size)
    again = await Copier(source, target).copy(root, [Tag("1")])
    assert again.nothing


async def test_copy_brings_referrers_of_platforms_when_asked() -> None:
    source, root = platforms()
    target = Memory()
    await Copier(source, target).copy(root, [Tag("1")])
    found = await Copier(source, target, referrers=True).copy(root, [Tag("1")])
    assert (found.manifests, found.sent) == (1, 1)
    assert source.manifests.keys() == target.manifests.keys()


async def test_copy_sends_what_an_earlier_one_did_not_come_to() -> None:
    source, root = platforms()
    target = Memory(b"one")
    found = await Copier(source, target).copy(root, [Tag("1")])
    assert (found.sent, found.size) == (2, len(CONFIG) + 3)


async def test_copy_ends_before_wrong_bytes_are_whole() -> None:
    source, root = platforms()
    source.blobs[Digest.of(b"two")] = b"TWO"
    target = Memory()
    with pytest.raises(CopyFailed, match="other bytes"):
        await Copier(source, target).copy(root, [Tag("1")])
    assert Digest.of(b"two") not in target.blobs
    assert not target.manifests


async def test_copy_without_a_platform_names_it() -> None:
    source, root = platforms()
    lost = Digest.of(manifest_of([b"one"]))
    del source.manifests[lost]
    with pytest.raises(CopyFailed, match=str(lost)):
        await Copier(source, Memory()).copy(root, [])
    target = Memory()
    target.manifests[lost] = manifest_of([b"one"])
    assert (await Copier(source, target).copy(root, [Tag("1")])).manifests == 2


async def test_manifests_are_bounded_by_their_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    source, root = platforms()
    monkeypatch.setattr(copier, "MOST_BYTES", 1000)
    with pytest.raises(CopyFailed, match="more than 1000 bytes"):
        await Copier(source, Memory()).copy(root, [Tag("1")])
