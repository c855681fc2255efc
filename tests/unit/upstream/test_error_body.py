"""Error answers of upstreams."""

import pytest

from mirror.upstream.error_body import errors_in, excerpt, failure_of, scrub
from mirror.upstream.errors import Failure


@pytest.mark.parametrize(
    ("status", "code", "failure"),
    [
        (404, "", Failure.NOT_FOUND),
        (404, "UNKNOWN", Failure.NOT_FOUND),
        (400, "MANIFEST_UNKNOWN", Failure.NOT_FOUND),
        (400, "MANIFEST_INVALID", Failure.INVALID),
        (401, "UNAUTHORIZED", Failure.DENIED),
        (403, "DENIED", Failure.DENIED),
        (403, "TOOMANYREQUESTS", Failure.RATE_LIMITED),
        (429, "", Failure.RATE_LIMITED),
        (408, "", Failure.TIMEOUT),
        (500, "", Failure.SERVER_ERROR),
        (503, "NAME_UNKNOWN", Failure.SERVER_ERROR),
        (418, "", Failure.INVALID),
        (302, "", Failure.INVALID),
    ],
)
def test_failure_of_status_and_code(status: int, code: str, failure: Failure) -> None:
    """Status and error code together tell the failure."""
    assert failure_of(status, frozenset({code})) is failure


@pytest.mark.parametrize(
    "body", [b"", b"<html>", b"[]", b'{"errors": 1}', b'{"errors": ["x"]}', b"[" * 100_000, b"\xff"]
)
def test_errors_in_other_bodies(body: bytes) -> None:
    """A body that is no OCI error document has no errors in it, and raises none."""
    assert errors_in(body) == []


def test_excerpt_of_errors() -> None:
    """An error document is quoted by code and message."""
    body = b'{"errors":[{"code":"DENIED","message":"go\\naway"},{"code":"UNKNOWN"}]}'
    assert excerpt(body, "application/json") == "DENIED: go away; UNKNOWN"


def test_excerpt_of_text_and_pages() -> None:
    """Plain text is quoted, pages for browsers and XML are not."""
    assert excerpt(b"toomanyrequests: Rate exceeded", "text/plain") == "toomanyrequests: Rate exceeded"
    assert excerpt(b"<html>sign in</html>", "text/html") == ""
    assert excerpt(b"<Error><ArgumentValue>Bearer x</ArgumentValue></Error>", "application/xml") == ""


@pytest.mark.parametrize(
    "text",
    [
        "Authorization: Bearer geheim",
        "basic geheim== refused",
        "see https://user:geheim@host/x",
        "see https://host/x?sig=geheim&a=geheim",
        "token " + "geheim" * 30,
        "Basic https://user:geheim@host/x?sig=geheim",
    ],
)
def test_scrub_removes_what_looks_secret(text: str) -> None:
    """Nothing that looks like a credential survives in an excerpt."""
    assert "geheim" not in scrub(text)


def test_scrub_keeps_digests_and_length() -> None:
    """Digests stay readable, control characters go, and the length is bounded."""
    digest = "sha512:" + "a" * 128
    assert scrub(f"{digest} unknown") == f"{digest} unknown"
    assert scrub("a\x1b[31mb\r\nc") == "a [31mb c"
    assert len(scrub("word " * 1000)) == 200


@pytest.mark.parametrize("depth", [100, 500, 900])
@pytest.mark.parametrize("name", ["code", "message"])
def test_errors_in_nested_document(name: str, depth: int) -> None:
    """A value that is nested too deeply to be shown is no text, and no failure of the mirror."""
    body = b'{"errors":[{"%s":%s}]}' % (name.encode(), b"[" * depth + b"]" * depth)
    assert errors_in(body) in ([("", "")], [])


@pytest.mark.parametrize("entry", ["{}", '{"code":"A"}', "[]"])
def test_errors_in_flood_are_not_parsed(entry: str) -> None:
    """More entries than any error has are none."""
    assert errors_in(f'{{"errors":[{",".join([entry] * 5000)}]}}'.encode()) == []


def test_scrub_shows_no_beginning_of_a_secret() -> None:
    """A credential at the place where a long text is cut is not shown either."""
    text = "x" * 950 + " " + "geheim" * 30
    assert "geheim" not in scrub(text)
