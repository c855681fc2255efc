"""Bytes of bundles."""

import hashlib
import io

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mirror.bundle.errors import BundleError, Damaged
from mirror.bundle.parts import split
from mirror.bundle.plan import BundlePlan, make_plan
from mirror.bundle.writer import resume_offset, write
from mirror.oci.digest import Digest
from tests.fakes.bundles import Shelf, random_bytes, two_platforms

SHELF = Shelf()
PLANS = [make_plan(two_platforms(SHELF)), *split(two_platforms(SHELF), 100_000)]
BYTES = [SHELF.written(each) for each in PLANS]


@settings(max_examples=200, deadline=None)
@given(number=st.integers(0, len(PLANS) - 1), data=st.data())
def test_writing_from_any_offset_gives_the_rest(number: int, data: st.DataObject) -> None:
    """Offsets in a header, a document, a blob, a piece, a sum, or the end are all alike."""
    plan, whole = PLANS[number], BYTES[number]
    offset = data.draw(st.integers(0, plan.size))
    out = io.BytesIO()
    written = write(plan, SHELF.open, out, offset)
    assert (out.getvalue(), written.bytes) == (whole[offset:], plan.size - offset)


@pytest.mark.parametrize("offset", [0, 1, 50_000])
def test_sha256_is_that_of_the_whole_tar(offset: int) -> None:
    """A resumed one has the same."""
    written = write(PLANS[0], SHELF.open, io.BytesIO(), offset, sha256=True)
    assert written.sha256 == hashlib.sha256(BYTES[0]).hexdigest()


def test_progress_counts_bytes_written() -> None:
    """The sum is what was written."""
    counts: list[int] = []
    write(PLANS[0], SHELF.open, io.BytesIO(), 1000, counts.append)
    assert sum(counts) == PLANS[0].size - 1000


def test_progress_can_end_the_writing() -> None:
    """An interrupted export goes on from the size of its file."""
    out = io.BytesIO()

    def stop(count: int) -> None:
        if out.tell() > 100_000:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write(PLANS[0], SHELF.open, out, progress=stop)
    assert out.getvalue() == BYTES[0][: out.tell()]


def test_short_writes_are_continued() -> None:
    """A raw pipe takes what it has room for."""

    class Pipe(io.BytesIO):
        def write(self, data: memoryview) -> int:  # type: ignore[override]
            return super().write(data[:1000])

    out = Pipe()
    write(PLANS[0], SHELF.open, out)
    assert out.getvalue() == BYTES[0]


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda data: data[:-1], "ends after"),
        (lambda data: data + b"x", "more bytes"),
        (lambda data: bytes([data[0] ^ 1]) + data[1:], "another digest"),
    ],
    ids=["short", "long", "changed"],
)
def test_damaged_blob_is_named(change: object, match: str) -> None:
    """A blob that changed on the disk is not carried to another place."""
    shelf = Shelf()
    plan = make_plan(two_platforms(shelf))
    digest = Digest.of(random_bytes(70_000, 2))
    shelf.blobs[digest] = change(shelf.blobs[digest])  # type: ignore[operator]
    with pytest.raises(Damaged, match=f"{digest}.*{match}"):
        write(plan, shelf.open, io.BytesIO())


@settings(max_examples=100, deadline=None)
@given(number=st.integers(0, len(PLANS) - 1), data=st.data())
def test_resume_offset_is_where_the_last_member_begins(number: int, data: st.DataObject) -> None:
    """Writing goes on at a header, so that its blob is hashed from its beginning."""
    plan, whole = PLANS[number], BYTES[number]
    end = data.draw(st.integers(0, plan.size))
    offset = resume_offset(plan, io.BytesIO(whole[:end]))
    assert offset <= end
    assert offset in {*plan.offsets(), plan.size - 1024}
    assert end - offset < max(each.length for each in plan.members) + 1024


def test_resume_offset_of_another_bundle_is_refused() -> None:
    """The file is left as it is."""
    other = resume_of(make_plan(two_platforms(Shelf())), BYTES[2])
    assert "not the beginning of this bundle" in other


def resume_of(plan: BundlePlan, data: bytes) -> str:
    with pytest.raises(BundleError) as caught:
        resume_offset(plan, io.BytesIO(data))
    return str(caught.value)
