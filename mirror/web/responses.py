"""HTTP responses as clients check them: headers, conditions, ranges, and bodies sent by `sendfile`."""

import re
import secrets
from collections.abc import Mapping

from aiohttp import web

from mirror.cache.readers import BlobContent
from mirror.oci.digest import Digest
from mirror.oci.errors import RegistryError
from mirror.oci.media_type import OCTETS, is_media_type
from mirror.oci.ranges import Span, multipart, parse_range, total_length
from mirror.transfer.passthrough import ENDLESS
from mirror.web.connections.large_answers import LARGE, LargeResponse
from mirror.web.request_log import RequestRecord
from mirror.web.sendfile import BodySender

# Longest If-None-Match that is parsed, in bytes: dozens of digests. A longer one matches nothing.
CONDITION_BYTES = 4096

# A range from the first byte on, and the fewest digits of its last byte: 1 MB or so. Clients that pull a
# layer in parts ask for several MiB at a time.
BEGINNING = re.compile(r"bytes=0-([0-9]*)")
BEGINNING_DIGITS = 7

# What is replaced in the text of a Warning: quotes, and escapes, of which containerd decodes %xx.
UNQUOTED = re.compile(r"[^ !#$&-\[\]-~]")
WARNING_CHARACTERS = 240

BLOB_TYPE = OCTETS
SERVER = {"Server": "registry-mirror"}
NO_HEADERS: Mapping[str, str] = {}

# A header of a request that may decide from which registry the answer comes: a cache in front of the mirror
# must not give an answer to another one.
NAMESPACE = "OCI-Namespace"
COMMON = {"Docker-Distribution-Api-Version": "registry/2.0", "Vary": NAMESPACE, **SERVER}


def buffered(
    record: RequestRecord, status: int, headers: Mapping[str, str], body: bytes
) -> web.StreamResponse:
    """Return a response with a body from memory.

    For HEAD: the same head, Content-Length included, and no body.
    """
    record.status = status
    record.bytes = 0 if record.request.method == "HEAD" else len(body)
    record.first_byte()
    kind = LargeResponse if record.bytes >= LARGE else web.Response
    return kind(status=status, body=body, headers={**COMMON, "Content-Length": str(len(body)), **headers})


def json_body(
    record: RequestRecord, body: bytes, headers: Mapping[str, str] | None = None
) -> web.StreamResponse:
    return buffered(record, 200, {"Content-Type": "application/json", **(headers or {})}, body)


def head(record: RequestRecord, headers: Mapping[str, str], size: int | None) -> web.StreamResponse:
    """Return the head of a response whose body of `size` bytes, None for unknown, is not sent."""
    record.status = 200
    record.first_byte()
    length = {} if size is None else {"Content-Length": str(size)}
    return web.Response(headers={**COMMON, **headers, **length})


def error(record: RequestRecord, failure: RegistryError) -> web.StreamResponse:
    record.note = failure.message
    headers = {"Content-Type": "application/json", **failure.headers}
    return buffered(record, failure.status, headers, failure.body())


def not_modified(
    record: RequestRecord, digest: Digest, extra: Mapping[str, str] = NO_HEADERS
) -> web.StreamResponse:
    record.status = 304
    record.first_byte()
    return web.Response(status=304, headers={**COMMON, **content_headers(digest), **extra})


def stale_headers(age: float | None, reason: str | None) -> dict[str, str]:
    """Return the headers that mark a stale response; `age` in seconds.

    Warning is obsolete since RFC 9111 (5.5), but proxies and people still look for this header. The line with
    299 is that of the OCI distribution-spec ("Warnings"), which clients show to their users, if it is a line
    of its own (tests/e2e/test_shown.py). Two spellings of one name make two lines.
    """
    headers = {}
    if reason is not None:
        text = UNQUOTED.sub("'", f"registry-mirror: not confirmed: {reason}"[:WARNING_CHARACTERS])
        headers["warning"] = f'299 - "{text}"'
    headers["Warning"] = '110 registry-mirror "Response is Stale"'
    return headers if age is None else {**headers, "Age": str(max(0, round(age)))}


def content_type(media_type: str) -> str:
    """Return the Content-Type for a stored media type, which an earlier version may have taken unchecked."""
    return media_type if is_media_type(media_type) else BLOB_TYPE


def content_headers(digest: Digest) -> dict[str, str]:
    return {"Docker-Content-Digest": str(digest), "ETag": f'"{digest}"'}


def matches(condition: str | None, digest: Digest) -> bool:
    """Return whether an If-None-Match names the digest (RFC 9110 13.1.2: weak comparison)."""
    if condition is None or len(condition) > CONDITION_BYTES:
        return False
    tags = [each.strip().removeprefix("W/") for each in condition.split(",")]
    return "*" in tags or f'"{digest}"' in tags


def reads_beginning(header: str | None) -> bool:
    """Return whether a request with this Range reads a blob as a pull does.

    Lazy pulls do not: they ask for parts anywhere, or for two bytes to see whether ranges work.
    """
    if header is None:
        return True
    found = BEGINNING.fullmatch(header)
    return found is not None and (not found[1] or len(found[1]) >= BEGINNING_DIGITS)


def requested_spans(request: web.BaseRequest, digest: Digest, size: int) -> list[Span]:
    """Return the requested parts of the blob; none means all. RegistryError 416 for a range beyond it."""
    header = request.headers.get("Range")
    condition = request.headers.get("If-Range")
    if header is None or (condition is not None and condition.strip() != f'"{digest}"'):
        return []
    return parse_range(header, size)


def small_blob(
    record: RequestRecord, digest: Digest, data: bytes, extra: Mapping[str, str] = NO_HEADERS
) -> web.StreamResponse:
    """Return a response with a blob that is in memory, or with ranges of the blob; `extra`: headers."""
    status, headers, parts = _plan(digest, len(data), requested_spans(record.request, digest, len(data)))
    body = b"".join(part if isinstance(part, bytes) else data[part.start : part.stop] for part in parts)
    return buffered(record, status, {**headers, **extra}, body)


async def send_blob(
    record: RequestRecord,
    digest: Digest,
    reader: BlobContent,
    spans: list[Span],
    extra: Mapping[str, str] = NO_HEADERS,
) -> web.StreamResponse:
    """Stream the blob, or ranges of it; cut short, with FIN, when the rest cannot come (invariant 4).

    `extra`: further headers.
    """
    parts: list[bytes | Span]
    if reader.size is None:
        headers = {**COMMON, **content_headers(digest), "Content-Type": BLOB_TYPE}
        status, parts = 200, [Span(0, ENDLESS)]
    else:
        status, headers, parts = _plan(digest, reader.size, spans)
        record.length = total_length(parts)
    response = web.StreamResponse(status=status, headers={**headers, **extra})
    if reader.size is None:
        response.enable_chunked_encoding()
    record.status = status
    record.streaming = True
    writer = await response.prepare(record.request)
    record.first_byte()
    record.on_begun(reader, response)
    with BodySender(record, writer, reader) as sender:
        for part in parts:
            if isinstance(part, bytes):
                await response.write(part)
                record.bytes += len(part)
            else:
                await sender.send(part)
    await response.write_eof()
    record.on_sent(reader, response)
    return response


def cut_short(record: RequestRecord) -> web.StreamResponse:
    """Close the connection in mid-body: the client sees a short body, and resumes or retries."""
    if record.request.transport is not None:
        record.request.transport.close()
    return web.Response(status=record.status)


def _plan(digest: Digest, size: int, spans: list[Span]) -> tuple[int, dict[str, str], list[bytes | Span]]:
    """Return status and headers of the response, and the parts of its body."""
    headers = {**COMMON, **content_headers(digest), "Accept-Ranges": "bytes", "Content-Type": BLOB_TYPE}
    parts: list[bytes | Span]
    if not spans:
        status, parts = 200, [Span(0, size)]
    elif len(spans) == 1:
        status, parts = 206, [spans[0]]
        headers["Content-Range"] = spans[0].content_range(size)
    else:
        boundary = secrets.token_hex(16)
        status, parts = 206, multipart(spans, size, BLOB_TYPE, boundary)
        headers["Content-Type"] = f"multipart/byteranges; boundary={boundary}"
    headers["Content-Length"] = str(total_length(parts))
    return status, headers, parts
