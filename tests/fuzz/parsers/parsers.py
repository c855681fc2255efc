"""The parsers that are tried: right inputs, words of each grammar, and an oracle for the result.

An input is bytes, as a socket has them; text is decoded as aiohttp decodes a head. A check returns whether
the parser accepted the input, and raises for whatever is wrong: an error that is not documented, a result
that is not canonical, one that does not parse back to itself.
"""

# ruff: noqa: PT017  # not a test: errors that a parser documents are looked at, and accepted

from ipaddress import ip_address

from mirror.access.certificate import CertificateRefused, certificate_names
from mirror.access.forwarded import client_address
from mirror.access.policy import parse_address
from mirror.access.proxy_protocol import (
    LINE_BYTES,
    MOST_BYTES,
    SIGNATURE,
    ProxiedClient,
    ProxyHeaderError,
    header_length,
    parse_header,
)
from mirror.access.rules import parse_network
from mirror.oci import json_text
from mirror.oci.accept import MOST_OTHERS, Accepted
from mirror.oci.challenge import LONGEST_LINE, MOST_CHALLENGES, Challenge, parse_challenges
from mirror.oci.errors import Code, RegistryError
from mirror.oci.media_type import is_media_type
from mirror.oci.ranges import Span, parse_content_range, parse_range
from mirror.oci.reference import Target, TargetKind, UpstreamNames, parse_target
from mirror.oci.registries import canonical_host
from mirror.upstream.http.token_answer import LONGEST_LIFETIME, token_of
from mirror.upstream.pagination import next_query
from mirror.upstream.rate_limit import RateLimit
from tests.fuzz.parsers import identities, issuers
from tests.fuzz.parsers.trial import ACCEPTED, REFUSED, Parser

NAMES = UpstreamNames(
    default="docker.io",
    names={
        "docker.io": "docker.io",
        "index.docker.io": "docker.io",
        "quay.io": "quay.io",
        "r:5000": "r:5000",
    },
    hosts={"h.test": "quay.io"},
)
HEX = b"0123456789abcdef" * 4
TRUSTED = tuple(map(parse_network, ("10.0.0.0/8", "fd00::/8", "127.0.0.1")))
ELSEWHERE = "203.0.113.99"


def text_of(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


def lines_of(data: bytes) -> list[str]:
    """The lines of one header that comes several times."""
    return text_of(data).split("\n")


def check_path(data: bytes) -> bool:
    """A target prints back; a refusal is 400, 404 or 414 with a code of the specification."""
    path, ns, host, *_ = [*text_of(data).split("\n"), None, None]
    assert path is not None
    try:
        target = parse_target(NAMES, path, ns or None, host or None)
    except RegistryError as error:
        assert error.status in (400, 404, 414), error.status
        assert error.code in Code
        assert len(error.message) < 1_000
        return REFUSED
    assert len(target.path()) <= 700
    if target.upstream is not None or target.kind in (TargetKind.BASE, TargetKind.CATALOG):
        again = parse_target(NAMES, target.path(), None, None)
        assert _content(again) == _content(target), (again, target)
    return ACCEPTED


def _content(target: Target) -> object:
    return target.kind, target.upstream, target.repository, target.reference


def check_range(data: bytes) -> bool:
    """Spans lie within the content, and are the same when they are written plainly."""
    size, header = int.from_bytes(data[:3]), text_of(data[3:])
    try:
        spans = parse_range(header, size)
    except RegistryError as error:
        assert (error.status, error.code) == (416, Code.RANGE_INVALID)
        assert error.headers["Content-Range"] == f"bytes */{size}"
        return REFUSED
    assert all(0 <= span.start < span.stop <= size for span in spans), spans
    if len(spans) > 1:
        assert sum(span.length for span in spans) <= size
    if spans:
        plain = "bytes=" + ",".join(f"{span.start}-{span.stop - 1}" for span in spans)
        assert parse_range(plain, size) == spans
    return ACCEPTED if spans else REFUSED


def check_content_range(data: bytes) -> bool:
    try:
        span, size = parse_content_range(text_of(data))
    except ValueError:
        return REFUSED
    assert 0 <= span.start < span.stop
    assert parse_content_range(Span.content_range(span, size or span.stop))[0] == span
    return ACCEPTED


def check_challenge(data: bytes) -> bool:
    """Never an error; what was read is read again when it is written plainly."""
    found = parse_challenges(lines_of(data))
    assert len(found) <= MOST_CHALLENGES
    for each in found:
        assert each.scheme == each.scheme.lower()
        plain = _written(each)
        if len(plain) <= LONGEST_LINE:
            assert parse_challenges([plain]) == [each], plain
    return ACCEPTED if found else REFUSED


def _written(challenge: Challenge) -> str:
    values = (
        (name, value.replace("\\", "\\\\").replace('"', '\\"'))
        for name, value in challenge.parameters.items()
    )
    return f"{challenge.scheme} " + ", ".join(f'{name}="{value}"' for name, value in values)


def check_forwarded(data: bytes) -> bool:
    """The result is an address in its one spelling, and what a client puts before it changes nothing."""
    hops = lines_of(data)
    found = client_address("127.0.0.1", hops, TRUSTED)
    assert str(parse_address(found)) == found
    assert client_address("192.0.2.1", hops, TRUSTED) == "192.0.2.1"
    address = ip_address(found)
    trusted = any(address in network for network in TRUSTED if network.version == address.version)
    if not trusted:
        assert client_address("127.0.0.1", [ELSEWHERE, *hops], TRUSTED) == found
    return REFUSED if found == "127.0.0.1" else ACCEPTED


def check_proxy(data: bytes) -> bool:
    """The header has one end, however many bytes of it are there; its client is an address."""
    try:
        length = header_length(data)
        if length is None:
            assert len(data) < MOST_BYTES
            return REFUSED
        assert length <= (MOST_BYTES if data.startswith(SIGNATURE) else LINE_BYTES)
        for end in {0, 1, length // 2, length - 1}:
            assert header_length(data[:end]) is None, end
        client = parse_header(data[:length])
    except ProxyHeaderError as error:
        assert len(str(error)) < 120
        return REFUSED
    if client is not None:
        assert str(parse_address(client.address)) == client.address
        family = "TCP6" if ":" in client.address else "TCP4"
        plain = f"PROXY {family} {client.address} {client.address} {client.port} 1\r\n".encode()
        assert parse_header(plain) == ProxiedClient(client.address, client.port)
    return ACCEPTED


def check_certificate(data: bytes) -> bool:
    """A name is one word of plain characters, and its kind is that of the certificate's field."""
    common, *alternatives = data.decode("utf-8", "replace").split("\n")
    kinds = ("DNS", "URI", "email", "IP Address")
    found = {
        "subject": ((("commonName", common),),),
        "subjectAltName": tuple((kinds[number % 4], each) for number, each in enumerate(alternatives)),
    }
    try:
        names = certificate_names(found)
    except CertificateRefused as error:
        assert len(str(error)) < 120
        return REFUSED
    assert list(names) == sorted(set(names))
    for name in names:
        assert name.isascii()
        assert name.isprintable()
        assert name.startswith(("cert:", "san:"))
        assert not set(name) & set(" ,*?[]\"'\\")
    return ACCEPTED


def check_host(data: bytes) -> bool:
    found = canonical_host(text_of(data))
    if found is None:
        return REFUSED
    assert canonical_host(found) == found
    assert found.isascii()
    return ACCEPTED


def check_accept(data: bytes) -> bool:
    accepted = Accepted.parse(lines_of(data))
    others = accepted.others()
    assert len(others) <= MOST_OTHERS
    assert all(map(is_media_type, others))
    return ACCEPTED if accepted.types else REFUSED


def check_link(data: bytes) -> bool:
    """The query of the next page is printable ASCII, so that it may become a request."""
    found = next_query(lines_of(data))
    if found is None:
        return REFUSED
    assert found.isascii()
    assert found.isprintable()
    assert " " not in found
    return ACCEPTED


def check_token_answer(data: bytes) -> bool:
    """A token may become a header, and its lifetime is bounded."""
    try:
        header, seconds = token_of(data)
    except ValueError:
        return REFUSED
    assert 0 < seconds <= LONGEST_LIFETIME
    assert all("!" <= each <= "~" for each in header.removeprefix("Bearer "))
    return ACCEPTED


def check_rate_limit(data: bytes) -> bool:
    """No header of an upstream raises, and no wait is longer than an hour or so."""
    remaining, limit, after, source, *_ = [*lines_of(data), "", "", "", ""]
    state = RateLimit(lambda: 0.0)
    names = ("ratelimit-remaining", "ratelimit-limit", "retry-after", "docker-ratelimit-source")
    state.observe(dict(zip(names, (remaining, limit, after, source), strict=True)), 429)
    reading = state.reading
    assert state.budget_level.share > 0
    assert reading is None or (reading.share >= 0 and (reading.source or "").isprintable())
    return REFUSED if reading is None else ACCEPTED


def check_json(data: bytes) -> bool:
    try:
        json_text.parse(data)
    except ValueError:
        return REFUSED
    return ACCEPTED


DIGEST = b"sha256:" + HEX
V2 = SIGNATURE + b"\x21\x11\x00\x0c" + bytes([192, 0, 2, 7, 198, 51, 100, 1, 200, 34, 1, 187])
V2_TLV = SIGNATURE + b"\x21\x21\x00\x2b" + bytes(32) + b"\x00\x50\x01\xbb" + b"\x03\x00\x04abcd"

PARSERS = {
    each.name: each
    for each in (
        Parser(
            "path",
            check_path,
            (
                b"/v2/",
                b"/v2/_catalog",
                b"/v2/quay.io/org/app/manifests/1.0",
                b"/quay.io/v2/org/app/tags/list",
                b"/v2/library/alpine/blobs/" + DIGEST,
                b"/v2/a/b/referrers/" + DIGEST + b"\nquay.io\nh.test",
                b"/v2/r:5000/a/manifests/sha512:" + HEX * 2 + b"\n\nregistry-1.docker.io:443",
                b"/v2/a%2Fb/manifests/x\nindex.docker.io\n[::1]:5000",
            ),
            (
                *(
                    b"/v2/",
                    b"manifests",
                    b"blobs",
                    b"tags/list",
                    b"referrers",
                    b"_catalog",
                    b"sha256:",
                    b"%2F",
                ),
                *(
                    b"docker.io",
                    b"quay.io",
                    b"ghcr.io",
                    b"localhost",
                    b"/",
                    b"..",
                    b"%",
                    b"\n",
                    b"__",
                    b"-",
                    b":",
                ),
                *(b"library", b"r:5000", HEX, b"%25", b"\\", b"/../"),
            ),
        ),
        Parser(
            "range",
            check_range,
            tuple(
                size + each
                for size in (b"\x00\x00\x00", b"\x00\x00\x01", b"\x00\x10\x00", b"\xff\xff\xff")
                for each in (
                    *(b"bytes=0-99", b"bytes=100-", b"bytes=-5", b"bytes=0-0,5-9", b"Bytes = 1-2, 4-5 ,9-"),
                    *(b"bytes=4000-5000", b"lines=1-2", b"bytes=5-1", b"bytes=" + b",".join([b"1-2"] * 90)),
                )
            ),
            (b"bytes=", b"-", b",", b"=", b"0-", b"-0", b",,", b" ", b"\t", b"bytes=bytes=", b"1-1,"),
        ),
        Parser(
            "content-range",
            check_content_range,
            (
                b"bytes 0-9/10",
                b"bytes 5-5/*",
                b" bytes 0-0/1 ",
                b"bytes */10",
                b"bytes 0-9223372036854775806/*",
            ),
            (b"bytes", b"/", b"*", b"-", b"/*", b" "),
        ),
        Parser(
            "challenge",
            check_challenge,
            (
                b'Bearer realm="https://auth.docker.io/token",service="registry.docker.io"',
                b'Basic realm="x"\nBearer realm="y", scope="repository:a/b:pull", error="invalid_token"',
                b'Bearer realm="a\\"b", Basic realm=c',
                b"Negotiate, Basic realm=x, Digest abc==",
                b"NTLM TlRMTVNTUAAB==",
            ),
            (
                *(
                    b"Bearer",
                    b"Basic",
                    b"realm",
                    b"=",
                    b'"',
                    b"\\",
                    b",",
                    b" ",
                    b'realm="',
                    b"==",
                    b"\t",
                    b"\n",
                ),
                *(b'service="', b"scope", b"a=b", b", ,", b"\\\\", b"token68=="),
            ),
        ),
        Parser(
            "forwarded",
            check_forwarded,
            (
                b"192.0.2.7",
                b"192.0.2.7, 10.0.0.1",
                b"203.0.113.9:443, [2001:db8::7]:80, fd00::1\n10.0.0.2",
                b"unknown, _hidden, ::ffff:10.0.0.1",
                b"for=192.0.2.7, fe80::1%eth0, 127.0.0.1",
            ),
            (
                b"10.0.0.1",
                b"127.0.0.1",
                b"fd00::1",
                b",",
                b", ",
                b"\n",
                b"[",
                b"]",
                b":80",
                b"::ffff:",
                b"%1",
                b"::",
            ),
        ),
        Parser(
            "proxy",
            check_proxy,
            (
                b"PROXY TCP4 192.0.2.7 198.51.100.1 51234 443\r\n",
                b"PROXY TCP6 2001:db8::7 ::ffff:10.0.0.1 51234 443\r\nGET / HTTP/1.1\r\n",
                b"PROXY UNKNOWN\r\n",
                b"PROXY UNKNOWN ffff::1 ffff::2 65535 65535\r\n",
                V2,
                V2_TLV + b"GET / HTTP/1.1\r\n\r\n",
                SIGNATURE + b"\x20\x00\x00\x00",
                SIGNATURE + b"\x21\x31\x00\xd8" + bytes(216),
                SIGNATURE + b"\x21\x00\x0f\xf0" + bytes(4080),
            ),
            (
                *(b"PROXY ", b"TCP4", b"TCP6", b"UNKNOWN", b"\r\n", b" ", b"::", b".", b"65535", SIGNATURE),
                *(
                    b"\x21",
                    b"\x20",
                    b"\x11",
                    b"\x21\x11\x00\x0c",
                    b"\xff\xff",
                    b"\x03\x00\x04abcd",
                    b"\x0f\xf0",
                ),
            ),
        ),
        Parser(
            "certificate",
            check_certificate,
            (
                b"alice",
                b"build 1\nbuild1.lan\nspiffe://lan/ns/prod\nops@example.com\n10.0.0.1",
                b"\n*.lan",
                "Jürgen Müller\n\n".encode(),
            ),
            (b"cert:", b"san:", b"\n", b"*", b"%2A", b"@", b"://", b",", b" ", b"\x00", b"user:", b"alice"),
        ),
        Parser(
            "host",
            check_host,
            (b"quay.io", b"mirror.lan:5000", b"[::1]:5000", b"[2001:DB8::0:1]", b"10.0.0.1:80", b"LOCALHOST"),
            (b":", b"[", b"]", b".", b":5000", b"::", b"-", b"%"),
        ),
        Parser(
            "accept",
            check_accept,
            (
                b"application/vnd.oci.image.index.v1+json, */*;q=0.1",
                b"application/vnd.docker.distribution.manifest.v2+json\napplication/x.y+json;q=0",
            ),
            (b",", b";", b"q=0", b"*/*", b"/", b"application/", b"\n", b"+json", b";q=0.000", b"x"),
        ),
        Parser(
            "link",
            check_link,
            (
                b'</v2/a/tags/list?n=5&last=b>; rel="next"',
                b'<https://x/y?z>; rel=prev, </v2/_catalog?last=a%20b>; title="x"; rel="x next"',
            ),
            (b"<", b">", b";", b"rel", b"=", b'"', b"next", b"?", b"#", b",", b'; rel="next"', b"; a", b"\n"),
        ),
        Parser(
            "token answer",
            check_token_answer,
            (
                b'{"token": "abc", "expires_in": 300, "issued_at": "2026-11-28T20:00:00Z"}',
                b'{"access_token": "a.b.c", "expires_in": 60.5}',
                b'{"token": "", "access_token": null}',
            ),
            (
                b'"token"',
                b'"access_token"',
                b'"expires_in"',
                b":",
                b"{",
                b"}",
                b"[",
                b"]",
                b"null",
                b"1e400",
                b"NaN",
            ),
        ),
        Parser(
            "rate limit",
            check_rate_limit,
            (
                b"20;w=21600\n100;w=21600\n60\n203.0.113.7",
                b"0\n100\nSat, 28 Nov 2026 20:00:00 GMT\n",
                b"5, 6\n\n1h5m",
            ),
            (b";w=", b"\n", b",", b"inf", b"nan", b"s", b"1h", b"GMT", b"Sat, "),
        ),
        Parser(
            "json",
            check_json,
            (
                b'{"schemaVersion": 2, "layers": [{"digest": "x", "size": 5}], "a": [null, true, 1.5e3]}',
                b"[[[]]]",
            ),
            (
                b"{",
                b"}",
                b"[",
                b"]",
                b",",
                b":",
                b'"',
                b"\\u0000",
                b"1e999",
                b"-",
                b"[" * 2_000,
                b"\xef\xbb\xbf",
            ),
        ),
        *identities.PARSERS,
        *issuers.PARSERS,
    )
}
