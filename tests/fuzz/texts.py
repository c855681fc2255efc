"""Texts of odd upstreams: documents, challenges, tokens, statuses, lengths, framing, headers, redirects."""

import json

from mirror.oci.manifest import OCI_MANIFEST

DEEP = b"[" * 200_000
DESCRIPTOR = {"mediaType": "text/x", "digest": "sha256:" + "0" * 64, "size": 1}


def _dump(**values: object) -> bytes:
    return json.dumps({"schemaVersion": 2, "mediaType": OCI_MANIFEST, **values}).encode()


PLATFORMS: list[object] = [None, [], {"os": 1}, "x"]
DOCUMENTS = [
    b"",
    b"null",
    b"[]",
    b'"text"',
    b"NaN",
    b"{",
    b"\xff\xfe{\x00}\x00",
    b"\xef\xbb\xbf{}",
    DEEP,
    b'{"layers":' + DEEP + b"]" * 200_000 + b"}",
    b'{"a":' * 50_000 + b"1" + b"}" * 50_000,
    b'{"schemaVersion":2,"config":' + b"9" * 5_000 + b"}",
    b'{"schemaVersion":1e999,"layers":[1,null,{}]}',
    b'{"manifests":[],"manifests":[{}],"layers":{}}',
    _dump(config=None, layers=None),
    _dump(config=DESCRIPTOR, layers=[{**DESCRIPTOR, "size": size} for size in (-1, 2**70, 1.5, "1", None)]),
    _dump(config={**DESCRIPTOR, "digest": "../../etc/passwd"}, layers=[{"digest": 7}, []]),
    _dump(config={**DESCRIPTOR, "digest": "sha512:00"}, layers=[DESCRIPTOR] * 2_000),
    _dump(config=DESCRIPTOR, layers=[{**DESCRIPTOR, "size": 60 * 2**30}] * 3),
    _dump(manifests=[{**DESCRIPTOR, "platform": platform} for platform in PLATFORMS]),
    _dump(subject="x", artifactType=["y"], annotations={"a": 1}, config=DESCRIPTOR, layers=[]),
    _dump(name="other/name", tags=["a", 1, None, "\ud800", "x" * 1000, "../.."]),
    _dump(name="x", tags={"a": "b"}),
    _dump(mediaType="text/html\r\nX-Injected: 1", config=DESCRIPTOR, layers=[]),
]
CHALLENGES = [
    "",
    "Bearer",
    'Bearer realm="',
    'Bearer realm=""',
    'Bearer realm="file:///etc/passwd",service="x"',
    'Bearer realm="http://[::1",service="x"',
    'Bearer realm="http://user:pass@127.0.0.1:1/token"',
    'Bearer realm="{url}/%zz\xff",scope="\x80"',
    "Bearer realm={url}/token," + "a=b," * 2_000,
    'Negotiate, NTLM abc, Digest realm="x", nonce="y"',
    'Basic realm="\\"',
    ", , ,",
    "Bearer " * 50,
]
TOKENS = [
    b"",
    b"null",
    b"{}",
    b"[1]",
    DEEP,
    b'{"token":""}',
    b'{"token":7}',
    b'{"token":"a\\r\\nX-Injected: 1"}',
    b'{"token":"\\u0000\\ud800"}',
    b'{"token":"' + b"x" * 200_000 + b'"}',
    b'{"access_token":"right"}',
    b'{"token":"right","expires_in":-1}',
    b'{"token":"right","expires_in":1e400}',
    b'{"token":"right","expires_in":"soon","issued_at":"never"}',
    b'{"token":"right","expires_in":NaN,"issued_at":-5}',
    b'{"token":"right","expires_in":9999999999999999999999,"issued_at":"9999-12-31T23:59:60Z"}',
]
STATUSES = (
    "100 C,101 Up,103 E,204 No,205 R,206 P,226 I,299 x,300 M,304 N,400 B,401 U,402 P,403 F,404 N,405 M,406 N,"
    "408 T,409 C,410 G,411 L,412 P,413 T,414 U,415 U,416 R,417 E,418 T,421 M,422 U,425 E,426 U,428 P,429 T,"
    "431 H,451 L,499 x,500 I,501 N,502 B,503 S,504 G,505 V,507 I,511 N,520 x,599 x,600 x,999 x,099 x,000 x"
)
RETRIES = ["-1", "0", "1e9", "NaN", "soon", "9" * 50, "Wed, 21 Oct 2015 07:28:00 GMT", "\xff", ""]
LENGTHS = [
    "{more}",
    "{less}",
    "-1",
    "+5",
    "0x10",
    "",
    " ",
    "5, 5",
    "99999999999999999999",
    "1e3",
    "5;5",
    "\xb2",
]
CHUNKS = [
    "{size}\r\n{body}\r\n0\r\n\r\n",
    "{size};a=b\r\n{body}\r\n0\r\nTrailer: x\r\n\r\n",
    "000{size}\r\n{body}\r\n0\r\n\r\n",
    "{size}\n{body}\n0\n\n",
    "zz\r\n{body}\r\n0\r\n\r\n",
    "-1\r\n{body}\r\n0\r\n\r\n",
    "ffffffffffffffffff\r\n{body}",
    "{size}\r\n{body}",
    "{size}\r\n{body}\r\n0\r\nTrailer" + "x" * 10_000 + "\r\n\r\n",
    "0\r\n\r\n{body}",
]
RAW = [
    b"",
    b"\x16\x03\x01\x02\x00\x01\x00",
    b"HTTP/0.9 200\r\n\r\nx",
    b"HTTP/2.0 200 OK\r\nContent-Length: 0\r\n\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"HTTP/1.1\r\n\r\n",
    b"HTTP/1.1 abc OK\r\n\r\n",
    b"HTTP/1.1 200\r\n\r\n",
    b"HTTP/1.1 200 OK\nContent-Length: 2\n\n{}",
    b"HTTP/1.1 200 OK\r\nA\r\n\r\n",
    b"HTTP/1.1 200 OK\r\n: x\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nA : x\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nA: x\r\n folded\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nA: \x00\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 200 " + b"O" * 70_000 + b"\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nA: " + b"x" * 70_000 + b"\r\n\r\n",
    b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 3_000 + b"\r\n",
    b"HTTP/1.0 200 OK\r\n\r\n{}",
    b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
    b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    b"HTTP/1.1 100 C\r\n\r\n" * 50,
    b"\r\n\r\n\r\nHTTP/1.1 204 N\r\n\r\n",
]
LINES = [
    "Connection: close",
    "Connection: upgrade\r\nUpgrade: h2c",
    "Keep-Alive: timeout=-1",
    "Set-Cookie: a=\xff; Domain=..",
    "Docker-Content-Digest: sha256:" + "1" * 64,
    "Link: </v2/a/tags/list?n=\xff>; rel=next",
    'Link: <http://127.0.0.1:1/x>; rel="next"',
    'Link: <>; rel="next", <;',
    "RateLimit-Limit: -5;w=x",
    "RateLimit-Remaining: 99999999999999999999;w=1",
    "X-\xe9: \xe9",
    "Age: -5\r\nWarning: 110",
    "OCI-Subject: x\r\nOCI-Filters-Applied: \xff",
    "Content-Range: bytes 5-1/3",
    "Accept-Ranges: none",
]
TYPES = ["", "text/html", "a", "/", "a/b;c=\xff", "application/json; charset=utf-99", "x/" + "y" * 9_000]
DIGESTS = [
    "",
    "sha256:",
    "md5:abc",
    "sha256:" + "0" * 64,
    "sha512:" + "0" * 128,
    "SHA256:" + "A" * 64,
    "\xff",
]
RANGES = ["", "bytes */5", "bytes 0-0/1", "bytes 9-1/2", "lines 0-1/2", "bytes 0-99999999999999999999/*"]
PLACES = [
    "{here}/{path}?{query}&hop",
    "{here}/{path}",
    "/{path}",
    "",
    "//",
    "?",
    "#x",
    "http://127.0.0.1:1/x",
    "file:///etc/passwd",
    "http://[::1/x",
    "http://user:pass@127.0.0.1:1/",
    "{url}/docker.io/{path}",
    "{url}/%zz%ff\xff?a=%0d%0a",
    "ftp://127.0.0.1/",
    "{url}/" + "x" * 9_000,
    "http://127.0.0.1:99999/",
    "http://169.254.169.254/latest",
]
