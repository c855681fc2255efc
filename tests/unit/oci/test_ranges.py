"""Byte ranges (RFC 9110 section 14), as registry clients use them."""

import email

import pytest

from mirror.oci.errors import Code, RegistryError
from mirror.oci.ranges import MAX_RANGES, Span, multipart, parse_content_range, parse_range, total_length


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
def test_range_is_parsed(header: str, spans: list[Span]) -> None:
    """Spans are clamped to the content and are in the requested order."""
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
        "bytes=" + ",".join(["0-0"] * (MAX_RANGES + 1)),
    ],
)
def test_range_is_ignored(header: str) -> None:
    """A malformed or abusive header, or several ranges with one beyond the end, gets the whole content."""
    assert parse_range(header, 100) == []


@pytest.mark.parametrize(
    ("header", "size"),
    [("bytes=100-", 100), ("bytes=500-600", 100), ("bytes=-0", 100), ("bytes=0-", 0), ("bytes=-5", 0)],
)
def test_range_beyond_the_end_is_an_error(header: str, size: int) -> None:
    """A single range beyond the end is a 416 with the size in Content-Range."""
    with pytest.raises(RegistryError) as refused:
        parse_range(header, size)
    assert (refused.value.code, refused.value.status) == (Code.RANGE_INVALID, 416)
    assert refused.value.headers == {"Content-Range": f"bytes */{size}"}


def test_range_that_ends_before_its_beginning() -> None:
    """A single inverted range is a 416, as the OCI conformance suite expects; several are then ignored."""
    with pytest.raises(RegistryError) as refused:
        parse_range("bytes=500-0", 2048)
    assert refused.value.status == 416
    assert parse_range("bytes=0-1,500-0", 2048) == []


def test_multipart_body_parses() -> None:
    """Parts are in order, with type and range, and the announced length is exact."""
    content = bytes(range(100))
    spans = [Span(50, 60), Span(0, 1), Span(99, 100)]
    parts = multipart(spans, 100, "application/octet-stream", "boundary")
    body = b"".join(part if isinstance(part, bytes) else content[part.start : part.stop] for part in parts)
    assert len(body) == total_length(parts)
    head = b"Content-Type: multipart/byteranges; boundary=boundary\r\n\r\n"
    messages = list(email.message_from_bytes(head + body).walk())[1:]
    assert [each.get_payload(decode=True) for each in messages] == [content[s.start : s.stop] for s in spans]
    assert [each["Content-Range"] for each in messages] == [s.content_range(100) for s in spans]


def test_content_range_is_parsed() -> None:
    """The span and the size are returned; the size may be unknown."""
    assert parse_content_range("bytes 0-9/100") == (Span(0, 10), 100)
    assert parse_content_range(" bytes 5-5/* ") == (Span(5, 6), None)


@pytest.mark.parametrize(
    "header",
    [
        "bytes 0-0/9223372036854775808",
        "bytes 9223372036854775807-9223372036854775807/*",
        "",
        "bytes */100",
        "bytes 9-0/100",
        "bytes 0-100/100",
        "bytes 0-9",
        "lines 0-9/100",
        "bytes a-b/c",
    ],
)
def test_impossible_content_range_is_refused(header: str) -> None:
    """The error is ValueError: the caller knows whose fault the header is."""
    with pytest.raises(ValueError, match="Content-Range"):
        parse_content_range(header)
