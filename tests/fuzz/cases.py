"""Generator of cases: the bytes of one connection, and the answers that are right.

Case N of a seed is always the same. A grammar has every request shape of the API; `tests.fuzz.mutation`
damages some of its requests.
"""

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from urllib.parse import quote

from mirror.oci.manifest import DOCKER_LIST, DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST
from tests.fuzz import odd
from tests.fuzz.content import GOOD, ODD, WARM, Image, image_of, noise
from tests.fuzz.mutation import mutated

TYPES = (OCI_INDEX, DOCKER_LIST, OCI_MANIFEST, DOCKER_MANIFEST)

# The last request behind damaged bytes: it ends the connection, however the bytes before it were read.
SENTINEL = b"GET /healthz HTTP/1.1\r\nHost: mirror.test\r\nConnection: close\r\n\r\n"

# Statuses of an upstream that is out of order, for a client without another registry to try
# (docs/clients.md, docs/architecture.md "Failure table").
UNAVAILABLE = frozenset({424, 429, 502, 504})


class Way(StrEnum):
    """Manner in which the bytes of a case are sent."""

    IN_TURN = "each request after the answer to the one before"
    PIPELINED = "all requests at once"
    SPLIT = "in random pieces"
    BYTES = "byte by byte"
    HALF_CLOSED = "all at once, with the end of the client's direction behind"


@dataclass(frozen=True)
class Expected:
    """Conditions on an answer. `contents`: by digest, what a body with status 200 or 206 may be.

    `name`: the repository in a listing; `odd`: the upstream misbehaves for this request.
    """

    statuses: frozenset[int]
    contents: Mapping[str, bytes] = field(default_factory=dict)
    name: str | None = None
    odd: bool = False


@dataclass(frozen=True)
class Request:
    data: bytes
    method: str = "GET"
    expected: Expected | None = None  # None: damaged; whatever is a right answer to anything
    last: bool = False  # the mirror ends the connection behind the answer


@dataclass(frozen=True)
class Case:
    """Requests of one connection."""

    number: int
    requests: tuple[Request, ...]
    way: Way
    upstream: str = GOOD
    cuts: int = 0  # seed of the pieces
    label: str = ""

    @property
    def damaged(self) -> bool:
        return any(each.expected is None for each in self.requests)

    @property
    def comparable(self) -> bool:
        """Tell whether both parsers must give the same statuses."""
        return self.upstream == GOOD and self.way is not Way.HALF_CLOSED

    def data(self) -> bytes:
        return b"".join(each.data for each in self.requests)

    def with_requests(self, requests: Sequence[Request]) -> "Case":
        return replace(self, requests=tuple(requests))


def case_of(seed: int, number: int) -> Case:
    """Return a case of a seed."""
    chance = random.Random(f"{seed}:{number}")
    made = chance.choices(list(_MAKERS), weights=list(_MAKERS.values()))[0](chance, number)
    return replace(made, cuts=chance.getrandbits(32))


def _plain(chance: random.Random, number: int) -> Case:
    """Make requests for content that is mostly here, with a few refused ones between them."""
    way = chance.choices(list(Way), weights=(8, 8, 3, 1, 1))[0]
    count = chance.randint(1, 2) if way is Way.BYTES else chance.randint(4, 18)
    pool = [_Grammar(chance, GOOD, _warm(chance, large=way is not Way.BYTES)) for _ in range(2)]
    requests = []
    for _ in range(count):
        made = chance.choice(pool).any()
        requests.append(made)
        if made.last:
            break
    if way is Way.IN_TURN and chance.random() < 0.4:  # identical heads, which the response cache answers
        requests = [each for each in requests if not each.last][:3] * 4 or requests
    return Case(number, tuple(requests), way, label="plain")


def _cold(chance: random.Random, number: int) -> Case:
    """Make a pull of a repository that no case has asked for."""
    grammar = _Grammar(chance, GOOD, f"fresh/c{number}")
    return Case(number, tuple(grammar.pull()), chance.choice((Way.IN_TURN, Way.PIPELINED)), label="cold")


def _odd(chance: random.Random, number: int) -> Case:
    """Make a pull from an upstream that misbehaves."""
    upstream = ODD.format(chance.randrange(odd.COUNT))
    grammar = _Grammar(chance, upstream, f"r/c{number % 500}")
    requests = [*grammar.pull(), *(grammar.any() for _ in range(4))]
    chosen = [each for each in chance.sample(requests, 4) if not each.last]
    return Case(number, tuple(chosen), Way.IN_TURN, upstream, label=odd.name_of(upstream))


def _damaged(chance: random.Random, number: int) -> Case:
    """Make a damaged request behind a right one, with the sentinel at the end."""
    grammar = _Grammar(chance, GOOD, _warm(chance, large=False))
    first, second = grammar.any(), grammar.any()
    requests = [Request(mutated(chance, second.data, first.data), second.method), Request(SENTINEL)]
    if chance.random() < 0.3 and not first.last:
        requests.insert(0, first)
    way = chance.choices((Way.PIPELINED, Way.SPLIT, Way.BYTES, Way.HALF_CLOSED), weights=(12, 4, 1, 1))[0]
    if way is Way.BYTES and sum(len(each.data) for each in requests) > 1_000:
        way = Way.SPLIT
    return Case(number, tuple(requests), way, label="damaged")


_MAKERS: dict[Callable[[random.Random, int], Case], int] = {_plain: 62, _cold: 3, _odd: 8, _damaged: 27}


def _warm(chance: random.Random, *, large: bool) -> str:
    number = chance.randrange(WARM)
    return f"library/app{number}" if large or number % 24 else "library/app1"


class _Grammar:
    """Requests for one repository, every shape that the API has."""

    def __init__(self, chance: random.Random, upstream: str, repository: str) -> None:
        self._chance = chance
        self._upstream = upstream
        self._repository = repository
        self._image: Image = image_of(upstream, repository)
        self._odd = upstream != GOOD

    def any(self) -> Request:
        shapes = (
            (self.manifest, 8),
            (self.blob, 9),
            (self.tags, 2),
            (self.referrers, 2),
            (self.missing, 2),
            (self.refused, 3),
            (self.write, 1),
            (self.base, 1),
            (self.catalog, 0.4),
            (self.operators, 0.6),
        )
        made = self._chance.choices([each for each, _ in shapes], weights=[weight for _, weight in shapes])
        return made[0]()

    def pull(self) -> list[Request]:
        """Return a whole pull by digest and tag."""
        return [
            self.manifest("latest"),
            self.manifest(self._image.manifest),
            *(self.blob(each) for each in self._image.blobs),
            self.tags(),
            self.referrers(),
        ]

    def manifest(self, reference: str = "") -> Request:
        image, chance = self._image, self._chance
        reference = reference or chance.choice((image.manifest, image.index, "latest", "index"))
        digest = image.tagged(reference) or reference
        contents = {each: data for each, (data, _) in image.manifests.items()}
        headers = chance.choice(
            ([], [f"Accept: {','.join(TYPES)}"], [f"Accept: {each}" for each in TYPES], ["Accept: */*"])
        )
        statuses = {200}
        if chance.random() < 0.1:
            named = chance.choice((f'"{digest}"', "*", f'W/"{digest}"', '"other"', "x" * 5000, ""))
            headers = [*headers, f"If-None-Match: {named}"]
            statuses = {200, 304}
        if chance.random() < 0.05:
            headers = [*headers, "Range: bytes=0-"]
        if self._odd:
            contents = {}
        return self._made(f"manifests/{reference}", headers, statuses, contents)

    def blob(self, digest: str = "") -> Request:
        chance = self._chance
        digest = digest or chance.choice(list(self._image.blobs))
        data = self._image.blobs[digest]
        headers, statuses = [], {200}
        if chance.random() < 0.4 or len(data) > 100_000:
            headers, statuses = [f"Range: {_range(chance, len(data))}"], {200, 206, 416}
        if chance.random() < 0.05:
            headers.append(f"If-Range: {chance.choice((digest, 'x'))}")
        if chance.random() < 0.05:
            headers.append(f'If-None-Match: "{digest}"')
            statuses.add(304)
        return self._made(f"blobs/{digest}", headers, statuses, {digest: data})

    def tags(self) -> Request:
        query = self._chance.choice(("", "n=1", "n=0", "n=1000&last=a", "last=%00%ff", "n=", "n=-1", "n=x"))
        wrong = query in ("n=", "n=-1", "n=x")
        return self._made("tags/list", [], {400} if wrong else {200}, {}, query, named=not wrong)

    def referrers(self) -> Request:
        digest = self._chance.choice((self._image.manifest, "sha256:" + "0" * 64))
        query = self._chance.choice(("", "artifactType=text/x-fuzz", "artifactType=%ff&artifactType="))
        return self._made(f"referrers/{digest}", [], {200}, {}, query)

    def missing(self) -> Request:
        """Make a request for content that is not there."""
        tail = self._chance.choice(
            ("manifests/none", f"manifests/sha256:{'1' * 64}", f"blobs/sha256:{'2' * 64}")
        )
        return self._made(tail, [], {404}, {})

    def refused(self) -> Request:
        """Make a request that is not of the API, and say so with a status of the client's fault."""
        path = self._chance.choice(_REFUSED)
        return self._request("GET", path, ["Host: mirror.test"], Expected(frozenset({400, 404, 414})))

    def write(self) -> Request:
        method = self._chance.choice(("PUT", "POST", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND"))
        path = f"/v2/{self._repository}/{self._chance.choice(('blobs/uploads/', 'manifests/latest'))}"
        body = noise(path, self._chance.choice((0, 0, 1, 300, 20_000)))
        headers = ["Host: mirror.test"] + ([f"Content-Length: {len(body)}"] if body else [])
        return self._request(method, path, headers, Expected(frozenset({405})), body)

    def base(self) -> Request:
        path = self._chance.choice(("/v2/", "/v2", f"/v2/{GOOD}/", f"/{GOOD}/v2/", f"/v2/?ns={GOOD}"))
        login = self._chance.choice(([], ["Authorization: Basic Og=="], ["Authorization: \xff"]))
        return self._request("GET", path, ["Host: mirror.test", *login], Expected(frozenset({200})))

    def catalog(self) -> Request:
        query = self._chance.choice(("", "?n=2", "?n=1000&last=library/app", "?n=0", f"?ns={GOOD}"))
        expected = Expected(frozenset({200}))
        return self._request("GET", f"/v2/_catalog{query}", ["Host: mirror.test"], expected)

    def operators(self) -> Request:
        path = self._chance.choices(("/healthz", "/readyz", "/", "/metrics"), weights=(4, 2, 4, 0.2))[0]
        accept = ["Accept: text/html"] if path == "/" else []
        expected = Expected(frozenset({200}))
        return self._request("GET", path, ["Host: mirror.test:5000", *accept], expected)

    def _made(
        self,
        tail: str,
        headers: Sequence[str],
        statuses: set[int],
        contents: Mapping[str, bytes],
        query: str = "",
        *,
        named: bool = False,
    ) -> Request:
        path, more, elsewhere = self._address(tail, query)
        name = self._repository if named else None
        if self._odd:
            statuses = statuses | {200, 400, 404} | (set() if elsewhere else UNAVAILABLE)
            name = None
        expected = Expected(frozenset(statuses), contents, name, self._odd)
        method = self._chance.choices(("GET", "HEAD"), weights=(4, 1))[0]
        return self._request(method, path, [*more, *headers, *self._habits()], expected)

    def _address(self, tail: str, query: str) -> tuple[str, list[str], bool]:
        """Return target and headers, and whether the client has another registry to try."""
        name, upstream = f"{self._repository}/{tail}", self._upstream
        joined, host = f"?{query}" if query else "", "Host: mirror.test"
        ways = [
            (f"/v2/{name}?{'&'.join(each for each in (query, f'ns={upstream}') if each)}", [host], True),
            (f"/v2/{name}{joined}", [host, f"OCI-Namespace: {upstream}"], True),
            (f"/v2/{upstream}/{name}{joined}", [host], False),
            (f"/{upstream}/v2/{name}{joined}", [host], False),
            (f"/v2/{name}{joined}", [f"Host: {upstream}"], True),
            (f"http://{upstream}/v2/{name}{joined}", [host], True),
            (f"/{upstream}/v2/{quote(name, safe='')}{joined}", [host], False),
        ]
        if not self._odd:
            ways += [(f"/v2/{name}{joined}", [host], True)] * 4
        return self._chance.choice(ways)

    def _habits(self) -> list[str]:
        """Return headers that clients send and that change nothing."""
        if self._chance.random() < 0.7:
            return []
        return self._chance.sample(_HABITS, 2)

    def _request(
        self, method: str, path: str, headers: Sequence[str], expected: Expected, body: bytes = b""
    ) -> Request:
        head = "\r\n".join([f"{method} {path} HTTP/1.1", *headers, "", ""]).encode("latin-1")
        return Request(head + body, method, expected, last=bool(body))


def _range(chance: random.Random, size: int) -> str:
    """Return a Range header, mostly a right one."""
    at = chance.randrange(size + 2)
    single = [f"{at}-{at + chance.randrange(5_000)}", f"0-{size}", f"-{at}", f"{max(0, size - 300)}-", "0-0"]
    several = ",".join(chance.sample([*single, f"{size}-{size}", "5-2", "1-1", "3-9"], chance.randint(2, 5)))
    other = [
        "lines=1-2",
        "bytes",
        "bytes=",
        "bytes=-",
        "bytes=a-b",
        "bytes=0-0,",
        f"bytes={10**25}-",
        "\xff=1-2",
    ]
    many = "bytes=" + ",".join(f"{each}-{each}" for each in range(0, 4_000, 8))
    return chance.choices(
        [f"bytes={chance.choice(single)}", f"bytes={several}", f"{chance.choice(other)}", many],
        weights=(10, 3, 2, 0.5),
    )[0]


_HABITS = [
    "User-Agent: containerd/2.1.4",
    "Accept-Encoding: gzip, zstd, br",
    "Authorization: Bearer abc.def",
    "Connection: keep-alive",
    "Cookie: a=b",
    "Content-Length: 0",
    "Docker-Distribution-Api-Version: registry/2.0",
    "Traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    "X-Forwarded-For: 10.0.0.1",
    "Via: 1.1 proxy",
]
_REFUSED = [
    "/v3/library/app/manifests/latest",
    "/v2/library/app/manifests/",
    "/v2//manifests/latest",
    "/v2/Library/app/manifests/latest",
    "/v2/library/app/manifests/-a",
    "/v2/library/app/manifests/sha256:00",
    f"/v2/library/app/manifests/md5:{'0' * 32}",
    f"/v2/library/app/blobs/sha256:{'A' * 64}",
    "/v2/library/app/blobs/latest",
    "/v2/library/../etc/manifests/latest",
    "/v2/library/%2e%2e/manifests/latest",
    "/v2/library/app%00/manifests/latest",
    "/v2/library/app%252f/manifests/latest",
    "/v2/nowhere.test/a/manifests/latest",
    "/nowhere.test/v2/a/manifests/latest",
    "/v2/a/b/manifests/latest?ns=nowhere.test",
    "/v2/a/b/manifests/latest?ns=%ff",
    f"/v2/a/b/manifests/latest?ns={GOOD}&ns=odd000.test",
    "/v2/" + "a/" * 130 + "manifests/latest",
    "/v2/" + "a" * 1_100 + "/manifests/latest",
    "/v2/a/b/tags/list?last=" + "a" * 5_000,
    "/v2/library/missing/tags/list",
    "/v2/library/app/unknown/latest",
    "/v2/_catalog/x",
    "/",
    "//",
    "/favicon.ico",
    "/v2/library/app/manifests/" + "t" * 129,
]
