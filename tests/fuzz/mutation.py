"""Damage to the bytes of a request: odd lines of known kinds, and changes of single bytes."""

import random
from collections.abc import Callable

Mutation = Callable[[random.Random, bytes, bytes], bytes]


def mutated(chance: random.Random, data: bytes, other: bytes) -> bytes:
    """Return `data`, a whole request, damaged in one or a few places. `other`: a request to splice from."""
    for _ in range(chance.choices((1, 2, 4), weights=(7, 2, 1))[0]):
        data = chance.choices(list(_MUTATIONS), weights=list(_MUTATIONS.values()))[0](chance, data, other)
    return data


def _byte(chance: random.Random, data: bytes, other: bytes) -> bytes:
    place = chance.randrange(len(data) + 1)
    byte = chance.choice(_BYTES) if chance.random() < 0.7 else bytes([chance.randrange(256)])
    return data[:place] + byte + data[place + chance.randrange(2) :]


def _cut(chance: random.Random, data: bytes, other: bytes) -> bytes:
    start = chance.randrange(len(data) + 1)
    return data[:start] + data[start + chance.randrange(20) :]


def _repeat(chance: random.Random, data: bytes, other: bytes) -> bytes:
    start = chance.randrange(len(data) + 1)
    part = data[start : start + chance.randrange(40)]
    return data[:start] + part * chance.choice((2, 2, 3, 50, 3_000)) + data[start + len(part) :]


def _splice(chance: random.Random, data: bytes, other: bytes) -> bytes:
    return data[: chance.randrange(len(data) + 1)] + other[chance.randrange(len(other) + 1) :]


def _line(chance: random.Random, data: bytes, other: bytes) -> bytes:
    """Insert an odd header line behind the request line, or behind the last header."""
    line = chance.choice(_LINES)
    first, _, rest = data.partition(b"\r\n")
    if chance.random() < 0.5:
        return first + b"\r\n" + line + b"\r\n" + rest
    return data.removesuffix(b"\r\n") + line + b"\r\n\r\n"


def _order(chance: random.Random, data: bytes, other: bytes) -> bytes:
    """Shuffle, double or drop lines."""
    lines = data.removesuffix(b"\r\n\r\n").split(b"\r\n")
    way = chance.randrange(3)
    if way == 0:
        chance.shuffle(lines)
    elif way == 1:
        lines.insert(chance.randrange(len(lines) + 1), chance.choice(lines))
    else:
        lines.pop(chance.randrange(len(lines)))
    return b"\r\n".join(lines) + b"\r\n\r\n"


def _endings(chance: random.Random, data: bytes, other: bytes) -> bytes:
    ending = chance.choice((b"\n", b"\r", b"\r\r\n", b"\n\r", b"\r\n\t", b"\r\n "))
    count = chance.choice((1, 1, -1))
    return data.replace(b"\r\n", ending, count)


def _first(chance: random.Random, data: bytes, other: bytes) -> bytes:
    """Damage the request line."""
    line, separator, rest = data.partition(b"\r\n")
    method, _, after = line.partition(b" ")
    path, _, version = after.rpartition(b" ")
    way = chance.randrange(4)
    if way == 0:
        method = chance.choice(_METHODS)
    elif way == 1:
        version = chance.choice(_VERSIONS)
    elif way == 2:
        path = chance.choice(_TARGETS)
    else:
        return chance.choice((b"\r\n", b"\n", b" ", b"\x00")) * chance.randint(1, 3) + data
    return method + b" " + path + b" " + version + separator + rest


_MUTATIONS: dict[Mutation, int] = {
    _byte: 6,
    _line: 8,
    _first: 4,
    _order: 3,
    _endings: 3,
    _cut: 2,
    _repeat: 2,
    _splice: 2,
}
_BYTES = [bytes([each]) for each in b"\x00\t\n\r \"%'(),/:;<=>?@[\\]{|}\x7f\x80\xff"] + [
    b"\r\n",
    b"\r\n\r\n",
    b"%00",
]
_METHODS = [
    b"get",
    b"",
    b"G\x00T",
    b"G" * 300,
    b"CONNECT",
    b"HEAD",
    b"OPTIONS",
    b"QUERY",
    b"\xff",
    b"GET\t",
    b"PRI",
]
_VERSIONS = [
    *(b"HTTP/1.0", b"HTTP/0.9", b"HTTP/1.2", b"HTTP/2.0", b"HTTP/3.0", b"HTTP/1.1 x", b"http/1.1", b""),
    *(b"HTTP/1", b"HTTP/01.1", b"HTTP/1.10", b"ICY", b"HTTP/ 1.1", b"RTSP/1.0", b"HTTP/9.9"),
]
_TARGETS = [
    *(
        b"*",
        b"",
        b"mirror.test:80",
        b"http://",
        b"http:///v2/",
        b"HTTPS://docker.io/v2/",
        b"/v2/\xff",
        b"v2/",
    ),
    *(
        b"http://u:p@docker.io/v2/",
        b"/v2/#x",
        b"/v2/?",
        b"/v2/?ns=",
        b"/v2/?ns=docker.io&ns=docker.io",
        b"//v2/",
    ),
    *(b"/v2/ /x", b"/v2/\t", b"/v2/%", b"/v2/%zz", b"/v2/" + b"%41" * 500, b"/v2/?" + b"a=b&" * 2_000),
    *(
        b"/v2/" + b"x" * 70_000,
        b"http://[::1/v2/",
        b"http://a:99999/v2/",
        b"/?\x00",
        b"/v2/_catalog?n=" + b"9" * 30,
    ),
]
_LINES = [
    *(
        b"Content-Length: 5",
        b"Content-Length: -1",
        b"Content-Length: +0",
        b"Content-Length: 0, 0",
        b"Content-Length:",
    ),
    *(
        b"Content-Length: 99999999999999999999",
        b"Content-Length: 0x0",
        b"Content-Length: 0\r\nContent-Length: 0",
    ),
    *(
        b"Content-Length: 1\r\nContent-Length: 2",
        b"Content-Length : 3",
        b" Content-Length: 3",
        b"Content-Length: \xb2",
    ),
    *(
        b"Transfer-Encoding: chunked",
        b"Transfer-Encoding: chunked\r\nContent-Length: 3",
        b"Transfer-Encoding: x",
    ),
    *(
        b"Transfer-Encoding: gzip, chunked",
        b"Transfer-Encoding: chunked, identity",
        b"Transfer-Encoding:\x0bchunked",
    ),
    *(b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n", b"Transfer-Encoding: chunked\r\n\r\nzz\r\n"),
    *(b"Transfer-Encoding: chunked\r\n\r\n0\r\nA: b\r\n", b"Content-Encoding: gzip\r\nContent-Length: 3"),
    *(b"Content-Encoding: br\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n", b"Expect: 100-continue"),
    *(b"Expect: 100-continue\r\nContent-Length: 4", b"Expect: x", b"Upgrade: h2c", b"Upgrade: websocket"),
    *(
        b"Connection: upgrade\r\nUpgrade: h2c\r\nHTTP2-Settings: x",
        b"Connection: close",
        b"Connection: \xff, close",
    ),
    *(
        b"Connection: keep-alive, close",
        b"Connection: TE\r\nTE: trailers",
        b"Host: other.test",
        b"Host:",
        b"Host: \xff",
    ),
    *(
        b"Host: docker.io:99999",
        b"Host: a b",
        b"Host: [::1",
        b"Host: docker.io\x00",
        b"X: \x00",
        b"X: \x7f",
        b"X\x00: a",
    ),
    *(
        b"X",
        b": x",
        b"X:",
        b"X y: z",
        b"X\t: z",
        b"X: a\r\n b",
        b"X: a\r\n\tb",
        b"X: \xe9",
        b"\xe9: x",
        b"X(: y",
    ),
    *(
        b"X: " + b"a" * 70_000,
        b"X" * 70_000 + b": a",
        b"X: a\r\n" * 200 + b"Y: b",
        b"X: a\r\n" * 30_000 + b"Y: b",
    ),
    *(
        b"Range: bytes=0-1\r\nRange: bytes=2-3",
        b"Range: bytes=" + b"0-0," * 5_000,
        b"Range: \xff",
        b"If-Range: \xff",
    ),
    *(
        b"If-None-Match: " + b'"x",' * 9_000,
        b"Accept: " + b"a/b," * 9_000,
        b"Accept: \xff",
        b"Accept: ;q=;,,/",
    ),
    *(b"OCI-Namespace: odd000.test\r\nOCI-Namespace: docker.io", b"OCI-Namespace: \xff", b"OCI-Namespace:"),
    *(
        b"Sec-WebSocket-Key1: x",
        b"Trailer: x",
        b"Max-Forwards: 0",
        b"Proxy-Connection: close",
        b"X: a\nY: b",
        b"X: a\rY: b",
    ),
]
