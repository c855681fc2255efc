"""Plans of tars."""

import io
import random
import tarfile
import tracemalloc

import msgspec
import pytest

from mirror.bundle.errors import BundleError
from mirror.bundle.model import BundleContents, BundleManifest
from mirror.bundle.plan import make_plan
from mirror.oci.digest import Digest
from tests.fakes.bundles import Shelf, two_platforms


@pytest.fixture
def shelf() -> Shelf:
    return Shelf()


def test_members_are_in_the_stated_order(shelf: Shelf) -> None:
    """Documents, manifests by size, blobs by digest."""
    contents = two_platforms(shelf)
    paths = [each.path for each in make_plan(contents).members]
    assert paths[:3] == ["oci-layout", "index.json", "registry-mirror.json"]
    manifests = paths[3 : 3 + len(contents.manifests)]
    sizes = [len(contents.manifests[Digest("sha256", path[-64:])].data) for path in manifests]
    assert sizes == sorted(sizes)
    assert paths[3 + len(contents.manifests) :] == sorted(
        f"blobs/sha256/{each.encoded}" for each in contents.blobs
    )


def test_offsets_and_size_are_those_of_the_tar(shelf: Shelf) -> None:
    """tarfile finds each header where the plan says that it is."""
    plan = make_plan(two_platforms(shelf))
    data = shelf.written(plan)
    assert len(data) == plan.size
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        found = [(each.offset, each.name, each.size) for each in tar]
    assert found == [
        (offset, each.path, each.size) for offset, each in zip(plan.offsets(), plan.members, strict=True)
    ]


def test_same_contents_in_any_order_have_the_same_bytes(shelf: Shelf) -> None:
    """Nothing depends on how the exporter found its images."""
    contents = two_platforms(shelf)
    whole = shelf.written(make_plan(contents))
    for seed in range(5):
        order = random.Random(seed)
        images, manifests, blobs = list(contents.images), list(contents.manifests), list(contents.blobs)
        for each in (images, manifests, blobs):
            order.shuffle(each)
        shuffled = BundleContents(
            tuple(images),
            {digest: contents.manifests[digest] for digest in manifests},
            {digest: contents.blobs[digest] for digest in blobs},
        )
        assert shelf.written(make_plan(shuffled)) == whole


def test_contents_must_be_whole(shelf: Shelf) -> None:
    """Each thing that is missing, wrong or of no use is named."""
    contents = two_platforms(shelf)
    blob, manifest = next(iter(contents.blobs)), contents.images[0].root.digest

    def refused(match: str, **fields: object) -> None:
        with pytest.raises(BundleError, match=match):
            make_plan(msgspec.structs.replace(contents, **fields))

    refused(f"blob {blob} of .* missing", blobs={k: v for k, v in contents.blobs.items() if k != blob})
    refused("belongs to no image", blobs={**contents.blobs, Digest.of(b"more"): 4})
    refused(
        f"manifest {manifest} of", manifests={k: v for k, v in contents.manifests.items() if k != manifest}
    )
    other = BundleManifest(b"{}", "application/vnd.oci.image.manifest.v1+json")
    refused("belongs to no image", manifests={**contents.manifests, Digest.of(b"{}"): other})
    refused("other bytes", manifests={**contents.manifests, manifest: other})
    refused("twice", images=contents.images * 2)


def test_blob_that_the_receiver_has_need_not_be_carried(shelf: Shelf) -> None:
    """A delta is a bundle whose other blobs are assumed."""
    contents = two_platforms(shelf)
    kept = dict(list(contents.blobs.items())[:2])
    assumed = frozenset(contents.blobs.keys() - kept.keys())
    plan = make_plan(msgspec.structs.replace(contents, blobs=kept, assumed=assumed))
    assert plan.document.carried() == kept


def test_blob_that_the_exporter_lacks_is_named(shelf: Shelf) -> None:
    """The document says so, because the exporter cannot vouch for it."""
    contents = two_platforms(shelf)
    missing, *_ = sorted(contents.blobs)
    kept = {digest: size for digest, size in contents.blobs.items() if digest != missing}
    document = make_plan(msgspec.structs.replace(contents, blobs=kept, lacking=frozenset({missing}))).document
    assert document.lacking == (str(missing),)
    assert document.base is None


def test_plan_of_many_blobs_is_small(shelf: Shelf) -> None:
    """A member is made when it is asked for, and a blob has one digest: 450 bytes of memory for each."""
    layers = [b"%d" % number for number in range(4000)]
    images = {f"quay.io/a:{at}": shelf.image(layers[at : at + 100]) for at in range(0, len(layers), 100)}
    contents = shelf.contents(images)
    make_plan(contents)  # imports and caches
    tracemalloc.start()
    try:
        plan = make_plan(contents)
        used, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert plan.size > len(layers) * 1024
    assert used < 450 * len(layers)
