"""Judgement of what came back: the promises that hold for every client and every upstream."""

import email
import json
import re
from collections.abc import Iterator
from hashlib import new

from mirror.oci.errors import Code
from mirror.store.partial.growing import HOLDBACK_BYTES
from tests.fuzz.cases import UNAVAILABLE, Case, Expected, Request, Way
from tests.fuzz.client import Heard, Response

# Statuses that answer a damaged request: right ones, and those of a client's fault. 505: a version of HTTP
# that is not spoken here (mirror/web/framing.py).
ANYTHING = frozenset({200, 206, 304, 400, 404, 405, 413, 414, 416, 417, 431, 505})

CODES = {each.value for each in Code}
_RANGE = re.compile(r"bytes ([0-9]+)-([0-9]+)/([0-9]+)")


def faults_of(case: Case, heard: Heard) -> Iterator[str]:
    """Yield what is wrong with what came back for a case."""
    if heard.trouble:
        yield heard.trouble
    if heard.end == "silent":
        yield f"no answer and no end, after the statuses {heard.statuses}"
        return
    if case.damaged:
        yield from _damaged_faults(case, heard)
        return
    for place, (request, response) in enumerate(zip(case.requests, heard.responses, strict=False)):
        assert request.expected is not None
        # A client that ends its direction has left, for aiohttp: the body that is being sent ends there.
        left = case.way is Way.HALF_CLOSED and place == len(heard.responses) - 1
        found = _cut_faults if left and not response.complete else response_faults
        yield from (f"request {place}: {each}" for each in found(request, response))
    if len(heard.responses) < len(case.requests) and not _may_end_early(case, heard):
        yield f"{len(case.requests)} requests and {len(heard.responses)} responses: {heard.statuses}"


def _damaged_faults(case: Case, heard: Heard) -> Iterator[str]:
    right = next((each for each in case.requests if each.expected is not None), None)
    for place, response in enumerate(heard.responses):
        request = right if place == 0 and right is case.requests[0] else None
        yield from response_faults(request or Request(b"", "?"), response)
    if heard.end == "open":
        yield f"the connection stays open behind the statuses {heard.statuses}"
    gone = heard.end == "reset" and b"close" in case.requests[0].data.lower()  # and sends more all the same
    if not heard.responses and case.way is not Way.HALF_CLOSED and not gone:
        yield f"no response, and the connection is {heard.end}"


def _may_end_early(case: Case, heard: Heard) -> bool:
    if case.way is Way.HALF_CLOSED:  # a client that ends its direction has left, for aiohttp
        return True
    if not heard.responses:
        return False
    last = heard.responses[-1]
    return not last.complete or last.header("connection") == "close"


def response_faults(request: Request, response: Response) -> Iterator[str]:
    """Yield what is wrong with one response."""
    expected, status = request.expected, response.status
    allowed = ANYTHING if expected is None else expected.statuses
    if b"odd" in request.data and expected is None:
        allowed |= UNAVAILABLE
    if status not in allowed:
        yield f"status {status}, expected one of {sorted(allowed)}: {response.body[:300]!r}"
        return
    if response.header("server") != "registry-mirror":
        yield f"status {status} without the mirror's Server header"
    unknown = (
        expected is not None and expected.odd and request.method == "HEAD"
    )  # the upstream gave no length
    if status != 304 and not unknown and not response.header("content-length").isdigit():
        yield f"status {status} without a Content-Length"
    if not response.complete:
        if expected is None or not expected.odd:
            yield f"status {status} with {len(response.body)} of {response.header('content-length')} bytes"
        return
    if status >= 400:
        yield from _error_faults(request, response)
    elif request.method != "HEAD":
        yield from _content_faults(expected, response)
    yield from _head_faults(expected, response)


def _cut_faults(request: Request, response: Response) -> Iterator[str]:
    """Yield what is wrong with a response of which the end is missing, perhaps all of its body."""
    expected = request.expected
    if expected is None or response.status not in expected.statuses:
        yield f"status {response.status}, cut short: {response.body[:300]!r}"
        return
    yield from _head_faults(expected, response)
    data = expected.contents.get(response.header("docker-content-digest"))
    span = _RANGE.fullmatch(response.header("content-range"))
    if data is None or expected.odd or response.header("content-type").startswith("multipart/"):
        return
    begin = int(span[1]) if span is not None else 0
    if not data.startswith(response.body, begin):
        yield f"{len(response.body)} wrong bytes from {begin} on, and then the end"


def _error_faults(request: Request, response: Response) -> Iterator[str]:
    """Yield what is wrong with an error: it is the OCI document, with a code that exists."""
    if response.header("content-type") != "application/json":
        yield f"status {response.status} with type {response.header('content-type')!r}"
    if response.status == 405 and response.header("allow") != "GET, HEAD":
        yield "405 without Allow"
    if not response.body and request.method in ("HEAD", "?"):
        return
    try:
        code = json.loads(response.body)["errors"][0]["code"]
    except (ValueError, LookupError, TypeError):
        yield f"status {response.status} with no OCI error: {response.body[:200]!r}"
        return
    if code not in CODES:
        yield f"status {response.status} with the code {code!r}"


def _head_faults(expected: Expected | None, response: Response) -> Iterator[str]:
    """Yield a digest that was not asked for."""
    digest = response.header("docker-content-digest")
    if (
        expected is not None
        and expected.contents
        and response.status < 400
        and digest not in expected.contents
    ):
        yield f"status {response.status} with the digest {digest!r}: the answer of another request"


def _content_faults(expected: Expected | None, response: Response) -> Iterator[str]:
    """Yield wrong bytes: whole bodies hash to their digest, parts are parts of the content."""
    digest = response.header("docker-content-digest")
    contents = {} if expected is None else expected.contents
    if response.status == 200 and digest and response.body:
        algorithm, _, encoded = digest.partition(":")
        if new(algorithm, response.body).hexdigest() != encoded:
            yield f"{len(response.body)} bytes that are not {digest}"
    elif response.status == 206 and digest in contents:
        yield from _part_faults(contents[digest], response, odd=expected is not None and expected.odd)
    if expected is not None and expected.name is not None:
        name = json.loads(response.body).get("name")
        if name != expected.name:
            yield f"the listing of {name!r}, not of {expected.name!r}"


def _part_faults(data: bytes, response: Response, *, odd: bool = False) -> Iterator[str]:
    """Yield parts that are not those of `data`.

    A part of a blob that its upstream says is large is sent before the whole is proven (docs/security.md,
    "Bytes before proof"): nothing is wrong with it if the upstream is `odd`.
    """
    kind = response.header("content-type")
    parts = [(response.header("content-range"), response.body)]
    if kind.startswith("multipart/byteranges"):
        message = email.message_from_bytes(f"Content-Type: {kind}\r\n\r\n".encode() + response.body)
        parts = [
            (str(each["Content-Range"]), bytes(each.get_payload(decode=True) or b""))
            for each in list(message.walk())[1:]
        ]
    for span, body in parts:
        match = _RANGE.fullmatch(span)
        if match is None:
            yield f"206 with Content-Range {span!r}"
        elif odd and int(match[3]) > HOLDBACK_BYTES:
            continue
        elif data[int(match[1]) : int(match[2]) + 1] != body or int(match[3]) != len(data):
            yield f"{len(body)} wrong bytes for {span}"
