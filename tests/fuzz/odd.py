"""The ways of odd upstreams: statuses, framing, headers, bodies, redirects, token answers, slowness.

A kind is a function from the right answer to what is sent instead. The upstream's number selects the kind,
so that the breaker of one odd upstream does not hide the others. Every kind is a function of the request
alone: the same request has the same odd answer.
"""

import gzip
import random
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

from tests.fuzz.content import digest_of
from tests.fuzz.texts import (
    CHALLENGES,
    CHUNKS,
    DIGESTS,
    DOCUMENTS,
    LENGTHS,
    LINES,
    PLACES,
    RANGES,
    RAW,
    RETRIES,
    STATUSES,
    TOKENS,
    TYPES,
)

# How many upstreams have the same kind.
TWINS = 3


@dataclass(frozen=True)
class Ask:
    """A request to an upstream. `url`: address of the server, without a path."""

    method: str
    upstream: str
    path: str
    query: str
    headers: Mapping[str, str]
    url: str


class Close:
    """End of the connection, with FIN."""


class Reset:
    """End of the connection, with RST."""


@dataclass(frozen=True)
class Pause:
    """Silence of an upstream, in seconds."""

    seconds: float


Step = bytes | Close | Reset | Pause


@dataclass(frozen=True)
class Plain:
    """Correct answer, or one that is written as if it were."""

    status: int
    media_type: str
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)

    def head(self, *lines: str, length: int | str | None = -1, status: str | None = None) -> bytes:
        """Return the head. `length`: the Content-Length; None for no such line, -1 for the right one."""
        rows = [f"HTTP/1.1 {status or f'{self.status} S'}"]
        rows += [f"{name}: {value}" for name, value in self.headers.items()]
        rows += [f"Content-Type: {self.media_type}"] if self.media_type else []
        if length is not None:
            rows.append(f"Content-Length: {len(self.body) if length == -1 else length}")
        return "\r\n".join([*rows, *lines, "", ""]).encode("latin-1")

    def data(self, ask: Ask) -> bytes:
        return self.head() if ask.method == "HEAD" else self.head() + self.body


Kind = Callable[[random.Random, Ask, Plain], Sequence[Step]]


def _whole(ask: Ask, head: bytes, body: bytes) -> list[Step]:
    return [head] if ask.method == "HEAD" else [head, body]


def _status(chance: random.Random, ask: Ask, right: Plain, status: str) -> Sequence[Step]:
    bodies = [
        b"",
        b"<html>no</html>",
        b'{"errors":[{"code":"DENIED","message":"\xff\x00"}]}',
        b"[" * 100_000,
        b'{"errors":[{"code":1,"message":{"a":[]}}]}',
        b'{"errors":null}',
    ]
    return _whole(ask, Plain(0, "application/json", body := chance.choice(bodies)).head(status=status), body)


def _lines(chance: random.Random, ask: Ask, right: Plain, lines: Sequence[str]) -> Sequence[Step]:
    """Send the right answer with one more header line."""
    return _whole(ask, right.head(chance.choice(lines)), right.body)


def _header(
    chance: random.Random, ask: Ask, right: Plain, name: str, values: Sequence[str]
) -> Sequence[Step]:
    """Send the right answer with another value of one header."""
    headers = {**right.headers, name: chance.choice(values)}
    media_type = headers.pop("Content-Type", right.media_type)
    return _whole(ask, Plain(right.status, media_type, right.body, headers).head(), right.body)


def _length(chance: random.Random, ask: Ask, right: Plain, lengths: Sequence[str]) -> Sequence[Step]:
    """Announce a wrong length, and end the connection behind the body."""
    length = chance.choice(lengths).format(more=len(right.body) + 5, less=max(0, len(right.body) - 5))
    return [*_whole(ask, right.head(length=length), right.body), chance.choice((Close(), Reset()))]


def _chunked(chance: random.Random, ask: Ask, right: Plain, layout: str) -> Sequence[Step]:
    """Send the body in chunks; `layout` has {size} and {body}."""
    head = right.head("Transfer-Encoding: chunked", length=None)
    before, _, after = layout.partition("{body}")
    size = f"{len(right.body):x}"
    framed = before.format(size=size).encode() + right.body + after.format(size=size).encode()
    return [*_whole(ask, head, framed), *([Close()] if "0\r\n\r\n" not in layout else [])]


def _raw(chance: random.Random, ask: Ask, right: Plain, texts: Sequence[bytes]) -> Sequence[Step]:
    return [chance.choice(texts), Close()]


def _body(
    chance: random.Random, ask: Ask, right: Plain, change: Callable[[random.Random, bytes], bytes]
) -> Sequence[Step]:
    """Send another body, with its own length."""
    body = change(chance, right.body) if right.status < 300 else right.body
    headers = {name: value for name, value in right.headers.items() if name != "Content-Range"}
    return _whole(ask, Plain(200, right.media_type, body, headers).head(), body)


def _flipped(chance: random.Random, body: bytes) -> bytes:
    place = chance.randrange(len(body)) if body else 0
    return body[:place] + bytes([body[place] ^ 1]) + body[place + 1 :] if body else b"x"


def _document(chance: random.Random, ask: Ask, right: Plain) -> Sequence[Step]:
    """Send an odd manifest, list or listing, with its own digest."""
    body = chance.choice(DOCUMENTS)
    return _whole(
        ask, Plain(200, right.media_type, body, {"Docker-Content-Digest": digest_of(body)}).head(), body
    )


def _label(chance: random.Random, ask: Ask, right: Plain, coding: str, coded: bool) -> Sequence[Step]:
    """Label the body as compressed; `coded`: and compress it."""
    body = right.body
    if coded:
        body = gzip.compress(body, mtime=0) if coding == "gzip" else zlib.compress(body)
    head = Plain(right.status, right.media_type, body, right.headers).head(f"Content-Encoding: {coding}")
    return _whole(ask, head, body)


def _redirect(chance: random.Random, ask: Ask, right: Plain, places: Sequence[str]) -> Sequence[Step]:
    here = f"{ask.url}/{ask.upstream}"
    place = chance.choice(places).format(here=here, path=ask.path, query=ask.query, url=ask.url)
    status = chance.choice(("301", "302", "303", "307", "308", "300"))
    if ask.query.count("hop") >= 12:
        return _whole(ask, right.head(), right.body)
    return [right.head(f"Location: {place}", length=0, status=f"{status} Moved")]


def _token(chance: random.Random, ask: Ask, right: Plain, answers: Sequence[bytes]) -> Sequence[Step]:
    """Want a token, and give odd ones."""
    if ask.path.startswith("token"):
        body = chance.choice(answers)
        return [Plain(200, "application/json", body).head(), body]
    if chance.random() < 0.5 and "authorization" in ask.headers:
        return _whole(ask, right.head(), right.body)
    realm = f"{ask.url}/{ask.upstream}/token"
    challenge = f'Bearer realm="{realm}",service="fuzz",scope="repository:{ask.path[3:60]}:pull"'
    return [right.head(f"WWW-Authenticate: {challenge}", length=0, status="401 U")]


def _challenge(chance: random.Random, ask: Ask, right: Plain) -> Sequence[Step]:
    lines = [f"WWW-Authenticate: {each.format(url=ask.url)}" for each in CHALLENGES]
    return [right.head(*chance.sample(lines, 2), length=0, status="401 U")]


def _slow(chance: random.Random, ask: Ask, right: Plain, seconds: float) -> Sequence[Step]:
    """Send head and body in pieces, with silence before each."""
    data = right.data(ask)
    cuts = sorted(chance.randrange(len(data)) for _ in range(4))
    pieces = [data[start:stop] for start, stop in zip([0, *cuts], [*cuts, len(data)], strict=True)]
    return [step for piece in pieces for step in (Pause(seconds), piece)]


def _cut(chance: random.Random, ask: Ask, right: Plain, end: Step) -> Sequence[Step]:
    data = right.data(ask)
    return [data[: chance.randrange(len(data))], end]


def _limited(chance: random.Random, ask: Ask, right: Plain) -> Sequence[Step]:
    """Refuse for a rate limit, with an odd time to wait."""
    status = chance.choice(("429 T", "503 S"))
    return [right.head(f"Retry-After: {chance.choice(RETRIES)}", length=0, status=status)]


def _headless(chance: random.Random, ask: Ask, right: Plain) -> Sequence[Step]:
    """Refuse HEAD alone."""
    if ask.method == "HEAD":
        return [right.head(length=0, status="405 No")]
    return [right.head(), right.body]


KINDS: list[tuple[str, Kind]] = [
    *((f"status {status}", partial(_status, status=status)) for status in STATUSES.split(",")),
    *((f"chunks {layout[:30]!r}", partial(_chunked, layout=layout)) for layout in CHUNKS),
    *((f"raw {text[:30]!r}", partial(_raw, texts=[text])) for text in RAW),
    *((f"line {line[:30]!r}", partial(_lines, lines=[line])) for line in LINES),
    *((f"length {length!r}", partial(_length, lengths=[length])) for length in LENGTHS),
    *((f"redirect {place[:30]!r}", partial(_redirect, places=[place])) for place in PLACES),
    ("content type", partial(_header, name="Content-Type", values=TYPES)),
    ("digest header", partial(_header, name="Docker-Content-Digest", values=DIGESTS)),
    ("content range", partial(_header, name="Content-Range", values=RANGES)),
    ("retry after", _limited),
    ("flipped byte", partial(_body, change=_flipped)),
    ("short body", partial(_body, change=lambda _, body: body[:-1])),
    ("long body", partial(_body, change=lambda _, body: body + b"x" * 100)),
    ("no body", partial(_body, change=lambda _, body: b"")),
    ("huge body", partial(_body, change=lambda _, body: body + bytes(5_000_000))),
    *[("document", _document)] * 6,
    *[("tokens", partial(_token, answers=TOKENS))] * 4,
    *[("challenges", _challenge)] * 2,
    *(
        (f"{coding} label", partial(_label, coding=coding, coded=False))
        for coding in ("gzip", "br", "zstd", "x")
    ),
    ("gzip", partial(_label, coding="gzip", coded=True)),
    ("deflate", partial(_label, coding="deflate", coded=True)),
    ("slow", partial(_slow, seconds=0.02)),
    ("slower than allowed", partial(_slow, seconds=2.0)),
    ("cut", partial(_cut, end=Close())),
    ("reset", partial(_cut, end=Reset())),
    ("no HEAD", _headless),
]

COUNT = len(KINDS) * TWINS


def is_odd(upstream: str) -> bool:
    """Tell whether the name is that of an odd upstream: redirects lead to other paths of the origin too."""
    return upstream.startswith("odd") and upstream[3:6].isdigit()


def number_of(upstream: str) -> int:
    """Return the number in the name of an odd upstream."""
    return int(upstream.removeprefix("odd").removesuffix(".test"))


def kind_of(upstream: str) -> Kind:
    return KINDS[number_of(upstream) % len(KINDS)][1]


def name_of(upstream: str) -> str:
    """Return the name of the kind, for people."""
    return KINDS[number_of(upstream) % len(KINDS)][0]
