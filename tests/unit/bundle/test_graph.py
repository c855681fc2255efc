"""Closures of manifests."""

from mirror.bundle.graph import Graph, is_image, parsed
from mirror.bundle.model import BundleManifest
from mirror.oci.digest import Digest
from mirror.oci.manifest import OCI_MANIFEST
from tests.fakes.bundles import Shelf, two_platforms


def test_reach_of_an_index_has_platforms_blobs_and_on_request_referrers() -> None:
    """Every manifest is there once, with the sizes of its blobs."""
    shelf = Shelf()
    contents = two_platforms(shelf)
    graph = Graph(contents.manifests)
    index = next(each for each in contents.images if each.tag == "1").root.digest
    plain, all_of_it = graph.reach(index), graph.reach(index, referrers=True)
    assert (len(plain.manifests), len(all_of_it.manifests)) == (3, 4)
    assert plain.absent == ()
    assert all_of_it.blobs.items() <= contents.blobs.items()
    assert Digest.of(b"signed") in all_of_it.blobs
    assert Digest.of(b"signed") not in plain.blobs


def test_reach_names_platforms_that_are_absent() -> None:
    """A child of an index that is not here is left out, not an error."""
    shelf = Shelf()
    arm = shelf.image([b"arm"], "arm64")
    index = shelf.index({"amd64": shelf.image([b"amd"]), "arm64": arm})
    del shelf.manifests[arm.digest]
    (absent,) = Graph(shelf.manifests).reach(index.digest).absent
    assert (absent.digest, absent.platform) == (arm.digest, "linux/arm64")


def test_reach_of_damaged_manifest_is_the_manifest() -> None:
    """Bytes that are no manifest have no children, as in the mirror."""
    digest = Digest.of(b"no JSON")
    graph = Graph({digest: BundleManifest(b"no JSON", OCI_MANIFEST)})
    assert graph.reach(digest).manifests == (digest,)


def test_images_below_an_index_leave_out_signatures() -> None:
    """Referrers and attestations are no images to run."""
    shelf = Shelf()
    contents = two_platforms(shelf)
    graph = Graph(contents.manifests)
    signature = next(digest for digest, each in contents.manifests.items() if b"subject" in each.data)
    assert not is_image(graph.manifest(signature))
    assert [len(graph.images(each.root.digest)) for each in contents.images] == [2, 1]


def test_image_of_layers_that_are_no_tars_is_none() -> None:
    """Old cosign signatures have the config of an image."""
    shelf = Shelf()
    document = {
        "mediaType": OCI_MANIFEST,
        "config": shelf.layer(b"{}", "application/vnd.oci.image.config.v1+json"),
        "layers": [shelf.layer(b"sig", "application/vnd.dev.cosign.simplesigning.v1+json")],
    }
    assert not is_image(parsed(shelf.manifests[shelf.manifest(document).digest]))
