"""List of referrers: always 200 with an index, whatever the upstream answers, and remembered.

The OCI distribution-spec forbids 404. Clients take the first 200 for "this registry has the API", and oras
ends at a 404 after that; Docker 29 ends a pull at any error, and at a 200 that is no index.
"""

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from mirror.oci.digest import Digest
from mirror.oci.manifest import OCI_INDEX, OCI_MANIFEST
from tests.fakes.content import FakeImage
from tests.fakes.faults import Fault
from tests.fakes.registry import FakeRegistry
from tests.running import NEVER, Running, configured, mirror_of, serving
from tests.wire import Reply, get, head

NAME = "library/x"
X = f"/v2/docker.io/{NAME}"
JSON = {"Content-Type": "application/json"}
HTML = {"Content-Type": "text/html"}
INDEX = {"Content-Type": OCI_INDEX}


class Clock:
    """Seconds since the epoch, as the test sets them."""

    now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
async def mirror(fake: FakeRegistry, tmp_path: Path) -> AsyncIterator[Running]:
    async with mirror_of(fake, tmp_path) as running:
        yield running


def entry_of(digest: Digest) -> dict[str, object]:
    return {"mediaType": OCI_MANIFEST, "digest": str(digest), "size": 1, "artifactType": "text/sbom"}


def add_tagged(fake: FakeRegistry, image: FakeImage) -> str:
    """Give an image a referrer by the tag schema; return the digest of the referrer."""
    found = Digest.of(b"a referrer")
    index = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [entry_of(found)]}
    tag = str(image.manifest).replace(":", "-")
    fake.add_manifest(NAME, json.dumps(index).encode(), OCI_INDEX, tag)
    return str(found)


def listed(reply: Reply) -> list[str]:
    """Return the digests of a response that each client takes for an index."""
    assert (reply.status, reply.header("content-type")) == (200, OCI_INDEX)
    document = json.loads(reply.body)
    assert (document["schemaVersion"], document["mediaType"]) == (2, OCI_INDEX)
    return [each["digest"] for each in document["manifests"]]


# Ways to answer a request for referrers without giving any.
WITHOUT = [
    Fault(status=404, body=b"404 page not found\n", headers={"Content-Type": "text/plain"}),
    Fault(status=404, body=b'{"errors":[{"code":"MANIFEST_UNKNOWN"}]}', headers=JSON),
    Fault(status=404, body=b'{"errors":[{"code":"NAME_UNKNOWN"}]}', headers=JSON),
    Fault(status=400, body=b'{"errors":[{"code":"MANIFEST_INVALID"}]}', headers=JSON),
    Fault(status=400, body=b'{"errors":[{"code":"UNSUPPORTED"}]}', headers=JSON),
    Fault(status=401, body=b'{"errors":[{"code":"UNAUTHORIZED"}]}', headers=JSON),
    Fault(status=403, body=b"<html>firewall", headers=HTML),
    Fault(status=405),
    Fault(status=406),
    Fault(status=410),
    Fault(status=501),
    Fault(status=303, headers={"Location": "https://elsewhere.test/"}),
    Fault(status=200, body=b"<html>login", headers=HTML),
    Fault(status=200, body=b"", headers=INDEX),
    Fault(status=200, body=b"{}", headers=JSON),
    Fault(status=200, body=b"[]", headers=JSON),
    Fault(status=200, body=b'{"schemaVersion":2,"manifests":null}', headers=INDEX),
    Fault(status=200, body=b'{"schemaVersion":2,"mani', headers=INDEX),
    Fault(status=200, body=b'{"referrers":[]}', headers=JSON),
]


@pytest.mark.parametrize("fault", WITHOUT, ids=lambda fault: f"{fault.status} {fault.body[:24]!r}")
async def test_referrers_of_an_upstream_without_the_api(
    fake: FakeRegistry, mirror: Running, fault: Fault
) -> None:
    """A digest with a fallback tag lists what the tag has; one without lists none: both 200."""
    tagged, bare = (fake.add_image(NAME, name, [name.encode()]) for name in ("tagged", "bare"))
    found = add_tagged(fake, tagged)
    fake.fault(fault, "/referrers/", times=10)
    for image, expected in ((tagged, [found]), (bare, []), (tagged, [found])):
        assert listed(await get(mirror.address, f"{X}/referrers/{image.manifest}")) == expected


@pytest.mark.parametrize(
    "fault", [Fault(status=500), Fault(status=503), Fault(status=429), Fault(raw=b"")], ids=str
)
async def test_referrers_of_an_upstream_that_fails(fake: FakeRegistry, mirror: Running, fault: Fault) -> None:
    """None, marked as not confirmed, and asked for again: no error."""
    image = fake.add_image(NAME, "t", [b"a"])
    found = add_tagged(fake, image)
    fake.referrers_api = False
    # A connection that closes without an answer is taken for an idle one that ended, and asked again.
    fake.fault(fault, "/referrers/", times=2 if fault.raw is not None else 1)
    reply = await get(mirror.address, f"{X}/referrers/{image.manifest}")
    assert (listed(reply), reply.header("warning")[:4]) == ([], "110 ")
    if fault.status is not None and fault.status >= 500:
        assert listed(await get(mirror.address, f"{X}/referrers/{image.manifest}")) == [found]


@pytest.mark.parametrize(
    ("path", "host"),
    [
        ("/v2/docker.io/library/x/referrers/{}", ""),
        ("/docker.io/v2/library/x/referrers/{}", ""),
        ("/v2/library/x/referrers/{}", ""),
        ("/v2/library/x/referrers/{}?ns=docker.io", ""),
        ("/v2/library/x/referrers/{}", "docker.io.mirror.test"),
    ],
)
@pytest.mark.parametrize("state", ["fair", "gone", "offline"])
async def test_referrers_by_each_way_to_address_them(
    fake: FakeRegistry, tmp_path: Path, path: str, host: str, state: str
) -> None:
    """An index for what is known and for what is not, with the filter's header where one was asked for."""
    image = fake.add_image(NAME, "t", [b"a"])
    found = add_tagged(fake, image)
    fake.referrers_api = False
    headers = (f"Host: {host}",) if host else ()
    upstreams = {"docker.io": fake.url}
    known, unknown = path.format(image.manifest), path.format(Digest.of(b"?"))
    async with serving(configured(tmp_path, upstreams)) as mirror:
        assert listed(await get(mirror.address, known, *headers)) == [found]
    if state == "gone":
        fake.fault(Fault(raw=b""), times=1000)
    config = configured(tmp_path, upstreams, server={"offline": state == "offline"}, tags={"fresh": 0})
    async with serving(config) as mirror:
        assert listed(await get(mirror.address, known, *headers)) == [found]
        assert listed(await get(mirror.address, unknown, *headers)) == []
        sign = "&" if "?" in path else "?"
        filtered = await get(mirror.address, f"{unknown}{sign}artifactType=text/sbom", *headers)
        assert (listed(filtered), filtered.header("oci-filters-applied")) == ([], "artifactType")
        assert (await head(mirror.address, unknown, *headers)).status == 200


async def test_referrers_of_an_unsigned_image_are_looked_for_once(fake: FakeRegistry, tmp_path: Path) -> None:
    """None is remembered as a list is, and that the upstream lacks the API for its other images too."""
    fake.referrers_api = False
    first, second = (fake.add_image(NAME, name, [name.encode()]) for name in ("a", "b"))
    clock = Clock()
    config = configured(
        tmp_path,
        {"docker.io": fake.url},
        tags={"fresh": 60, "stale_while_revalidate": 600, "fallback_after": NEVER, "missing": 0},
    )
    async with serving(config, clock) as mirror:

        async def asked(image: FakeImage) -> int:
            before = len(fake.log)
            assert listed(await get(mirror.address, f"{X}/referrers/{image.manifest}")) == []
            return len(fake.log) - before

        assert await asked(first) == 2
        assert await asked(first) == 0
        assert await asked(second) == 1
        clock.now += 61
        reply = await get(mirror.address, f"{X}/referrers/{second.manifest}")
        assert (listed(reply), reply.header("age")) == ([], "61")


async def test_referrers_are_revalidated_in_the_background(fake: FakeRegistry, tmp_path: Path) -> None:
    """A list older than `fresh` is served at once, and asked for meanwhile, as tags are."""
    image = fake.add_image(NAME, "t", [b"a"])
    clock = Clock()
    config = configured(tmp_path, {"docker.io": fake.url}, tags={"fresh": 60, "stale_while_revalidate": 600})
    async with serving(config, clock) as mirror:
        path = f"{X}/referrers/{image.manifest}"
        assert listed(await get(mirror.address, path)) == []
        fake.referrers_api = False
        found = add_tagged(fake, image)
        clock.now += 61
        reply = await get(mirror.address, path)
        assert (listed(reply), reply.header("warning")[:4]) == ([], "110 ")
        while listed(reply) == []:
            reply = await get(mirror.address, path)
        assert (listed(reply), "warning" in reply.headers) == ([found], False)
