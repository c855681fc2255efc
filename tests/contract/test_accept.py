"""Manifests by what a client takes: one platform in the place of a list, and types that only it names."""

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from mirror.oci.digest import Digest
from mirror.oci.manifest import DOCKER_LIST, DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST
from tests.fakes.access import BasicAuth
from tests.fakes.content import descriptor
from tests.fakes.faults import Fault
from tests.fakes.registry import FakeRegistry
from tests.running import Running, configured, mirror_of, serving
from tests.wire import ask, get

SINGLE = f"Accept: {DOCKER_MANIFEST}"
ARTIFACT = "application/vnd.oci.artifact.manifest.v1+json"
ARTIFACT_BODY = json.dumps({"mediaType": ARTIFACT, "artifactType": "a/b", "blobs": []}).encode()


@dataclass(frozen=True)
class Multi:
    """A tag of several platforms: the bytes of the list, and of each platform's manifest."""

    data: bytes
    platforms: dict[str, bytes]
    list_type: str

    @property
    def digest(self) -> Digest:
        return Digest.of(self.data)


def add_multi(fake: FakeRegistry, tag: str, list_type: str = DOCKER_LIST, *platforms: str) -> Multi:
    """Add an image for each platform, and the list of them, in this order."""
    single = DOCKER_MANIFEST if list_type == DOCKER_LIST else OCI_MANIFEST
    found, entries = {}, []
    for name in platforms or ("linux/arm64", "linux/amd64", "linux/arm/v7", "windows/amd64"):
        config = f"config of {name} {tag}".encode()
        fake.add_blob("library/x", config)
        body = {"schemaVersion": 2, "mediaType": single, "layers": []}
        body["config"] = descriptor("application/x", config)
        found[name] = json.dumps(body).encode()
        fake.add_manifest("library/x", found[name], single)
        system, architecture, *variant = name.split("/")
        platform = {"os": system, "architecture": architecture}
        entries.append({**descriptor(single, found[name]), "platform": platform})
        if variant:
            platform["variant"] = variant[0]
    data = json.dumps({"schemaVersion": 2, "mediaType": list_type, "manifests": entries}).encode()
    fake.add_manifest("library/x", data, list_type, tag)
    return Multi(data, found, list_type)


@pytest.fixture
async def mirror(fake: FakeRegistry, tmp_path: Path) -> AsyncIterator[Running]:
    async with mirror_of(fake, tmp_path / "cache") as running:
        yield running


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize(
    ("accept", "list_type", "single"),
    [
        ([DOCKER_MANIFEST], DOCKER_LIST, True),
        ([f"{OCI_MANIFEST}, {DOCKER_MANIFEST}, {OCI_INDEX}"], DOCKER_LIST, True),
        ([OCI_MANIFEST, DOCKER_MANIFEST], DOCKER_LIST, True),
        ([DOCKER_MANIFEST, DOCKER_LIST], DOCKER_LIST, False),
        ([f"{DOCKER_MANIFEST}, */*"], DOCKER_LIST, False),
        (["*/*"], DOCKER_LIST, False),
        ([], DOCKER_LIST, False),
        ([OCI_MANIFEST, OCI_INDEX], DOCKER_LIST, False),
        ([DOCKER_MANIFEST], OCI_INDEX, False),
        ([DOCKER_MANIFEST, DOCKER_LIST], OCI_INDEX, False),
        ([OCI_MANIFEST], OCI_INDEX, True),
        ([OCI_MANIFEST, DOCKER_LIST], OCI_INDEX, False),
        ([], OCI_INDEX, False),
    ],
)
async def test_list_by_tag_is_one_platform_for_who_takes_no_list(
    mirror: Running, fake: FakeRegistry, accept: list[str], list_type: str, single: bool, method: str
) -> None:
    """The manifest of linux/amd64 comes by tag with its own digest, type, length and ETag, each time."""
    multi = add_multi(fake, "t", list_type)
    expected = multi.platforms["linux/amd64"] if single else multi.data
    headers = [f"Accept: {each}" for each in accept]
    for _ in range(4):  # a miss, hits, and the response cache
        reply = await ask(mirror.address, method, "/v2/library/x/manifests/t", headers)
        assert reply.status == 200
        assert reply.body == (expected if method == "GET" else b"")
        assert reply.header("content-length") == str(len(expected))
        assert reply.header("docker-content-digest") == str(Digest.of(expected))
        assert reply.header("etag") == f'"{Digest.of(expected)}"'
        assert reply.header("content-type") == json.loads(expected)["mediaType"]
        assert reply.header("vary") == "Accept, OCI-Namespace"


async def test_digest_of_a_list_is_the_list(mirror: Running, fake: FakeRegistry) -> None:
    """A digest has one content, whatever the client takes, and the response does not vary by that."""
    multi = add_multi(fake, "t")
    for _ in range(2):
        reply = await get(mirror.address, f"/v2/library/x/manifests/{multi.digest}", SINGLE)
        assert reply.body == multi.data
        assert reply.header("vary") == "OCI-Namespace"


async def test_clients_of_both_kinds_get_their_own(mirror: Running, fake: FakeRegistry) -> None:
    """No response to one is given to the other, nor by way of the response cache."""
    multi = add_multi(fake, "t")
    for _ in range(4):
        assert (await get(mirror.address, "/v2/library/x/manifests/t", SINGLE)).body == multi.platforms[
            "linux/amd64"
        ]
        assert (await get(mirror.address, "/v2/library/x/manifests/t")).body == multi.data
    assert fake.requests("GET", "manifests/t") == 1
    assert fake.requests("GET", "manifests/sha256") == 1


async def test_not_modified_is_by_what_would_be_sent(mirror: Running, fake: FakeRegistry) -> None:
    """The list's ETag does not make a client keep a list that it cannot read."""
    multi = add_multi(fake, "t")
    child = Digest.of(multi.platforms["linux/amd64"])
    for etag, single, everything in ((child, 304, 200), (multi.digest, 200, 304)):
        condition = f'If-None-Match: "{etag}"'
        for header, status in ((SINGLE, single), ("Accept: */*", everything)):
            for method in ("GET", "HEAD", "GET"):
                reply = await ask(mirror.address, method, "/v2/library/x/manifests/t", [header, condition])
                assert (reply.status, reply.header("vary")) == (status, "Accept, OCI-Namespace")


@pytest.mark.parametrize(("platform", "key"), [("linux/arm64", "linux/arm64"), ("linux/arm", "linux/arm/v7")])
async def test_platform_is_configurable(fake: FakeRegistry, tmp_path: Path, platform: str, key: str) -> None:
    """The first manifest of the platform, of any variant if none is named."""
    multi = add_multi(fake, "t")
    async with mirror_of(fake, tmp_path, tags={"single_platform": platform}) as mirror:
        reply = await get(mirror.address, "/v2/library/x/manifests/t", SINGLE)
        assert reply.body == multi.platforms[key]


@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_list_without_the_platform_says_so(mirror: Running, fake: FakeRegistry, method: str) -> None:
    """404, as distribution answers, and the words say which platforms there are and what to set."""
    add_multi(fake, "t", DOCKER_LIST, "linux/s390x", "windows/amd64")
    reply = await ask(mirror.address, method, "/v2/library/x/manifests/t", [SINGLE])
    assert reply.status == 404
    if method == "GET":
        message = json.loads(reply.body)["errors"][0]["message"]
        assert "linux/s390x, windows/amd64" in message
        assert "tags.single_platform" in message
    assert (await get(mirror.address, "/v2/library/x/manifests/t")).status == 200


async def test_list_that_does_not_parse_is_not_found_for_who_takes_none(
    mirror: Running, fake: FakeRegistry
) -> None:
    """Odd lists cost no 500."""
    for number, data in enumerate((b"{}", b'{"manifests": 5}', b'{"manifests": [{"digest": "x"}]}')):
        fake.add_manifest("library/x", data, DOCKER_LIST, f"t{number}")
        assert (await get(mirror.address, f"/v2/library/x/manifests/t{number}", SINGLE)).status == 404
        assert (await get(mirror.address, f"/v2/library/x/manifests/t{number}")).body == data


async def test_single_platform_without_the_upstream(fake: FakeRegistry, tmp_path: Path) -> None:
    """Offline a stored list and its stored child are served, stale with a warning; without the child 404."""
    multi = add_multi(fake, "t")
    other = add_multi(fake, "other")
    folder, urls = tmp_path / "cache", {"docker.io": fake.url}
    child = multi.platforms["linux/amd64"]
    async with serving(configured(folder, urls)) as mirror:
        await get(mirror.address, "/v2/library/x/manifests/t", SINGLE)
        await get(mirror.address, "/v2/library/x/blobs/" + json.loads(child)["config"]["digest"])
        await get(mirror.address, "/v2/library/x/manifests/other")
        await mirror.settled()
    sections = {"server": {"offline": True}, "tags": {"fresh": 0}}
    async with serving(configured(folder, urls, **sections)) as mirror:
        for method in ("GET", "HEAD"):
            reply = await ask(mirror.address, method, "/v2/library/x/manifests/t", [SINGLE])
            assert reply.status == 200
            assert reply.header("docker-content-digest") == str(Digest.of(child))
            assert reply.header("warning").startswith("110 ")
        assert (await get(mirror.address, "/v2/library/x/manifests/other", SINGLE)).status == 404
        assert len(other.platforms) == 4


@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_single_platform_that_is_not_confirmed_is_marked_stale(
    fake: FakeRegistry, tmp_path: Path, method: str
) -> None:
    """The tag is confirmed again and the child is not: the answer says so, and a 304 too."""
    child, now = add_multi(fake, "t").platforms["linux/amd64"], [1_000_000.0]
    fake.auth = BasicAuth("me", "geheim")
    account = {"username": "me", "password": "geheim", "recheck_access": 3600, "private": "everybody"}
    config = configured(tmp_path, {"docker.io": fake.url}, upstream=account)
    async with serving(config, clock=lambda: now[0]) as mirror:
        tag = "/v2/library/x/manifests/t"
        assert (await get(mirror.address, tag, SINGLE)).body == child
        now[0] += 4000
        fake.fault(Fault(status=503), Digest.of(child), times=1000)
        for condition in ([], [f'If-None-Match: "{Digest.of(child)}"']):
            reply = await ask(mirror.address, method, tag, [SINGLE, *condition])
            assert reply.status == (304 if condition else 200)
            assert reply.header("warning").startswith("110 ")
            assert reply.header("age") == "4000"


async def test_type_that_only_the_client_names(fake: FakeRegistry, tmp_path: Path) -> None:
    """An artifact goes to the client that names its type; others get 404, as they do from the upstream."""
    fake.negotiates = True
    digest = fake.add_manifest("library/x", ARTIFACT_BODY, ARTIFACT, "a")
    named = f"Accept: {OCI_MANIFEST}, {ARTIFACT}"
    async with mirror_of(fake, tmp_path / "cache") as mirror:
        for method in ("HEAD", "GET", "GET"):
            plain = await ask(
                mirror.address, method, "/v2/library/x/manifests/a", [f"Accept: {OCI_MANIFEST}"]
            )
            assert plain.status == 404
            reply = await ask(mirror.address, method, "/v2/library/x/manifests/a", [named])
            assert (reply.status, reply.header("content-type")) == (200, ARTIFACT)
            assert reply.body == (b"" if method == "HEAD" else ARTIFACT_BODY)
        assert fake.requests("GET", "manifests/") <= 2
        reply = await get(mirror.address, f"/v2/library/x/manifests/{digest}", named)
        assert reply.body == ARTIFACT_BODY
    async with mirror_of(fake, tmp_path / "cache", server={"offline": True}) as mirror:
        assert (await get(mirror.address, "/v2/library/x/manifests/a", named)).body == ARTIFACT_BODY
        assert (await get(mirror.address, "/v2/library/x/manifests/a")).status == 404


async def test_type_that_only_the_client_names_by_digest(mirror: Running, fake: FakeRegistry) -> None:
    """A digest is asked for with the type too; the refusal of one client does not hold for the other."""
    fake.negotiates = True
    digest = fake.add_manifest("library/x", ARTIFACT_BODY, ARTIFACT)
    path = f"/v2/library/x/manifests/{digest}"
    assert (await get(mirror.address, path, f"Accept: {OCI_MANIFEST}")).status == 404
    for method in ("HEAD", "GET"):
        reply = await ask(mirror.address, method, path, [f"Accept: {ARTIFACT}, {OCI_MANIFEST}"])
        assert (reply.status, reply.header("content-type")) == (200, ARTIFACT)


async def test_ordinary_tag_is_one_entry_whatever_else_a_client_names(
    mirror: Running, fake: FakeRegistry
) -> None:
    """Further types cost neither a request nor a second copy where the upstream has the usual ones."""
    image = fake.add_image("library/x", "t", [b"x"])
    for header in (f"Accept: {ARTIFACT}, {OCI_MANIFEST}", "Accept: */*", f"Accept: {ARTIFACT}"):
        assert (await get(mirror.address, "/v2/library/x/manifests/t", header)).body == image.manifest_data
    assert fake.requests("GET") == 1
    assert all(ARTIFACT not in seen.headers["Accept"] for seen in fake.log)


async def test_typed_tag_follows_the_upstream(fake: FakeRegistry, tmp_path: Path) -> None:
    """A tag that becomes an ordinary image, or goes away, is that for everybody."""
    fake.negotiates = True
    fake.add_manifest("library/x", ARTIFACT_BODY, ARTIFACT, "a")
    named = f"Accept: {ARTIFACT}"
    async with mirror_of(fake, tmp_path, tags={"fresh": 0, "missing": 0}) as mirror:
        assert (await get(mirror.address, "/v2/library/x/manifests/a", named)).body == ARTIFACT_BODY
        image = fake.add_image("library/x", "a", [b"x"])
        for header in (named, "Accept: */*", named):
            reply = await get(mirror.address, "/v2/library/x/manifests/a", header)
            assert reply.body == image.manifest_data
        del fake.repository("library/x").tags["a"]
        for header in (named, "Accept: */*"):
            assert (await get(mirror.address, "/v2/library/x/manifests/a", header)).status == 404


@pytest.mark.parametrize("status", [401, 403, 429, 500])
async def test_refusals_for_other_reasons_are_not_asked_again(
    mirror: Running, fake: FakeRegistry, status: int
) -> None:
    """Only what may be about the type is asked with further types."""
    fake.fault(Fault(status=status), times=10)
    await get(mirror.address, "/v2/library/x/manifests/a", f"Accept: {ARTIFACT}")
    assert all(ARTIFACT not in seen.headers.get("Accept", "") for seen in fake.log)


async def test_accept_header_is_no_way_into_the_upstreams_request(
    mirror: Running, fake: FakeRegistry
) -> None:
    """Schema 1, wildcards, and what is no media type are never asked for; the number of types is bounded."""
    many = ", ".join(f"application/x{number}" for number in range(200))
    for line in (
        "Accept: application/vnd.docker.distribution.manifest.v1+json",
        f"Accept: {many}",
        "Accept: application/a\tb, application/\xe9",
    ):
        await get(mirror.address, "/v2/library/x/manifests/none", line)
    for seen in fake.log:
        accept = seen.headers["Accept"]
        assert "manifest.v1+json" not in accept.replace("image.manifest.v1+json", "")
        assert accept.count(",") < 12
        assert accept.isascii()
        assert "*" not in accept
