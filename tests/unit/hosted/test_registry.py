"""Pushes to a hosted registry, and what clients are given of them."""

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from mirror.cache.readers import SmallBlob, StoredReader
from mirror.hosted.registry import Change, HostedRegistry
from mirror.oci.digest import Digest
from mirror.oci.errors import Code, RegistryError
from mirror.oci.manifest import DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST
from mirror.oci.reference import Repository, Tag
from mirror.store.blobs.diskcache_disk import VerifiedFile
from mirror.store.blobs.entries import SMALL_BYTES
from tests.hosting import (
    APP,
    CONFIG,
    OTHER,
    descriptor,
    hosted_of,
    index_of,
    manifest_of,
    office,
    push_blob,
    push_image,
)
from tests.running import Running

LATEST = Tag("latest")


@pytest.fixture
async def mirror(tmp_path: Path) -> AsyncIterator[Running]:
    async with office(tmp_path / "cache", immutable_tags=("v*",)) as running:
        yield running


@pytest.fixture
def registry(mirror: Running) -> HostedRegistry:
    return hosted_of(mirror)


async def refused(call: object) -> RegistryError:
    """The error of a call."""
    with pytest.raises(RegistryError) as caught:
        await call  # type: ignore[misc]
    return caught.value


async def test_manifest_is_given_back_byte_for_byte(registry: HostedRegistry) -> None:
    """OCI distribution-spec, "Pushing Manifests": the exact byte representation that the client provided."""
    await push_blob(registry, APP, CONFIG)
    data = manifest_of() + b"\n \n"
    put = await registry.put_manifest(APP, LATEST, OCI_MANIFEST, data)
    by_tag = await registry.content.get_manifest(APP, LATEST)
    by_digest = await registry.content.get_manifest(APP, put.digest)
    assert by_tag.data == by_digest.data == data
    assert (by_tag.digest, by_tag.media_type) == (put.digest, OCI_MANIFEST)
    head = await registry.content.head_manifest(APP, LATEST)
    assert (head.digest, head.size) == (put.digest, len(data))


async def test_tag_answers_are_not_remembered_by_time(registry: HostedRegistry) -> None:
    """Another worker may move the tag at any moment."""
    await push_image(registry, APP, "latest")
    assert (await registry.content.get_manifest(APP, LATEST)).ttl == 0.0


@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
async def test_manifest_by_digest_of_both_algorithms(registry: HostedRegistry, algorithm: str) -> None:
    """OCI image-spec, "Digests": sha512 is registered beside sha256."""
    config = await push_blob(registry, APP, CONFIG, algorithm)
    data = json.dumps(
        {"schemaVersion": 2, "config": descriptor(config, len(CONFIG), "application/json"), "layers": []}
    ).encode()
    digest = Digest.of(data, algorithm)
    assert (await registry.put_manifest(APP, digest, OCI_MANIFEST, data)).digest == digest
    assert (await registry.content.get_manifest(APP, digest)).data == data
    other = replace(digest, encoded="0" * len(digest.encoded))
    error = await refused(registry.put_manifest(APP, other, OCI_MANIFEST, data))
    assert (error.status, error.code) == (400, Code.DIGEST_INVALID)


async def test_push_by_digest_with_tags(registry: HostedRegistry) -> None:
    """OCI distribution-spec, "Pushing Manifests": tags as parameters of a push by digest."""
    await push_blob(registry, APP, CONFIG)
    data = manifest_of()
    tags = [Tag("1.2.3"), Tag("1.2"), Tag("1")]
    put = await registry.put_manifest(APP, Digest.of(data), OCI_MANIFEST, data, tags)
    assert put.tags == ("1.2.3", "1.2", "1")
    assert {(await registry.content.get_manifest(APP, tag)).digest for tag in tags} == {put.digest}


async def test_manifest_with_missing_contents_is_refused(registry: HostedRegistry) -> None:
    """400 MANIFEST_BLOB_UNKNOWN, one error for each, with the digest as its detail; nothing is kept."""
    await push_blob(registry, APP, CONFIG)
    await push_blob(registry, OTHER, b"in another repository only")
    data = manifest_of([b"missing", b"in another repository only"])
    error = await refused(registry.put_manifest(APP, LATEST, OCI_MANIFEST, data))
    errors = json.loads(error.body())["errors"]
    assert error.status == 400
    assert {each["code"] for each in errors} == {"MANIFEST_BLOB_UNKNOWN"}
    assert {each["detail"] for each in errors} == {
        str(Digest.of(b"missing")),
        str(Digest.of(b"in another repository only")),
    }
    assert (await refused(registry.content.get_manifest(APP, Digest.of(data)))).status == 404
    assert (await refused(registry.content.get_manifest(APP, LATEST))).code is Code.MANIFEST_UNKNOWN


async def test_index_needs_its_manifests(registry: HostedRegistry) -> None:
    """A blob is no manifest: an index whose child was pushed as a blob is refused."""
    await push_image(registry, APP, "one")
    child = manifest_of([b"layer"])
    index = index_of([child])
    assert (await registry.put_manifest(APP, Tag("multi"), OCI_INDEX, index)).digest == Digest.of(index)
    unknown = manifest_of([b"other"])
    await push_blob(registry, APP, unknown)
    error = await refused(registry.put_manifest(APP, Tag("multi"), OCI_INDEX, index_of([unknown])))
    assert (error.code, error.detail) == (Code.MANIFEST_BLOB_UNKNOWN, str(Digest.of(unknown)))


async def test_foreign_layers_need_not_be_here(registry: HostedRegistry) -> None:
    await push_blob(registry, APP, CONFIG)
    kind = "application/vnd.oci.image.layer.nondistributable.v1.tar"
    layers = [
        descriptor(Digest.of(b"a"), 1, "application/x", urls=["https://x.test/a"]),
        descriptor(Digest.of(b"b"), 1, kind),
    ]
    await registry.put_manifest(APP, LATEST, OCI_MANIFEST, manifest_with(layers))


def manifest_with(layers: list[dict[str, object]]) -> bytes:
    return json.dumps({**json.loads(manifest_of()), "layers": layers}).encode()


async def test_blob_opens_through_its_own_repository_only(registry: HostedRegistry) -> None:
    """Invariant 5: neither GET nor HEAD tells of a blob that another repository has."""
    digest = await push_blob(registry, OTHER, b"secret of the team")
    content = (await registry.content.get_blob(OTHER, digest)).content
    assert isinstance(content, SmallBlob)
    assert content.data == b"secret of the team"
    assert (await registry.content.head_blob(OTHER, digest)).size == 18
    for call in (registry.content.get_blob(APP, digest), registry.content.head_blob(APP, digest)):
        error = await refused(call)
        assert (error.status, error.code) == (404, Code.BLOB_UNKNOWN)


async def test_large_blob_is_read_from_its_file(registry: HostedRegistry) -> None:
    data = b"x" * (SMALL_BYTES + 1)
    reader = (await registry.content.get_blob(APP, await push_blob(registry, APP, data))).content
    assert isinstance(reader, StoredReader)
    assert (reader.size, await reader.wait_readable(0)) == (len(data), len(data))
    reader.close()


async def test_upload_of_another_digest_is_refused(registry: HostedRegistry, tmp_path: Path) -> None:
    verified = VerifiedFile(Digest.of(b"a"), tmp_path / "a", 1)
    error = await refused(registry.commit_upload(APP, verified, Digest.of(b"b")))
    assert (error.status, error.code) == (400, Code.DIGEST_INVALID)


async def test_tags_come_in_order_page_by_page(registry: HostedRegistry) -> None:
    """OCI distribution-spec, "Listing Tags": ASCII order, `n`, `last`, and n=0 without a next page."""
    await push_image(registry, APP, "b")
    for tag in ("a", "C", "10", "2"):
        await push_image(registry, APP, tag)

    async def page(query: str) -> tuple[list[str], str | None]:
        answer = await registry.content.tags(APP, query)
        return json.loads(answer.data)["tags"], answer.next_query

    assert await page("") == (["10", "2", "C", "a", "b"], None)
    assert await page("n=2") == (["10", "2"], "n=2&last=2")
    assert await page("n=2&last=2") == (["C", "a"], "n=2&last=a")
    assert await page("n=2&last=a") == (["b"], None)
    assert await page("last=C") == (["a", "b"], None)
    assert await page("n=0") == ([], None)
    assert (await refused(registry.content.tags(OTHER, ""))).code is Code.NAME_UNKNOWN


async def test_repository_without_tags_has_an_empty_list(registry: HostedRegistry) -> None:
    await push_blob(registry, APP, CONFIG)
    assert json.loads((await registry.content.tags(APP, "")).data)["tags"] == []


async def test_referrers_are_listed_before_and_after_their_subject(registry: HostedRegistry) -> None:
    """OCI distribution-spec, "Listing Referrers": by subject, which may come later, or never."""
    await push_blob(registry, APP, CONFIG)
    subject = manifest_of([b"layer"])
    about = descriptor(Digest.of(subject), len(subject), OCI_MANIFEST)
    kinds = {"one": "application/vnd.test.sbom", "two": "application/vnd.test.signature"}
    for name, kind in kinds.items():
        data = manifest_of(subject=about, artifactType=kind, annotations={"name": name})
        put = await registry.put_manifest(APP, Digest.of(data), OCI_MANIFEST, data)
        assert put.subject == Digest.of(subject)

    async def listed(*types: str) -> list[str]:
        answer = await registry.content.referrers(APP, Digest.of(subject), types)
        assert answer.filtered == bool(types)
        return [each["annotations"]["name"] for each in json.loads(answer.data)["manifests"]]

    assert sorted(await listed()) == ["one", "two"]
    assert await listed(kinds["two"]) == ["two"]
    assert await listed("application/vnd.test.none") == []
    await push_image(registry, APP, "latest")
    assert sorted(await listed()) == ["one", "two"]
    assert (
        json.loads((await registry.content.referrers(OTHER, Digest.of(subject), ())).data)["manifests"] == []
    )


async def test_referrer_without_an_artifact_type_has_that_of_its_config(registry: HostedRegistry) -> None:
    """OCI distribution-spec, "Listing Referrers": the config's type stands in; an index has none."""
    await push_blob(registry, APP, CONFIG)
    about = descriptor(Digest.of(b"subject"), 7, OCI_MANIFEST)
    manifest, index = manifest_of(subject=about), index_of([], subject=about)
    await registry.put_manifest(APP, Digest.of(manifest), OCI_MANIFEST, manifest)
    await registry.put_manifest(APP, Digest.of(index), OCI_INDEX, index)
    answer = await registry.content.referrers(APP, Digest.of(b"subject"), ())
    kinds = {each["mediaType"]: each.get("artifactType") for each in json.loads(answer.data)["manifests"]}
    assert kinds == {OCI_MANIFEST: "application/vnd.oci.image.config.v1+json", OCI_INDEX: None}


async def test_deleted_tag_leaves_its_manifest(registry: HostedRegistry) -> None:
    """OCI distribution-spec, "Deleting tags"."""
    digest = await push_image(registry, APP, "latest")
    await registry.delete_tag(APP, LATEST)
    assert (await refused(registry.content.get_manifest(APP, LATEST))).status == 404
    assert (await registry.content.get_manifest(APP, digest)).digest == digest
    assert (await refused(registry.delete_tag(APP, LATEST))).code is Code.MANIFEST_UNKNOWN


async def test_deleted_manifest_takes_its_tags_and_its_place_among_referrers(
    registry: HostedRegistry,
) -> None:
    """OCI distribution-spec, "Deleting Manifests": any tag pointing to the digest returns 404, too."""
    about = descriptor(Digest.of(b"subject"), 7, OCI_MANIFEST)
    digest = await push_image(registry, APP, "one", subject=about)
    await push_image(registry, APP, "two", subject=about)
    await push_image(registry, APP, "other", [b"another layer"])
    await registry.delete_manifest(APP, digest)
    for reference in (Tag("one"), Tag("two"), digest):
        assert (await refused(registry.content.head_manifest(APP, reference))).status == 404
    assert (
        json.loads((await registry.content.referrers(APP, Digest.of(b"subject"), ())).data)["manifests"] == []
    )
    assert json.loads((await registry.content.tags(APP, "")).data)["tags"] == ["other"]
    assert (await refused(registry.delete_manifest(APP, digest))).code is Code.MANIFEST_UNKNOWN


async def test_deleted_blob_is_gone_from_its_repository_only(registry: HostedRegistry) -> None:
    """OCI distribution-spec, "Deleting Blobs"."""
    digest = await push_blob(registry, APP, b"shared")
    await push_blob(registry, OTHER, b"shared")
    await registry.delete_blob(APP, digest)
    assert (await refused(registry.content.head_blob(APP, digest))).status == 404
    assert (await registry.content.head_blob(OTHER, digest)).size == 6
    assert (await refused(registry.delete_blob(APP, digest))).code is Code.BLOB_UNKNOWN


async def test_immutable_tag_takes_the_same_manifest_only(registry: HostedRegistry) -> None:
    """Helm and retried pushes put the same bytes again, which changes nothing."""
    digest = await push_image(registry, APP, "v1")
    assert await push_image(registry, APP, "v1") == digest
    await push_blob(registry, APP, b"other")
    other = manifest_of([b"other"])
    for call in (
        registry.put_manifest(APP, Tag("v1"), OCI_MANIFEST, other),
        registry.delete_tag(APP, Tag("v1")),
        registry.delete_manifest(APP, digest),
    ):
        error = await refused(call)
        assert (error.status, error.code) == (409, Code.DENIED)
        assert "v1 never moves" in error.message
    assert (await registry.content.get_manifest(APP, Tag("v1"))).digest == digest


async def test_manifest_keeps_its_type_where_tags_never_move(registry: HostedRegistry) -> None:
    """Bytes without a mediaType of their own, as another type: by the tag, by another one, and by digest."""
    await push_blob(registry, APP, CONFIG)
    document = json.loads(manifest_of())
    del document["mediaType"]
    data = json.dumps(document).encode()
    digest = (await registry.put_manifest(APP, Tag("v1"), OCI_MANIFEST, data)).digest
    for reference in (Tag("v1"), LATEST, digest):
        error = await refused(registry.put_manifest(APP, reference, DOCKER_MANIFEST, data))
        assert (error.status, error.code) == (409, Code.DENIED)
        assert OCI_MANIFEST in error.message
    assert (await registry.content.get_manifest(APP, Tag("v1"))).media_type == OCI_MANIFEST
    assert (await registry.content.head_manifest(APP, Tag("v1"))).media_type == OCI_MANIFEST
    await registry.put_manifest(APP, LATEST, OCI_MANIFEST, data)


async def test_quotas_refuse_what_does_not_fit(tmp_path: Path) -> None:
    """A blob that the registry has already costs it nothing; a repository counts its own."""
    async with office(tmp_path / "cache", quota=100, repository_quota=80, max_blob=90) as running:
        registry = hosted_of(running)
        await push_blob(registry, APP, b"a" * 60)
        assert (await refused(registry.may_add(APP, 30))).message.startswith(
            "the quota of office/app is 80 B"
        )
        assert (await refused(registry.may_add(OTHER, 50))).message.startswith("the quota of office is 100 B")
        assert (await refused(registry.may_add(OTHER, 91))).status == 413
        assert (await refused(push_blob(registry, APP, b"b" * 30))).status == 403
        await push_blob(registry, OTHER, b"a" * 60)
        await push_blob(registry, OTHER, b"b" * 15)
        assert (await refused(push_blob(registry, OTHER, b"c" * 6))).code is Code.DENIED
        await registry.delete_blob(OTHER, Digest.of(b"b" * 15))
        await push_blob(registry, APP, b"c" * 20)


async def test_mount_of_what_the_client_may_read(registry: HostedRegistry) -> None:
    """OCI distribution-spec, "Mounting a blob from another repository", with and without `from`."""
    digest = await push_blob(registry, OTHER, b"base")

    async def yes(_: Repository) -> bool:
        return True

    async def no(_: Repository) -> bool:
        return False

    assert not await registry.mount(APP, digest, OTHER, no)
    assert not await registry.mount(APP, digest, None, no)
    assert not await registry.mount(APP, digest, Repository("office", "none"), yes)
    assert not await registry.mount(APP, Digest.of(b"unknown"), None, yes)
    assert (await refused(registry.content.head_blob(APP, digest))).status == 404
    assert await registry.mount(APP, digest, None, yes)
    assert (await registry.content.head_blob(APP, digest)).size == 4
    assert await registry.mount(Repository("office", "third"), digest, OTHER, yes)


async def test_changes_are_told(registry: HostedRegistry) -> None:
    """A push tells where the tag pointed before; a deletion names each tag."""
    told: list[Change] = []
    registry.on_change.append(told.append)
    first = await push_image(registry, APP, "latest")
    second = await push_image(registry, APP, "latest", [b"other"])
    await registry.delete_manifest(APP, second)
    assert [(each.action, each.tag, each.digest, each.before) for each in told] == [
        ("push", "latest", first, None),
        ("push", "latest", second, str(first)),
        ("delete", "latest", second, None),
    ]


async def test_hosted_bytes_are_metrics(mirror: Running, registry: HostedRegistry) -> None:
    await push_blob(registry, APP, b"12345")
    await mirror.service.statistics.refresh()
    assert await mirror.metric('registry_mirror_hosted_bytes{registry="office"}') == 5
    assert await mirror.metric("registry_mirror_cache_retained_bytes") == 5
