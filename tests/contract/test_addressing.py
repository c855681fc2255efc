"""Choice of the upstream: an explicit word of the client decides, and never a guess of the mirror."""

import json
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from aiohttp import web

from mirror.oci.digest import Digest
from mirror.oci.manifest import OCI_MANIFEST
from tests.fakes.registry import FakeRegistry
from tests.fakes.site import Seen, Site
from tests.running import Running, configured, serving
from tests.wire import Reply, get, head

PUBLIC, PRIVATE = [b"public"], [b"private"]


@pytest.fixture
async def registries() -> AsyncIterator[dict[str, FakeRegistry]]:
    """A public registry with `team/app`, and a private one, which may have it under the public one's name."""
    async with AsyncExitStack() as stack:
        found = {
            name: await stack.enter_async_context(FakeRegistry())
            for name in ("docker.io", "hub.test", "harbor.test")
        }
        found["hub.test"].add_image("team/app", "1", PUBLIC)
        yield found


@pytest.fixture
async def mirror(registries: dict[str, FakeRegistry], tmp_path: Path) -> AsyncIterator[Running]:
    urls = {name: fake.url for name, fake in registries.items()}
    async with serving(configured(tmp_path / "cache", urls)) as running:
        yield running


def code(reply: Reply) -> tuple[int, str]:
    return reply.status, json.loads(reply.body)["errors"][0]["code"]


WORDS = [
    ("?ns=harbor.test", "X: y"),
    ("", "Host: harbor.test"),
    ("", "Host: harbor.test:443"),
    ("", "OCI-Namespace: harbor.test"),
]


@pytest.mark.parametrize(("query", "header"), WORDS)
async def test_public_image_is_not_served_under_a_private_name(
    mirror: Running, registries: dict[str, FakeRegistry], query: str, header: str
) -> None:
    """No dependency confusion: the client wants harbor.test/hub.test/team/app, which is not there."""
    for path in ("manifests/1", "tags/list"):
        reply = await get(mirror.address, f"/v2/hub.test/team/app/{path}{query}", header)
        assert reply.status == 404
    assert registries["hub.test"].log == []
    assert {seen.path for seen in registries["harbor.test"].log} == {
        "/v2/hub.test/team/app/manifests/1",
        "/v2/hub.test/team/app/tags/list",
    }


@pytest.mark.parametrize(("query", "header"), WORDS)
async def test_private_image_with_the_name_of_a_registry(
    mirror: Running, registries: dict[str, FakeRegistry], query: str, header: str
) -> None:
    """The image of the registry that the client names is served, with each of its blobs."""
    image = registries["harbor.test"].add_image("hub.test/team/app", "1", PRIVATE)
    await get(mirror.address, "/v2/hub.test/team/app/manifests/1")
    reply = await get(mirror.address, f"/v2/hub.test/team/app/manifests/1{query}", header)
    assert reply.body == image.manifest_data
    for digest, data in zip((image.config, *image.layers), (image.config_data, *PRIVATE), strict=True):
        reply = await get(mirror.address, f"/v2/hub.test/team/app/blobs/{digest}{query}", header)
        assert (reply.status, reply.body) == (200, data)


@pytest.mark.parametrize("query", ["?ns=ghcr.io", "?ns=evil.test", "?ns=", "?ns=hub.test%0d%0a"])
@pytest.mark.parametrize("path", ["/v2/hub.test/team/app/manifests/1", "/v2/team/app/manifests/1"])
async def test_ns_that_names_no_upstream_is_refused(
    mirror: Running, registries: dict[str, FakeRegistry], path: str, query: str
) -> None:
    """404, at which the client goes to the registry itself; no upstream is asked (invariant 7)."""
    reply = await get(mirror.address, f"{path}{query}")
    assert code(reply) == (404, "NAME_UNKNOWN")
    assert [fake.log for fake in registries.values()] == [[], [], []]


async def test_prefix_and_ns_of_the_same_upstream(mirror: Running) -> None:
    """A hosts.toml with `override_path` that ends in /v2/hub.test, and a prefix that leaves no doubt."""
    for path in ("/v2/hub.test/team/app", "/hub.test/v2/team/app"):
        assert (await get(mirror.address, f"{path}/manifests/1?ns=hub.test")).status == 200
    assert (await get(mirror.address, "/hub.test/v2/team/app/manifests/1?ns=harbor.test")).status == 200


@pytest.mark.parametrize(
    "host",
    ["localhost:5000", "127.0.0.1:5000", "[::1]:5000", "cache.lan:5000", "mirror", "hub.test:5000", "a_b"],
)
async def test_own_names_of_the_mirror_are_the_default_upstream(
    mirror: Running, registries: dict[str, FakeRegistry], host: str
) -> None:
    """A request without another word is for the default upstream, whatever the mirror is called."""
    image = registries["docker.io"].add_image("library/x", "t", PUBLIC)
    reply = await get(mirror.address, "/v2/library/x/manifests/t", f"Host: {host}")
    assert reply.body == image.manifest_data


@pytest.mark.parametrize("host", ["nvcr.io", "GHCR.io:5000", "me.azurecr.io", "quay.io."])
async def test_host_of_another_registry_is_refused(
    mirror: Running, registries: dict[str, FakeRegistry], host: str
) -> None:
    """The answer is not docker.io's, and says what to configure; no upstream is asked."""
    registries["docker.io"].add_image("team/app", "1", PUBLIC)
    reply = await get(mirror.address, "/v2/team/app/manifests/1", f"Host: {host}")
    assert code(reply) == (404, "NAME_UNKNOWN")
    assert "[[upstream]]" in json.loads(reply.body)["errors"][0]["message"]
    assert (await head(mirror.address, "/v2/", f"Host: {host}")).status == 404
    assert [fake.log for fake in registries.values()] == [[], [], []]


@pytest.mark.skipif(not socket.has_ipv6, reason="needs IPv6")
async def test_upstream_with_an_ipv6_address_for_a_name(tmp_path: Path) -> None:
    """The path, plain and encoded, ns and Host lead to one upstream, however the address is spelled."""
    body = json.dumps({"schemaVersion": 2, "mediaType": OCI_MANIFEST, "layers": []}).encode()

    async def answer(request: web.BaseRequest, seen: Seen) -> web.StreamResponse:
        headers = {"Content-Type": OCI_MANIFEST, "Docker-Content-Digest": str(Digest.of(body))}
        return web.Response(body=body, headers=headers)

    async with Site(answer, address="::1") as site:
        name = site.url.removeprefix("http://")
        port = name.rpartition(":")[2]
        config = configured(tmp_path, {"docker.io": "http://127.0.0.1:1", name: site.url})
        async with serving(config) as mirror:
            for path, header in (
                (f"/v2/{name}/a/b/manifests/t", "X: y"),
                (f"/{name}/v2/a/b/manifests/t", "X: y"),
                (f"/v2/%5B::1%5D%3A{port}/a/b/manifests/t", "X: y"),
                (f"/v2/a/b/manifests/t?ns=[::1]:{port}", "X: y"),
                (f"/v2/a/b/manifests/t?ns=%5B0:0:0:0:0:0:0:1%5D%3A{port}", "X: y"),
                ("/v2/a/b/manifests/t", f"Host: [::1]:{port}"),
            ):
                reply = await get(mirror.address, path, header)
                assert (reply.status, reply.body) == (200, body), path
        assert [seen.path for seen in site.log if seen.method == "GET"] == ["/v2/a/b/manifests/t"]
