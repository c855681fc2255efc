"""Situations: what an upstream does wrong, by name. Each is set up once for each round of pulls."""

import gzip
from collections.abc import Callable, Mapping

from tests.contract.test_heads import HEADS
from tests.contract.test_labels import LABELS
from tests.e2e.tolerance.images import Pullable
from tests.fakes.access import TokenAuth
from tests.fakes.faults import Fault
from tests.fakes.ranges import RANGE_WAYS
from tests.fakes.registry import FakeRegistry

# What the fake does from now on, in a round of that many clients.
Situation = Callable[[FakeRegistry, Pullable, int], None]

OFTEN = 10_000


def _head(way: str) -> Situation:
    def arm(fake: FakeRegistry, image: Pullable, clients: int) -> None:
        fake.fault(HEADS["redirect in a circle"], "circle", times=OFTEN)
        fake.fault(HEADS[way], method="HEAD", times=OFTEN)

    return arm


def _layer(fault: Callable[[Pullable], Fault], method: str | None = "GET") -> Situation:
    def arm(fake: FakeRegistry, image: Pullable, clients: int) -> None:
        fake.fault(fault(image), image.layer, method, times=OFTEN)

    return arm


def _labels(headers: Mapping[str, str]) -> Situation:
    """Label everything so."""

    def arm(fake: FakeRegistry, image: Pullable, clients: int) -> None:
        fake.fault(Fault(headers=headers), f"/v2/library/x/blobs/{image.layer}", times=OFTEN)
        fake.fault(Fault(headers=headers), f"/v2/library/x/blobs/{image.config}", times=OFTEN)

    return arm


def _packed(what: str) -> Situation:
    def arm(fake: FakeRegistry, image: Pullable, clients: int) -> None:
        data = {"manifest": image.manifest_data, "config": image.config_data, "layer": image.layer_data}[what]
        match = "manifests" if what == "manifest" else {"config": image.config, "layer": image.layer}[what]
        packed = Fault(data=gzip.compress(data, 1), headers={"Content-Encoding": "gzip"})
        fake.fault(packed, match, "GET", times=OFTEN)

    return arm


def _both_lengths(image: Pullable) -> Fault:
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n"
    body = image.layer_data
    return Fault(raw=head + f"{len(body):x}\r\n".encode() + body + b"\r\n0\r\n\r\n")


def _breaks(way: str) -> Situation:
    """Break each download of the layer once in the middle, and mis-answer ranges."""

    def arm(fake: FakeRegistry, image: Pullable, clients: int) -> None:
        fake.range_way = RANGE_WAYS[way]
        fake.fault(Fault(cut_at=len(image.layer_data) // 2), image.layer, "GET", times=clients)

    return arm


def _ranges(way: str) -> Situation:
    def arm(fake: FakeRegistry, image: Pullable, clients: int) -> None:
        fake.range_way = RANGE_WAYS[way]

    return arm


def _store(status: int = 307, *, tokens: bool = False) -> Situation:
    """Redirect blobs to a store, whose signed URLs work once and which takes no Authorization beside them."""

    def arm(fake: FakeRegistry, image: Pullable, clients: int) -> None:
        fake.cdn, fake.redirect_status = True, status
        fake.auth = TokenAuth() if tokens else None

    return arm


def _tokens(auth: Callable[[], TokenAuth]) -> Situation:
    def arm(fake: FakeRegistry, image: Pullable, clients: int) -> None:
        fake.auth = auth()

    return arm


def _refusing_once(status: int) -> Situation:
    """Grant tokens, and refuse the first request that has one with another challenge."""

    def arm(fake: FakeRegistry, image: Pullable, clients: int) -> None:
        fake.auth = auth = TokenAuth(answer={"expires_in": 10**8})
        auth.rejection = status
        auth.issued.clear()

    return arm


HEAD_SITUATIONS = {
    f"HEAD {way}": _head(way)
    for way in (
        *("400", "401", "403", "404", "405", "410", "501", "401 basic", "204", "206", "page", "no length"),
        *("length 0", "shorter", "longer", "other digest", "no digest", "no type", "200 to everything"),
        *("503 of a gateway", "closed", "redirect in a circle"),
    )
}

LABEL_SITUATIONS = {
    **{
        f"label {name}": _labels(LABELS[name])
        for name in (
            *("Content-Encoding aws-chunked", "Content-Encoding x-gzip", "Content-Encoding UTF-8"),
            *("Content-Encoding a, b", "Content-Type text/plain; charset=latin-9", "wrong digest"),
            *("wrong ETag", "Content-Range", "Content-MD5"),
        )
    },
    **{f"compressed {what}": _packed(what) for what in ("manifest", "config", "layer")},
    "no length": _layer(lambda image: Fault(chunked=True)),
    "no length anywhere": _layer(lambda image: Fault(chunked=True, no_ranges=True), None),
    "both lengths": _layer(_both_lengths),
}

RANGE_SITUATIONS = {
    **{
        f"broken, then {way}": _breaks(way)
        for way in ("400", "403", "416", "500", "200 whole", "200 with a part", "206 another range", "closed")
    },
    **{
        f"ranges: {way}": _ranges(way)
        for way in ("416 as go-containerregistry", "404", "206 no Content-Range", "206 wrong total")
    },
}

ACCESS_SITUATIONS = {
    "store": _store(),
    "store by 302": _store(302),
    "store by 303": _store(303),
    "store and tokens": _store(tokens=True),
    "tokens": _tokens(TokenAuth),
    "tokens without expires_in": _tokens(lambda: TokenAuth(answer={})),
    "tokens that expire at once": _tokens(lambda: TokenAuth(answer={"expires_in": 1})),
    "tokens as access_token": _tokens(lambda: TokenAuth(key="access_token")),
    "scope of another action": _tokens(lambda: TokenAuth(scope="repository:library/x:pull")),
    "token refused with 401": _refusing_once(401),
    "token refused with 403": _refusing_once(403),
}
