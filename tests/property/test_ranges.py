"""The parser of ranges, over any header: spans are bounded and inside the content."""

from hypothesis import given
from hypothesis import strategies as st

from mirror.oci.errors import RegistryError
from mirror.oci.ranges import (
    MAX_RANGES,
    MULTIPART_SURPLUS_BYTES,
    Span,
    multipart,
    parse_content_range,
    parse_range,
    total_length,
)

numbers = st.one_of(st.just(""), st.integers(0, 40).map(str), st.text(alphabet="0123456789 x-", max_size=4))
headers = st.builds(
    lambda pairs: "bytes=" + ",".join(f"{first}-{last}" for first, last in pairs),
    st.lists(st.tuples(numbers, numbers), min_size=1, max_size=5),
)


@given(st.one_of(st.text(), headers), st.integers(0, 30))
def test_range_spans_are_inside_the_content(header: str, size: int) -> None:
    """Every span has bytes that exist, and all spans together have at most the whole content."""
    try:
        spans = parse_range(header, size)
    except RegistryError:
        return  # a single range beyond the end
    assert all(0 <= span.start < span.stop <= size for span in spans)
    assert sum(span.length for span in spans) <= size


@given(st.integers(1, 2000), st.integers(1, 400), st.sampled_from([10**4, 10**6, 10**12, 10**18]))
def test_multipart_is_hardly_longer_than_the_whole(count: int, length: int, size: int) -> None:
    """Many ranges are served only where the parts with their heads are hardly longer than the whole."""
    ends = [size - length * index for index in range(count)]
    spans = parse_range("bytes=" + ",".join(f"{end - length}-{end - 1}" for end in ends), size)
    if len(spans) < 2:
        return
    parts = multipart(spans, size, "application/octet-stream", "x" * 32)
    assert len(spans) == count <= MAX_RANGES
    assert total_length(parts[:-1]) <= size + MULTIPART_SURPLUS_BYTES


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(1, 50)), min_size=1, max_size=8))
def test_multipart_lengths_are_exact(pairs: list[tuple[int, int]]) -> None:
    """The announced length is the number of bytes sent."""
    spans = [Span(start, start + length) for start, length in pairs]
    parts = multipart(spans, 100, "a/b", "x")
    body = b"".join(part if isinstance(part, bytes) else b"." * part.length for part in parts)
    assert len(body) == total_length(parts)


@given(st.integers(0, 1000), st.integers(1, 1000), st.integers(0, 1000))
def test_content_range_parses_back(start: int, length: int, more: int) -> None:
    """The parser accepts what Span.content_range writes."""
    span, size = Span(start, start + length), start + length + more
    assert parse_content_range(span.content_range(size)) == (span, size)
