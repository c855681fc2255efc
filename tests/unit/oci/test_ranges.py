"""Byte ranges: RFC 9110 section 14, as registry clients use them."""

import email

import pytest

from mirror.oci.errors import Code, RegistryError
from mirror.oci.ranges import MOST_RANGES, Span, multipart, parse_content_range, parse_range, total_length


@pytest.mark.parametrize(
    ("header", "spans"),
    [
        ("bytes=0-", [Span(0, 100)]),
        ("bytes=0-0", [Span(0, 1)]),
        ("bytes=10-19", [Span(10, 20)]),
        ("bytes=90-100", [Span(90, 100)]),
        ("bytes=90-999999999999", [Span(90, 100)]),
        ("bytes=-1", [Span(99, 100)]),
        ("bytes=-1000", [Span(0, 100)]),
        ("Bytes= 1-2 ", [Span(1, 3)]),
        ("bytes=1-2,5-6", [Span(1, 3), Span(5, 7)]),
        ("bytes=5-6, 1-2", [Span(5, 7), Span(1, 3)]),
        ("bytes=1-2,-3", [Span(1, 3), Span(97, 100)]),
    ],
)
def test_ranges_that_can_be_served(header: str, spans: list[Span]) -> None:
    """Clamped to what there is, in the order asked."""
    assert parse_range(header, 100) == spans


@pytest.mark.parametrize(
    "header",
    [
        "",
        "bytes",
        "bytes=",
        "bytes=-",
        "bytes=x-y",
        "bytes=1",
        "bytes=1-2-3",
        "bytes=1-2,",
        "bytes=+1-2",
        "bytes=\u0663-\u0664",
        "lines=1-2",
        "bytes=0-99,0-99",
        "bytes=0-1,100-",
        "bytes=0-1,-0",
        f"bytes={'9' * 30}-",
        "bytes=" + ",".join(["0-0"] * (MOST_RANGES + 1)),
    ],
)
def test_ranges_that_are_ignored(header: str) -> None:
    """Not understood, abusive, or several with one beyond the end: everything is served instead."""
    assert parse_range(header, 100) == []


@pytest.mark.parametrize(
    ("header", "size"),
    [("bytes=100-", 100), ("bytes=500-600", 100), ("bytes=-0", 100), ("bytes=0-", 0), ("bytes=-5", 0)],
)
def test_one_range_beyond_the_end_is_an_error(header: str, size: int) -> None:
    """416, with the size in Content-Range."""
    with pytest.raises(RegistryError) as refused:
        parse_range(header, size)
    assert (refused.value.code, refused.value.status) == (Code.RANGE_INVALID, 416)
    assert refused.value.headers == {"Content-Range": f"bytes */{size}"}


def test_a_range_that_ends_before_it_begins() -> None:
    """Alone it is 416, as the OCI conformance suite wants it; among several it makes them all ignored."""
    with pytest.raises(RegistryError) as refused:
        parse_range("bytes=500-0", 2048)
    assert refused.value.status == 416
    assert parse_range("bytes=0-1,500-0", 2048) == []


def test_a_multipart_body_is_what_parsers_expect() -> None:
    """Parts in order with type and range, and a length that is exact."""
    content = bytes(range(100))
    spans = [Span(50, 60), Span(0, 1), Span(99, 100)]
    parts = multipart(spans, 100, "application/octet-stream", "boundary")
    body = b"".join(part if isinstance(part, bytes) else content[part.start : part.stop] for part in parts)
    assert len(body) == total_length(parts)
    head = b"Content-Type: multipart/byteranges; boundary=boundary\r\n\r\n"
    messages = list(email.message_from_bytes(head + body).walk())[1:]
    assert [each.get_payload(decode=True) for each in messages] == [content[s.start : s.stop] for s in spans]
    assert [each["Content-Range"] for each in messages] == [s.content_range(100) for s in spans]


def test_content_range_is_read() -> None:
    """The part and the size, which may be unknown."""
    assert parse_content_range("bytes 0-9/100") == (Span(0, 10), 100)
    assert parse_content_range(" bytes 5-5/* ") == (Span(5, 6), None)


@pytest.mark.parametrize(
    "header",
    ["", "bytes */100", "bytes 9-0/100", "bytes 0-100/100", "bytes 0-9", "lines 0-9/100", "bytes a-b/c"],
)
def test_a_content_range_that_makes_no_sense(header: str) -> None:
    """ValueError, for the caller to say whose fault it is."""
    with pytest.raises(ValueError, match="Content-Range"):
        parse_content_range(header)
