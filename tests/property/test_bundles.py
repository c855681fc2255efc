"""Rules over bundles: parts in any order, deltas with their base, and one wrong bit anywhere."""

import io
from contextlib import suppress

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mirror.bundle.archives.opening import open_archive
from mirror.bundle.errors import BundleError
from mirror.bundle.model import BundleContents, ContentDescriptor
from mirror.bundle.parts import split
from mirror.bundle.plan import make_plan
from mirror.oci.digest import Digest
from tests.fakes.bundles import Shelf, Taken, random_bytes, two_platforms

RULES = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])

# Sizes around the borders of blocks and of parts.
SIZES = st.one_of(st.integers(0, 3000), st.sampled_from([511, 512, 513, 65_536, 150_000, 300_001]))


@st.composite
def shelves(draw: st.DrawFn) -> tuple[Shelf, BundleContents]:
    """Images of shared and own layers, some in an index, some with a signature."""
    shelf = Shelf()
    layers = [
        random_bytes(size, number)
        for number, size in enumerate(draw(st.lists(SIZES, min_size=1, max_size=5)))
    ]
    images: dict[str, ContentDescriptor] = {}
    for number in range(draw(st.integers(1, 3))):
        root = shelf.image(draw(st.lists(st.sampled_from(layers), max_size=3)), f"arch{number}")
        if draw(st.booleans()):
            root = shelf.index({"amd64": root})
        if draw(st.booleans()):
            shelf.referrer(root, b"signature %d" % number)
        images[f"quay.io/org/app{number % 2}:{number}"] = root
    return shelf, shelf.contents(images)


def received(*data: bytes) -> Taken:
    taken = Taken()
    for each in data:
        with open_archive(io.BytesIO(each)) as archive:
            taken.take(archive)
    return taken


@RULES
@given(made=shelves(), data=st.data())
def test_parts_in_any_order_give_what_the_whole_gives(
    made: tuple[Shelf, BundleContents], data: st.DataObject
) -> None:
    """Parts of any size, each smaller than the limit."""
    shelf, contents = made
    limit = data.draw(st.integers(90_000, 400_000))
    parts = [shelf.written(plan) for plan in split(contents, limit)]
    assert max(map(len, parts)) < limit
    order = data.draw(st.permutations(parts))
    whole = received(shelf.written(make_plan(contents)))
    assert received(*order).whole().items() >= shelf.blobs.items()
    assert whole.contents.items() >= shelf.blobs.items()


@RULES
@given(made=shelves(), data=st.data())
def test_base_and_delta_give_the_whole(made: tuple[Shelf, BundleContents], data: st.DataObject) -> None:
    """The delta carries no byte of a blob that the base has."""
    shelf, contents = made
    base = frozenset(data.draw(st.sets(st.sampled_from(sorted(contents.blobs)))))
    delta = make_plan(shelf.contents({each.name: each.root for each in contents.images}, assumed=base))
    taken = received(shelf.written(delta))
    assert base.isdisjoint(taken.contents)
    assert {
        **taken.contents,
        **{digest: shelf.blobs[digest] for digest in base},
    }.items() >= shelf.blobs.items()


@RULES
@given(made=shelves())
def test_reading_and_writing_again_gives_the_same_bytes(made: tuple[Shelf, BundleContents]) -> None:
    """A receiver can hand on what it got, byte for byte."""
    shelf, contents = made
    first = shelf.written(make_plan(contents))
    receiver = Shelf()
    with open_archive(io.BytesIO(first)) as archive:
        taken = Taken().take(archive)
        receiver.manifests = dict(archive.manifests)
        receiver.blobs = {
            digest: each for digest, each in taken.contents.items() if digest not in receiver.manifests
        }
        images = {each.name: each.root for each in archive.images}
    assert receiver.written(make_plan(receiver.contents(images))) == first


SHELF = Shelf()
WHOLE = SHELF.written(make_plan(two_platforms(SHELF)))
PART = SHELF.written(split(two_platforms(SHELF), 100_000)[1])


def tampered(data: bytes, place: int, bit: int) -> bool:
    """Return whether one changed bit is refused, or at least seen."""
    changed = bytearray(data)
    changed[place] ^= 1 << bit
    try:
        with open_archive(io.BytesIO(bytes(changed))) as archive:
            taken = Taken().take(archive)
            assert all(Digest.of(each) == digest for digest, each in taken.contents.items())
            return not archive.exact
    except BundleError:
        return True


@settings(max_examples=400, deadline=None)
@given(whole=st.booleans(), place=st.integers(0, len(WHOLE) - 1), bit=st.integers(0, 7))
def test_one_wrong_bit_anywhere_is_seen(whole: bool, place: int, bit: int) -> None:
    """Headers, fills, documents, manifests, blobs, pieces, sums, the end."""
    data = WHOLE if whole else PART
    assert tampered(data, place % len(data), bit)


def test_one_wrong_byte_in_each_block_before_the_blobs_is_seen() -> None:
    """Every block of the documents and their headers, at several places."""
    for data in (WHOLE, PART):
        for block in range(0, 24 * 512, 512):
            for place in (0, 1, 100, 124, 148, 154, 156, 257, 345, 500, 511):
                assert tampered(data, block + place, 0), (block, place)


EDITS = st.lists(
    st.tuples(
        st.integers(0, 24 * 512),
        st.sampled_from([b'"', b"{", b"]", b"null", b"-1", b"1e999", b"9" * 30, b"\xff", b"../", bytes(512)]),
        st.integers(0, 600),
    ),
    min_size=1,
    max_size=4,
)


@settings(max_examples=200, deadline=None)
@given(edits=EDITS, whole=st.booleans())
def test_changed_archive_is_refused_or_proven(edits: list[tuple[int, bytes, int]], whole: bool) -> None:
    """No other error than ours, and no content without its proof, wherever bytes are put or taken away."""
    data = WHOLE if whole else PART
    for place, inserted, removed in edits:
        data = data[:place] + inserted + data[place + removed :]
    with suppress(BundleError), open_archive(io.BytesIO(data)) as archive:
        for digest, each in Taken().take(archive).contents.items():
            assert Digest.of(each) == digest


@settings(max_examples=100, deadline=None)
@given(end=st.integers(0, len(WHOLE) - 1))
def test_bundle_that_is_cut_short_is_seen(end: int) -> None:
    """No place looks like an end."""
    try:
        with open_archive(io.BytesIO(WHOLE[:end])) as archive:
            Taken().take(archive)
            assert not archive.exact
    except BundleError:
        pass
