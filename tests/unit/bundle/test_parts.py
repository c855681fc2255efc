"""Bundles in several parts."""

import pytest

from mirror.bundle.errors import BundleError
from mirror.bundle.parts import split
from mirror.bundle.plan import Slice, make_plan
from mirror.oci.digest import Digest
from tests.fakes.bundles import Shelf, random_bytes, two_platforms


@pytest.fixture
def shelf() -> Shelf:
    return Shelf()


@pytest.mark.parametrize("limit", [90_000, 100_000, 123_457, 400_000])
def test_parts_are_smaller_than_the_limit_and_carry_each_byte_once(shelf: Shelf, limit: int) -> None:
    """Blobs larger than a part are cut; none that fits is."""
    contents = two_platforms(shelf)
    plans = split(contents, limit)
    assert all(len(shelf.written(each)) == each.size < limit for each in plans)
    ranges: dict[Digest, list[tuple[int, int]]] = {}
    for each in (each.source for plan in plans for each in plan.members):
        if isinstance(each, Slice):
            ranges.setdefault(each.digest, []).append((each.offset, each.offset + each.length))
    assert ranges.keys() == contents.blobs.keys()
    for digest, found in ranges.items():
        edges = [edge for piece in sorted(found) for edge in piece]
        assert (edges[0], edges[-1]) == (0, contents.blobs[digest])
        assert edges[1:-1:2] == edges[2:-1:2]
        assert len(found) == 1 or contents.blobs[digest] > limit - 50_000


def test_parts_have_one_document_but_for_the_number(shelf: Shelf) -> None:
    """Each part lists what all of them carry."""
    plans = split(two_platforms(shelf), 100_000)
    assert len(plans) > 2
    assert [each.document.part for each in plans] == list(range(1, len(plans) + 1))
    assert len({each.document.bundle for each in plans}) == 1
    assert len({each.document.parts for each in plans}) == 1
    assert len({each.sha256 for each in plans[0].document.parts}) == len(plans)


def test_part_is_made_again_alone(shelf: Shelf) -> None:
    """The same bytes come without opening a blob of another part."""
    contents = two_platforms(shelf)
    first = [shelf.written(each) for each in split(contents, 100_000)]
    again = split(contents, 100_000)[1]
    own = {each.source.digest for each in again.members if isinstance(each.source, Slice)}
    shelf.blobs = {digest: data for digest, data in shelf.blobs.items() if digest in own}
    assert shelf.written(again) == first[1]


def test_part_names_images_that_are_whole_in_it(shelf: Shelf) -> None:
    """Other programs never take half an image from a part."""
    small = shelf.image([b"small"])
    large = shelf.image([random_bytes(200_000, 1)])
    plans = split(shelf.contents({"quay.io/small:1": small, "quay.io/large:1": large}), 100_000)
    documents = [plan.members.literals[1].source for plan in plans]
    assert sum(b"quay.io/small:1" in each for each in documents if isinstance(each, bytes)) == 1
    assert not any(b"quay.io/large:1" in each for each in documents if isinstance(each, bytes))


def test_limit_that_all_fits_in_makes_one_part(shelf: Shelf) -> None:
    """The one part is the bundle that is not split."""
    contents = two_platforms(shelf)
    assert split(contents, 10**9) == [make_plan(contents)]


@pytest.mark.parametrize("limit", [0, 1000, 70_000])
def test_limit_too_small_for_documents_is_refused_with_the_least(shelf: Shelf, limit: int) -> None:
    """The message says which limit would do."""
    contents = two_platforms(shelf)
    with pytest.raises(BundleError, match="need ") as caught:
        split(contents, limit)
    least = int("".join(filter(str.isdigit, str(caught.value))))
    assert limit < least < 100_000


def test_limit_that_makes_too_many_parts_is_refused(shelf: Shelf) -> None:
    """A typing error (4MiB for 4GiB) is found before the first file."""
    image = shelf.image([b"x"])
    contents = shelf.contents({"quay.io/a:1": image})
    huge = Digest.of(b"huge")
    manifest = shelf.manifest(
        {
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "layers": [{"mediaType": "a/b", "digest": str(huge), "size": 10**12}],
        }
    )
    contents = shelf.contents({"quay.io/a:1": image, "quay.io/huge:1": manifest})
    contents.blobs[huge] = 10**12  # type: ignore[index]
    with pytest.raises(BundleError, match="more than 999"):
        split(contents, 4 * 1024 * 1024)
