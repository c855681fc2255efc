"""Marks of digests as objects."""

from hypothesis import given
from hypothesis import strategies as st

from mirror.oci.digest import Digest
from mirror.shared.upkeep.marks import MARK_BYTES, MOST_MARKS, mark_of, marks_to_objects, read_marks


def test_marks_come_back_from_as_many_objects_as_they_need() -> None:
    """One object is bounded; the marks of several are those that were written."""
    marks = {number.to_bytes(MARK_BYTES, "big") for number in range(MOST_MARKS + 1)}
    objects = list(marks_to_objects(marks))
    assert len(objects) == 2
    assert set().union(*map(read_marks, objects)) == marks
    assert list(marks_to_objects(())) == []


@given(st.binary(max_size=100))
def test_marks_of_other_bytes_are_none(data: bytes) -> None:
    """Whole marks, or nothing."""
    assert len(read_marks(data)) <= len(data) / MARK_BYTES
    assert read_marks(data + b"x" * (MARK_BYTES - len(data) % MARK_BYTES) + b"x") == set()


def test_mark_is_the_beginning_of_a_digest() -> None:
    """Digests of any algorithm have marks of one length."""
    for algorithm in ("sha256", "sha512"):
        digest = Digest.of(b"x", algorithm)
        assert digest.encoded.startswith(mark_of(digest).hex())
