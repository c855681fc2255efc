"""Documents for other programs."""

import io
import json
from typing import Any

import pytest

from mirror.bundle.archives.opening import open_archive
from mirror.bundle.errors import BundleError
from mirror.bundle.graph import Graph
from mirror.bundle.layout import DOCKER, INDEX, named_images
from mirror.bundle.plan import BundlePlan, make_plan
from mirror.oci.digest import Digest
from tests.fakes.bundles import Shelf, Taken, two_platforms


def document(plan: BundlePlan, name: str) -> Any:
    """A JSON document of the plan, None if there is none of that name."""
    found = next((each.source for each in plan.members if each.path == name), b"null")
    assert isinstance(found, bytes)
    return json.loads(found)


@pytest.fixture
def shelf() -> Shelf:
    return Shelf()


def names(plan: BundlePlan) -> list[str]:
    entries = document(plan, "index.json")["manifests"]
    pairs = [
        (
            each["annotations"]["io.containerd.image.name"],
            each["annotations"]["org.opencontainers.image.ref.name"],
        )
        for each in entries
    ]
    assert all(one == other for one, other in pairs)
    return [one for one, _ in pairs]


def test_index_has_one_full_name_in_both_annotations(shelf: Shelf) -> None:
    """Each entry is the root's descriptor and its name."""
    plan = make_plan(two_platforms(shelf))
    assert names(plan) == ["docker.io/library/one:2", "quay.io/org/app:1"]
    entry = document(plan, "index.json")["manifests"][0]
    root = plan.document.images[0]
    assert (entry["mediaType"], entry["digest"], entry["size"]) == (root.media_type, root.digest, root.size)


def test_docker_manifest_is_there_for_one_platform(shelf: Shelf) -> None:
    """An index of which one platform is here is unambiguous; names are those of index.json."""
    amd, arm = shelf.image([b"one", b"two"]), Shelf().image([b"arm"], "arm64")
    index = shelf.index({"amd64": amd, "arm64": arm})
    plan = make_plan(shelf.contents({"quay.io/a:1": index, "quay.io/a:2": amd}))
    (entry,) = document(plan, "manifest.json")
    assert sorted(entry["RepoTags"]) == names(plan)
    assert entry["Layers"] == [f"blobs/sha256/{Digest.of(each).encoded}" for each in (b"one", b"two")]
    assert entry["Config"] in {each.path for each in plan.members}


def test_docker_manifest_is_missing_for_two_platforms(shelf: Shelf) -> None:
    """podman would drop the image of two platforms silently, were the others listed."""
    plan = make_plan(two_platforms(shelf))
    assert document(plan, "manifest.json") is None


def test_image_by_digest_has_no_repo_tag(shelf: Shelf) -> None:
    """docker refuses a digest there, and loads an image without a name."""
    image = shelf.image([b"one"])
    plan = make_plan(shelf.contents({f"quay.io/a@{image.digest}": image}))
    assert document(plan, "manifest.json")[0]["RepoTags"] is None
    assert names(plan) == [f"quay.io/a@{image.digest}"]


def test_artifact_is_named_only_without_images(shelf: Shelf) -> None:
    """ctr fails at a chart among images; a bundle of charts alone is for oras and helm."""
    chart = shelf.manifest(
        {
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": shelf.layer(b"{}", "application/vnd.cncf.helm.config.v1+json"),
            "layers": [shelf.layer(b"chart", "application/vnd.cncf.helm.chart.content.v1.tar+gzip")],
        }
    )
    alone = make_plan(shelf.contents({"quay.io/chart:1": chart}))
    assert names(alone) == ["quay.io/chart:1"]
    assert document(alone, "manifest.json") is None
    image = shelf.image([b"one"])
    both = make_plan(shelf.contents({"quay.io/chart:1": chart, "quay.io/a:1": image}))
    assert names(both) == ["quay.io/a:1"]
    assert [each.name for each in both.document.images] == ["quay.io/a:1", "quay.io/chart:1"]


def test_image_that_is_not_whole_is_not_named(shelf: Shelf) -> None:
    """ctr would import half of it without a word; the delta's own document has it."""
    image = shelf.image([b"old", b"new"])
    plan = make_plan(shelf.contents({"quay.io/a:1": image}, frozenset({Digest.of(b"old")})))
    assert names(plan) == []
    assert document(plan, "manifest.json") is None
    assert [each.name for each in plan.document.images] == ["quay.io/a:1"]


def test_names_of_one_root_are_looked_up_once(shelf: Shelf) -> None:
    """100,000 names of an index of a thousand manifests fit in a bundle, and must not take hours."""
    root = shelf.image([b"a"])
    contents = shelf.contents({f"quay.io/a:{each}": root for each in range(50)})
    asked: list[Digest] = []

    def present(digest: Digest) -> bool:
        asked.append(digest)
        return True

    assert len(named_images(list(contents.images), Graph(contents.manifests), present)) == 50
    assert len(asked) == 2


def test_documents_too_long_for_an_importer_are_not_written(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Docker's list is left out, and read as left out; a longer index is a word to the operator."""
    contents = shelf.contents({"quay.io/a:1": shelf.image([b"a"])})
    plan = make_plan(contents)
    longest = len(next(each.source for each in plan.members if each.path == INDEX))  # type: ignore[arg-type]
    monkeypatch.setattr("mirror.bundle.layout.MOST_BLOBS", 0)
    short = make_plan(contents)
    assert DOCKER not in {each.path for each in short.members}
    with open_archive(io.BytesIO(shelf.written(short))) as archive:
        assert Taken().take(archive).contents.items() >= shelf.blobs.items()
    monkeypatch.setattr("mirror.bundle.layout.MOST_BYTES", longest - 1)
    with pytest.raises(BundleError, match="too many images for one bundle"):
        make_plan(contents)
