"""registry-mirror.json."""

import hashlib
from contextlib import suppress

import msgspec
import pytest

from mirror.bundle.document import NAME, Document, decode
from mirror.bundle.errors import BundleError, Unsupported
from mirror.bundle.parts import split
from mirror.bundle.plan import make_plan
from mirror.oci.digest import Digest
from tests.fakes.bundles import Shelf, two_platforms


@pytest.fixture
def shelf() -> Shelf:
    return Shelf()


def test_document_is_read_as_it_was_written(shelf: Shelf) -> None:
    """Images, links, referrers and carried blobs survive."""
    contents = two_platforms(shelf)
    document = make_plan(contents).document
    read = decode(document.encoded())
    assert read == document
    assert {each.image() for each in read.images} == set(contents.images)
    assert read.carried() == contents.blobs
    assert {each.digest for each in read.manifests} == set(map(str, contents.manifests))
    (referred,) = read.referrers.values()
    assert referred[0] in read.links["quay.io/org/app"]
    assert len(read.links["docker.io/library/one"]) == 1


def test_document_names_platforms_left_out(shelf: Shelf) -> None:
    """A platform left out is a choice, and not lacking."""
    amd = shelf.image([b"amd"])
    arm = Shelf().image([b"arm"], "arm64")
    index = shelf.index({"amd64": amd, "arm64": arm})
    (image,) = make_plan(shelf.contents({"quay.io/a:1": index})).document.images
    assert [(each.digest, each.platform) for each in image.absent] == [(str(arm.digest), "linux/arm64")]


def test_document_counts_the_base_of_a_delta(shelf: Shelf) -> None:
    """Two deltas against different receivers have different documents."""
    layers = [b"one", b"two"]
    image = shelf.image(layers)
    plans = [
        make_plan(shelf.contents({"quay.io/a:1": image}, frozenset({Digest.of(each)}))) for each in layers
    ]
    bases = [each.document.base for each in plans]
    assert [base.count for base in bases if base] == [1, 1]
    assert bases[0] != bases[1]
    assert plans[0].document.bundle != plans[1].document.bundle


def damaged(document: Document, **fields: object) -> bytes:
    """Return a document with other fields; its SHA-256 is right, where its types are."""
    data = msgspec.json.encode({**msgspec.to_builtins(document), **fields})
    with suppress(msgspec.DecodeError):
        read = msgspec.json.decode(data, type=Document)
        whole = msgspec.structs.replace(read, bundle="", part=0)
        named = msgspec.structs.replace(read, bundle=hashlib.sha256(whole.encoded()).hexdigest())
        return named.encoded()
    return data


@pytest.mark.parametrize(
    "fields",
    [
        {"part": 2},
        {"part": "1"},
        {"parts": []},
        {"parts": [{"sha256": "", "blobs": [["sha256:zz", 1, 0, -1]]}]},
        {"parts": [{"sha256": "", "blobs": [[str(Digest.of(b"")), 5, 3, 3]]}]},
        {"parts": [{"sha256": "", "blobs": [[str(Digest.of(b"")), -1, 0, -1]]}]},
        {"images": [{"name": "v1", "mediaType": "a/b", "digest": str(Digest.of(b"")), "size": 1}]},
        {"images": [{"name": "q.io/a:1", "mediaType": "a\r\nb", "digest": str(Digest.of(b"")), "size": 1}]},
        {"manifests": [{"digest": "../../etc/passwd", "mediaType": "a/b", "size": 1}]},
        {"links": {"quay.io/a": ["rubbish"]}},
        {"referrers": {"rubbish": []}},
        {"referrers": {str(Digest.of(b"")): ["rubbish"]}},
    ],
)
def test_document_that_is_wrong_is_refused_by_name(shelf: Shelf, fields: dict[str, object]) -> None:
    """Numbers of parts, digests, media types, names and pieces are checked."""
    document = make_plan(two_platforms(shelf)).document
    with pytest.raises(BundleError, match=NAME):
        decode(damaged(document, **fields))


@pytest.mark.parametrize("confirmed", [-1, 10**12, 10**400])
def test_document_with_a_time_that_cannot_be_is_refused(shelf: Shelf, confirmed: int) -> None:
    """A later time wins over the tag that is here, and one of 400 digits fits no number."""
    image = make_plan(two_platforms(shelf)).document.images[0]
    with pytest.raises(BundleError, match="at no time"):
        msgspec.structs.replace(image, confirmed=confirmed).image()


@pytest.mark.parametrize(
    "data", [b"", b"{}", b"[]", b"null", b"[" * 100_000, b'{"format":1}', b'{"format":1,"bundle":"\xb9"}']
)
def test_document_that_is_none_is_refused(data: bytes) -> None:
    """Deep nesting is no crash."""
    with pytest.raises(BundleError):
        decode(data)


def test_document_of_a_later_format_is_refused_with_its_number(shelf: Shelf) -> None:
    """The message names both formats."""
    document = make_plan(two_platforms(shelf)).document
    with pytest.raises(Unsupported, match=r"format 7 .* reads format 1"):
        decode(damaged(document, format=7, part="seven"))


def test_bundle_has_one_name_in_all_its_parts(shelf: Shelf) -> None:
    """The name follows from the contents and from how they are distributed."""
    contents = two_platforms(shelf)
    whole, parts = make_plan(contents).document, [each.document for each in split(contents, 100_000)]
    assert len({each.bundle for each in parts}) == 1
    assert whole.bundle != parts[0].bundle
    assert decode(parts[2].encoded()).part == 3
