"""OCI layouts, ours and those of other programs."""

import io
import json
from collections.abc import Mapping
from typing import Any

import pytest
from msgspec.structs import replace

from mirror.bundle.archives.archive import Archive, Kind
from mirror.bundle.archives.layout_reader import images_of
from mirror.bundle.archives.limits import Limits
from mirror.bundle.archives.opening import open_archive
from mirror.bundle.errors import BundleError, Damaged, EntryRefused, Unsupported
from mirror.bundle.graph import Graph, links_of
from mirror.bundle.parts import split
from mirror.bundle.plan import make_plan
from mirror.bundle.tar_format import END, header, padding
from mirror.oci.digest import Digest
from tests.fakes.bundles import Shelf, Taken, as_json, random_bytes, two_platforms

Files = list[tuple[str, bytes]]


@pytest.fixture
def shelf() -> Shelf:
    return Shelf()


def tar(files: Files) -> bytes:
    return b"".join(header(name, len(data)) + data + bytes(padding(len(data))) for name, data in files) + END


def layout_of(
    shelf: Shelf, images: Mapping[str, Any], name_key: str = "org.opencontainers.image.ref.name"
) -> Files:
    """An archive as another program may write it: contents first, documents last."""
    entries = [
        {**as_json(root), "annotations": {name_key: name} if name else {}} for name, root in images.items()
    ]
    contents = {**shelf.blobs, **{digest: each.data for digest, each in shelf.manifests.items()}}
    files = [(f"blobs/{digest.algorithm}/{digest.encoded}", data) for digest, data in contents.items()]
    index = json.dumps({"schemaVersion": 2, "manifests": entries}).encode()
    return [*files, ("oci-layout", b'{"imageLayoutVersion":"1.0.0"}'), ("index.json", index)]


def read(data: bytes, limits: Limits | None = None) -> tuple[Archive, Taken]:
    with open_archive(io.BytesIO(data), limits or Limits()) as archive:
        return archive, Taken().take(archive)


def test_bundle_is_read_as_it_was_written(shelf: Shelf) -> None:
    """Images, manifests with their types, links, and every blob."""
    contents = two_platforms(shelf)
    archive, taken = read(shelf.written(make_plan(contents)))
    assert (archive.kind, archive.exact, archive.notes) == (Kind.BUNDLE, True, ())
    assert {(each.name, each.root) for each in archive.images} == {(i.name, i.root) for i in contents.images}
    assert archive.manifests == contents.manifests
    assert archive.links == links_of(contents.images, Graph(contents.manifests))
    manifests = {digest: each.data for digest, each in contents.manifests.items()}
    assert taken.contents == {**shelf.blobs, **manifests}


def test_bundle_packed_again_is_read_but_not_exact(shelf: Shelf) -> None:
    """Another order, other headers: the content is proven all the same."""
    plan = make_plan(two_platforms(shelf))
    files = [(each.path, data_of(shelf, each.source)) for each in reversed(tuple(plan.members))]
    archive, taken = read(tar([("./" + name, data) for name, data in files]))
    assert (archive.kind, archive.exact) == (Kind.BUNDLE, False)
    assert taken.contents.keys() >= shelf.blobs.keys()


def data_of(shelf: Shelf, source: Any) -> bytes:
    return source if isinstance(source, bytes) else shelf.blobs[source.digest]


def test_foreign_layout_gives_names_and_contents(shelf: Shelf) -> None:
    """Documents may be last; manifests are told from blobs by their content."""
    contents = two_platforms(shelf)
    roots = [each.root for each in contents.images]
    archive, taken = read(tar(layout_of(shelf, {"v1": roots[0], "quay.io/org/app:1": roots[1]})))
    assert archive.kind is Kind.LAYOUT
    assert [(each.name, each.root) for each in archive.images] == [
        ("v1", roots[0]),
        ("quay.io/org/app:1", roots[1]),
    ]
    assert archive.manifests == contents.manifests
    assert taken.contents.keys() == shelf.blobs.keys() | shelf.manifests.keys()


def test_name_of_containerd_wins_and_a_wrong_digest_is_dropped(shelf: Shelf) -> None:
    """`podman save` writes the origin's digest beside other content."""
    root = shelf.image([b"x"])
    other = Digest.of(b"other")
    index = {
        "manifests": [
            {
                **as_json(root),
                "annotations": {
                    "io.containerd.image.name": "quay.io/a:1",
                    "org.opencontainers.image.ref.name": "1",
                },
            },
            {**as_json(root), "annotations": {"org.opencontainers.image.ref.name": f"quay.io/a@{other}"}},
            {
                **as_json(root),
                "annotations": {"org.opencontainers.image.ref.name": f"quay.io/a@{root.digest}"},
            },
            as_json(root),
        ]
    }
    names = [each.name for each in images_of(json.dumps(index).encode())]
    assert names == ["quay.io/a:1", "quay.io/a", f"quay.io/a@{root.digest}", ""]


@pytest.mark.parametrize(
    "index",
    [
        b"",
        b"[]",
        b"{}",
        b"[" * 100_000,
        b'{"manifests":[{"digest":"sha256:x","size":1}]}',
        b'{"manifests":[1]}',
    ],
)
def test_index_that_is_none_is_refused_by_name(index: bytes) -> None:
    """Deep nesting is no crash."""
    with pytest.raises(BundleError, match=r"index\.json"):
        images_of(index)


def test_parts_are_read_in_any_order_and_give_the_whole(shelf: Shelf) -> None:
    """Each part alone is complete; pieces make their blobs when the last part is here."""
    contents = two_platforms(shelf)
    taken = Taken()
    for plan in reversed(split(contents, 100_000)):
        with open_archive(io.BytesIO(shelf.written(plan))) as archive:
            taken.take(archive)
            assert archive.exact
            assert archive.manifests == contents.manifests
            assert len(archive.images) == 2
    assert taken.whole().items() >= shelf.blobs.items()


def test_content_may_be_skipped(shelf: Shelf) -> None:
    """A receiver that has a blob does not read it; a skipped piece takes its sum with it."""
    for plan in split(two_platforms(shelf), 100_000):
        with open_archive(io.BytesIO(shelf.written(plan))) as archive:
            assert [found.entry for found in archive.contents()]
            assert archive.exact


def test_damaged_piece_is_found_in_its_part(shelf: Shelf) -> None:
    """The digest of the whole blob would only say that one of many parts is wrong."""
    plan = split(two_platforms(shelf), 100_000)[0]
    data = bytearray(shelf.written(plan))
    data[-10_000] ^= 1
    damaged = []
    with open_archive(io.BytesIO(bytes(data))) as archive:
        for found in archive.contents():
            try:
                found.verify()
            except Damaged as error:
                damaged.append(error.entry)
    (entry,) = damaged
    assert entry.startswith("registry-mirror/pieces/sha256/")


def test_reading_goes_on_behind_a_damaged_content(shelf: Shelf) -> None:
    """The others are kept; which one it is, is said."""
    files = layout_of(shelf, {"v1": shelf.image([b"good", random_bytes(5_000_000, 1)])})
    bad = f"blobs/sha256/{Digest.of(b'good').encoded}"
    files = [(name, b"evil" if name == bad else data) for name, data in files]
    taken, damaged = Taken(), []
    with open_archive(io.BytesIO(tar(files))) as archive:
        for found in archive.contents():
            try:
                found.stream_to(taken.sink(found.slice))
            except Damaged as error:
                damaged.append(error.entry)
    assert damaged == [bad]
    assert len(taken.contents) == 3
    assert taken.aborted == 1


def test_manifest_with_another_digest_is_not_kept(shelf: Shelf) -> None:
    """Bytes without proof are no manifest."""
    root = shelf.image([b"x"])
    files = layout_of(shelf, {"v1": root})
    path = f"blobs/sha256/{root.digest.encoded}"
    files = [(name, data.replace(b'"layers"', b'"Layers"') if name == path else data) for name, data in files]
    with open_archive(io.BytesIO(tar(files))) as archive:
        for found in archive.contents():
            assert found.manifest is None
        assert archive.manifests == {}


def changed(files: Files, name: str, data: bytes) -> Files:
    return [(each, data if each == name else content) for each, content in files]


def test_layout_that_is_hostile_is_refused_by_name(shelf: Shelf) -> None:
    """Names that are no digests, documents that differ, sizes that differ, and far too large ones."""
    files = layout_of(shelf, {"v1": shelf.image([b"x"])})
    blob = f"blobs/sha256/{Digest.of(b'x').encoded}"

    def refused(match: str, hostile: Files, kind: type[BundleError] = EntryRefused) -> None:
        with pytest.raises(kind, match=match):
            read(tar(hostile))

    refused("sha256/zz: ", [("blobs/sha256/zz", b""), *files])
    refused("is not a digest", [(blob.replace("sha256", "md5"), b""), *files])
    refused("is not a digest", [(f"blobs/sha256/{'A' * 64}", b""), *files])
    refused("index.json: .*twice", [*files, ("index.json", b"{}")])
    refused(f"{blob}: .*twice", [*files, (blob, b"xx")])
    refused(f"{blob}: ", [*files, (blob, b"y")], Damaged)
    refused("index.json: .*more than", changed(files, "index.json", bytes(10_000_000)))
    refused("pieces/", [(f"registry-mirror/pieces/sha256/{'a' * 64}/0", b"x"), *files])
    read(tar([*files, *files[-2:], (blob, b"x")]))


def test_bundle_with_other_contents_than_it_says_is_refused(shelf: Shelf) -> None:
    """Something more, something less, or documents of another bundle."""
    plan = make_plan(two_platforms(shelf))
    files = [(each.path, data_of(shelf, each.source)) for each in plan.members]

    def refused(match: str, hostile: Files, kind: type[BundleError] = Damaged) -> None:
        with pytest.raises(kind, match=match):
            read(tar(hostile))

    more = (f"blobs/sha256/{Digest.of(b'more').encoded}", b"more")
    refused("not in registry-mirror.json", [*files, more], EntryRefused)
    refused("not in registry-mirror.json", [more, *files], EntryRefused)
    refused("1 contents are missing", files[:-1])
    refused("index.json: .*does not fit", changed(files, "index.json", b'{"manifests":[]}'))
    refused("manifest.json: .*does not fit", [*files, ("manifest.json", b"[]")])
    refused("oci-layout: .*does not fit", changed(files, "oci-layout", b"{}"))
    document = dict(files)["registry-mirror.json"]
    refused(
        "another SHA-256", changed(files, "registry-mirror.json", document.replace(b"org/app", b"org/apt"))
    )


@pytest.mark.parametrize("fields", [{"size": 7}, {"media_type": "text/html"}])
def test_bundle_that_says_another_thing_of_a_root_is_refused(shelf: Shelf, fields: dict[str, Any]) -> None:
    """Clients are told type and size of a tag by what is kept of its root."""
    contents = shelf.contents({"quay.io/org/app:1": shelf.image([b"x"])})
    (image,) = contents.images
    root = replace(image.root, **fields)
    forged = make_plan(replace(contents, images=(replace(image, root=root),)))
    with pytest.raises(
        Damaged, match=r"registry-mirror.json: quay.io/org/app:1 has not the type or the size"
    ):
        read(shelf.written(forged))


def test_archive_in_the_old_form_of_docker_is_explained(shelf: Shelf) -> None:
    """Layers have no digest that a registry knows; a link in it does not matter."""
    config = f"{'a' * 64}.json"
    for files in (
        [(f"{'b' * 64}/layer.tar", b""), (config, b"{}")],
        [(config, b"{}"), ("manifest.json", b"[]")],
        [("manifest.json", b"[]")],
        [("repositories", b"{}")],
    ):
        with pytest.raises(Unsupported, match="skopeo copy docker-archive"):
            read(tar(files))


def test_tar_of_something_else_is_refused() -> None:
    """The message says what is missing."""
    with pytest.raises(Unsupported, match=r"no index\.json"):
        read(tar([("README", b"hello")]))


def test_files_beside_the_layout_are_noted(shelf: Shelf) -> None:
    """Foreign files are passed over; a few of them are named."""
    files = layout_of(shelf, {"v1": shelf.image([b"x"])})
    archive, _ = read(tar([*files, *((f"more/{number}", b"") for number in range(100))]))
    assert "more/0" in archive.notes[0]
    assert len(archive.notes) == 20


def test_manifests_beyond_memory_are_refused(shelf: Shelf) -> None:
    """A limit for all of them together."""
    data = shelf.written(make_plan(two_platforms(shelf)))
    with pytest.raises(BundleError, match="the manifests of the archive"):
        read(data, Limits(manifests=1000))
