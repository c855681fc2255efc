"""Listings: tags page by page, referrers cached and filtered, the catalog of cached content."""

import asyncio
import json
import re
from pathlib import Path
from typing import Any

import pytest

from mirror.oci.digest import Digest
from mirror.oci.manifest import OCI_INDEX, OCI_MANIFEST
from mirror.oci.reference import Repository
from mirror.store.metadata.index import ReferrersEntry
from tests.fakes.content import FakeImage, descriptor
from tests.fakes.faults import Fault
from tests.fakes.registry import FakeRegistry
from tests.running import Running, configured, serving
from tests.wire import get

X = "/v2/docker.io/library/x"


def add_referrer(hub: FakeRegistry, image: FakeImage, artifact_type: str, name: str) -> Digest:
    document = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "artifactType": artifact_type,
        "annotations": {"name": name},
        "subject": descriptor(OCI_MANIFEST, image.manifest_data),
    }
    return hub.add_manifest("library/x", json.dumps(document).encode())


def digests(body: bytes) -> list[str]:
    document: dict[str, Any] = json.loads(body)
    return sorted(each["digest"] for each in document["manifests"])


async def test_callers_of_one_list_share_its_bytes(hub: FakeRegistry, mirror: Running) -> None:
    """Hundreds that ask at once cost what one costs, with a filter too, and so do later ones."""
    image = hub.add_image("library/x", "t", [b"a"])
    add_referrer(hub, image, "text/sbom", "a")
    listings = mirror.service.cache._listings
    repository = Repository("docker.io", "library/x")
    for types in ((), ("text/sbom",)):
        asked = (listings.referrers(repository, image.manifest, types) for _ in range(50))
        answers = await asyncio.gather(*asked)
        answers.append(await listings.referrers(repository, image.manifest, types))
        assert len({id(each.data) for each in answers}) == 1
        assert len(digests(answers[0].data)) == 1
    add_referrer(hub, image, "text/sbom", "b")
    await mirror.service._store.metadata.put_referrers(
        repository, image.manifest, ReferrersEntry("[]", confirmed=listings._context.clock())
    )
    assert digests((await listings.referrers(repository, image.manifest, ("text/sbom",))).data) == []


async def test_tags_listing_pages_are_the_upstreams(hub: FakeRegistry, mirror: Running) -> None:
    """`n` and `last` are passed on, and the Link leads to the next page on this mirror, `ns` kept."""
    image = hub.add_image("library/x", "a", [b"a"])
    for tag in ("b", "c"):
        hub.repository("library/x").tags[tag] = str(image.manifest)
    first = await get(mirror.address, "/v2/library/x/tags/list?n=2&ns=docker.io")
    assert json.loads(first.body) == {"name": "library/x", "tags": ["a", "b"]}
    assert first.header("link") == '</v2/library/x/tags/list?n=2&last=b&ns=docker.io>; rel="next"'
    second = await get(mirror.address, "/v2/library/x/tags/list?n=2&last=b&ns=docker.io")
    assert json.loads(second.body)["tags"] == ["c"]
    assert "link" not in second.headers
    assert all("ns=" not in seen.query for seen in hub.log)


async def test_tags_listing_is_kept_while_fresh(hub: FakeRegistry, tmp_path: Path) -> None:
    """One upstream request for each page in `tags.fresh`, whatever the form of its address; then another."""
    image = hub.add_image("library/x", "a", [b"a"])
    now = [1_800_000_000.0]
    config = configured(tmp_path, {"docker.io": hub.url}, tags={"fresh": 60})
    async with serving(config, lambda: now[0]) as mirror:
        for path in (X, "/v2/library/x", "/docker.io/v2/library/x"):
            reply = await get(mirror.address, f"{path}/tags/list")
            assert json.loads(reply.body)["tags"] == ["a"]
        assert hub.requests(match="tags/list") == 1
        hub.repository("library/x").tags["b"] = str(image.manifest)
        assert json.loads((await get(mirror.address, f"{X}/tags/list?last=a")).body)["tags"] == ["b"]
        now[0] += 61
        assert json.loads((await get(mirror.address, f"{X}/tags/list")).body)["tags"] == ["a", "b"]
        assert hub.requests(match="tags/list") == 3


async def test_tags_listing_with_n_0_has_no_next_page(hub: FakeRegistry, mirror: Running) -> None:
    """`n=0` has no Link, whatever the upstream sends: a client would follow such links without end."""
    hub.add_image("library/x", "t", [b"a"])
    page = await get(mirror.address, f"{X}/tags/list?n=0")
    assert json.loads(page.body)["tags"] == []
    assert "link" not in page.headers


async def test_tags_listing_link_is_relative_for_an_absolute_request(
    hub: FakeRegistry, mirror: Running
) -> None:
    """A request in absolute form (RFC 9112 3.2.2) gets the same relative Link."""
    image = hub.add_image("library/x", "a", [b"a"])
    hub.repository("library/x").tags["b"] = str(image.manifest)
    page = await get(mirror.address, f"http://mirror.test{X}/tags/list?n=1")
    assert page.header("link") == f'<{X}/tags/list?n=1&last=a>; rel="next"'


@pytest.mark.parametrize("n", ["-1", "x", "", "99999999999", "1e3"])
async def test_listing_refuses_a_page_size_that_is_no_number(mirror: Running, n: str) -> None:
    """PAGINATION_NUMBER_INVALID, before any upstream is asked."""
    for path in ("/v2/library/x/tags/list", "/v2/_catalog"):
        reply = await get(mirror.address, f"{path}?n={n}")
        assert (reply.status, b"PAGINATION_NUMBER_INVALID" in reply.body) == (400, True)


async def test_listing_refuses_a_query_that_is_too_long(mirror: Running) -> None:
    """A query that is passed on to an upstream is bounded."""
    reply = await get(mirror.address, f"/v2/library/x/tags/list?last={'x' * 5000}")
    assert (reply.status, b"UNSUPPORTED" in reply.body) == (414, True)


async def test_tags_listing_of_an_unknown_repository(mirror: Running) -> None:
    """404 with the registry's own reason."""
    reply = await get(mirror.address, "/v2/library/nothing/tags/list")
    assert (reply.status, b"NAME_UNKNOWN" in reply.body) == (404, True)


async def test_referrers_are_fetched_once_and_filtered_here(hub: FakeRegistry, mirror: Running) -> None:
    """All pages are fetched unfiltered, so that one answer serves every artifactType.

    containerd names several types in one request, and wants the referrers of any of them.
    """
    hub.page_size = 2
    image = hub.add_image("library/x", "t", [b"a"])
    sboms = [str(add_referrer(hub, image, "text/sbom", str(n))) for n in range(3)]
    signature = str(add_referrer(hub, image, "text/sig", "s"))
    everything = await get(mirror.address, f"{X}/referrers/{image.manifest}")
    assert digests(everything.body) == sorted([*sboms, signature])
    assert "oci-filters-applied" not in everything.headers
    asked = len(hub.log)
    filtered = await get(mirror.address, f"{X}/referrers/{image.manifest}?artifactType=text/sbom")
    assert digests(filtered.body) == sorted(sboms)
    assert filtered.header("oci-filters-applied") == "artifactType"
    assert filtered.header("content-type") == OCI_INDEX
    both = await get(
        mirror.address, f"{X}/referrers/{image.manifest}?artifactType=text/sbom&artifactType=text/sig"
    )
    assert digests(both.body) == sorted([*sboms, signature])
    assert both.header("oci-filters-applied") == "artifactType"
    assert len(hub.log) == asked


async def test_referrers_by_tag_schema_without_the_api(hub: FakeRegistry, mirror: Running) -> None:
    """The referrers tag schema answers when the upstream lacks the API."""
    hub.referrers_api = False
    image = hub.add_image("library/x", "t", [b"a"])
    entry = {
        "mediaType": OCI_MANIFEST,
        "digest": f"sha256:{'0' * 64}",
        "size": 1,
        "artifactType": "text/sbom",
    }
    index = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [entry]}
    tag = str(image.manifest).replace(":", "-")
    hub.add_manifest("library/x", json.dumps(index).encode(), OCI_INDEX, tag)
    reply = await get(mirror.address, f"{X}/referrers/{image.manifest}?artifactType=text/sbom")
    assert json.loads(reply.body)["manifests"] == [entry]


async def test_referrers_of_a_stale_tag_are_stale(hub: FakeRegistry, forgetful: Running) -> None:
    """The list says so, and is as old as the tag: it is not taken for one that was just confirmed."""
    hub.referrers_api = False
    image = hub.add_image("library/x", "t", [b"a"])
    entry = {"mediaType": OCI_MANIFEST, "digest": f"sha256:{'0' * 64}", "size": 1}
    index = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [entry]}
    tag = str(image.manifest).replace(":", "-")
    hub.add_manifest("library/x", json.dumps(index).encode(), OCI_INDEX, tag)
    path = f"{X}/referrers/{image.manifest}"
    assert "warning" not in (await get(forgetful.address, path)).headers
    hub.fault(Fault(status=503), f"manifests/{tag}", times=9)
    reply = await get(forgetful.address, path)
    assert (json.loads(reply.body)["manifests"], reply.header("warning")[:4]) == ([entry], "110 ")


async def test_referrers_tag_that_is_no_index_lists_none(hub: FakeRegistry, mirror: Running) -> None:
    """An image under that tag says nothing about referrers."""
    hub.referrers_api = False
    image = hub.add_image("library/x", "t", [b"a"])
    hub.repository("library/x").tags[str(image.manifest).replace(":", "-")] = str(image.manifest)
    reply = await get(mirror.address, f"{X}/referrers/{image.manifest}")
    assert (reply.status, digests(reply.body)) == (200, [])


async def test_referrers_are_served_stale_while_the_upstream_fails(
    hub: FakeRegistry, forgetful: Running
) -> None:
    """Known referrers are served, marked as unconfirmed."""
    image = hub.add_image("library/x", "t", [b"a"])
    sbom = str(add_referrer(hub, image, "text/sbom", "1"))
    await get(forgetful.address, f"{X}/referrers/{image.manifest}")
    hub.fault(Fault(status=503), "referrers", times=2)
    reply = await get(forgetful.address, f"{X}/referrers/{image.manifest}")
    assert digests(reply.body) == [sbom]
    assert reply.header("warning").startswith("110 ")


async def test_catalog_lists_cached_repositories(
    hub: FakeRegistry, quay: FakeRegistry, mirror: Running
) -> None:
    """All upstreams with their names in front; by ns or prefix one upstream without; in pages."""
    for fake, name in ((hub, "library/a"), (hub, "org/b"), (quay, "org/c")):
        fake.add_image(name, "t", [b"a"])
    for path in ("library/a", "org/b", "quay.io/org/c"):
        await get(mirror.address, f"/v2/{path}/manifests/t")

    async def names(path: str) -> list[str]:
        listed: list[str] = json.loads((await get(mirror.address, path)).body)["repositories"]
        return listed

    assert await names("/v2/_catalog") == ["docker.io/library/a", "docker.io/org/b", "quay.io/org/c"]
    for path in ("/v2/_catalog?ns=quay.io", "/v2/quay.io/_catalog", "/quay.io/v2/_catalog"):
        assert await names(path) == ["org/c"]
    first = await get(mirror.address, "/v2/_catalog?n=2")
    assert first.header("link") == '</v2/_catalog?n=2&last=docker.io%2Forg%2Fb>; rel="next"'
    assert await names("/v2/_catalog?n=2&last=docker.io%2Forg%2Fb") == ["quay.io/org/c"]
    assert await names("/v2/_catalog?n=0") == []


async def test_tags_listing_of_known_tags_while_the_upstream_fails(
    hub: FakeRegistry, mirror: Running
) -> None:
    """Tags that were pulled here, page by page, marked as unconfirmed."""
    for tag in ("a", "b", "c"):
        hub.add_image("library/x", tag, [tag.encode()])
        await get(mirror.address, f"{X}/manifests/{tag}")
    hub.fault(Fault(status=503), "tags/list", times=4)
    first = await get(mirror.address, f"{X}/tags/list?n=2")
    assert json.loads(first.body) == {"name": "library/x", "tags": ["a", "b"]}
    assert first.header("warning").startswith("110 ")
    following = first.header("link").partition(">")[0].removeprefix("<")
    second = await get(mirror.address, following)
    assert (json.loads(second.body)["tags"], "link" in second.headers) == (["c"], False)
    assert json.loads((await get(mirror.address, f"{X}/tags/list")).body)["tags"] == ["a", "b", "c"]
    assert (await get(mirror.address, "/v2/docker.io/library/other/tags/list")).status == 424


async def test_referrers_served_stale_have_a_warning_and_an_age(
    hub: FakeRegistry, forgetful: Running
) -> None:
    """The response has a warning, and the age of the list."""
    image = hub.add_image("library/x", "t", [b"a"])
    signature = add_referrer(hub, image, "application/vnd.sig", "one")
    path = f"{X}/referrers/{image.manifest}"
    assert digests((await get(forgetful.address, path)).body) == [str(signature)]
    hub.fault(Fault(status=503), "referrers")
    reply = await get(forgetful.address, path)
    assert digests(reply.body) == [str(signature)]
    assert (reply.header("warning")[:4], reply.header("age")) == ("110 ", "0")
    warnings = [value for name, value in reply.raw_headers if name.lower() == "warning"]
    assert [value.partition(" ")[0] for value in warnings] == ["299", "110"]
    assert re.fullmatch(r'299 - "registry-mirror: not confirmed: docker\.io[^"\\]*503[^"\\]*"', warnings[0])
