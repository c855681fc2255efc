"""Content that is gone upstream: dropped, or kept and labelled by `tags.on_gone`, whatever the way to it."""

import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from mirror.manage.management import Management
from mirror.oci.image_pattern import ImagePattern
from mirror.oci.manifest import OCI_INDEX, OCI_MANIFEST
from mirror.oci.reference import Repository, Tag
from tests.fakes.access import BasicAuth
from tests.fakes.content import FakeImage, image_index
from tests.fakes.faults import Fault, oci_error
from tests.fakes.limit import RateLimit
from tests.fakes.registry import FakeRegistry
from tests.running import NEVER, Running, configured, serving
from tests.wire import Reply, get, head

FOREVER = 1000
X = Repository("docker.io", "library/x")
TAG = "/v2/docker.io/library/x/manifests/t"
LIST = "/v2/docker.io/library/x/tags/list"
LABEL = "gone upstream since 2023-11-14"
METRIC = 'registry_mirror_gone_served_total{upstream="docker.io"}'

Method = Callable[..., Awaitable[Reply]]


class Clock:
    """Seconds since the epoch, set by the test."""

    now = 1_700_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
async def hub() -> AsyncIterator[FakeRegistry]:
    async with FakeRegistry() as fake:
        yield fake


@pytest.fixture
def clock() -> Clock:
    return Clock()


@asynccontextmanager
async def keeping(
    hub: FakeRegistry, cache: Path, clock: Clock, tags: dict[str, Any] | None = None, **sections: Any
) -> AsyncIterator[Running]:
    """Serve a mirror that keeps what is gone, and asks about a tag at each request."""
    tags = {"fresh": 0, "missing": 0, "fallback_after": NEVER, "on_gone": "keep", **(tags or {})}
    async with serving(configured(cache, {"docker.io": hub.url}, tags=tags, **sections), clock) as running:
        yield running


async def pull(hub: FakeRegistry, mirror: Running, tag: str = "t") -> FakeImage:
    """Add an image upstream, and pull it."""
    image = hub.add_image("library/x", tag, [b"a layer of " + tag.encode()])
    base = TAG.rpartition("/manifests/")[0]
    for path in (f"manifests/{tag}", f"blobs/{image.config}", f"blobs/{image.layers[0]}"):
        assert (await get(mirror.address, f"{base}/{path}")).status == 200
    await mirror.landed(image.layers[0])
    return image


def warnings(reply: Reply) -> str:
    return "; ".join(value for name, value in reply.raw_headers if name == "warning")


def is_kept(reply: Reply, image: FakeImage) -> bool:
    """Return whether a reply is the image, with the label."""
    shown = (reply.status, reply.headers.get("docker-content-digest")) == (200, str(image.manifest))
    return shown and f'299 - "registry-mirror: not confirmed: {LABEL}' in warnings(reply)


async def entry(mirror: Running) -> Any:
    return await mirror.service._store.metadata.tag(X, Tag("t"))


def tag_removed(hub: FakeRegistry) -> None:
    del hub.repository("library/x").tags["t"]


def repository_removed(hub: FakeRegistry) -> None:
    del hub._repositories["library/x"]


def everything_gone(hub: FakeRegistry) -> None:
    hub.fault(Fault(status=410), "manifests", times=FOREVER)


def answering(status: int, body: bytes = b"") -> Callable[[FakeRegistry], None]:
    """Answer requests for manifests like that."""
    return lambda hub: hub.fault(Fault(status=status, body=body), "manifests", times=FOREVER)


def dead(hub: FakeRegistry) -> None:
    hub.fault(Fault(raw=b""), "manifests", times=FOREVER)


GONE = {"tag": tag_removed, "repository": repository_removed, "410": everything_gone}
OUTAGES = {
    "bare 404": answering(404),
    "404 page": answering(404, b"<html>no such site</html>"),
    "401": answering(401, oci_error("UNAUTHORIZED", "who are you?")),
    "403": answering(403, oci_error("DENIED", "no")),
    "429": answering(429),
    "500": answering(500),
    "no answer": dead,
}
WAYS = {
    "prefix": ("/v2/docker.io/library/x/manifests/t", ()),
    "ns": ("/v2/library/x/manifests/t?ns=docker.io", ()),
    "root": ("/v2/library/x/manifests/t", ()),
    "host": ("/v2/library/x/manifests/t", ("Host: docker.io.mirror.test",)),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("gone", GONE)
@pytest.mark.parametrize("method", [get, head])
async def test_gone_tag_is_kept(
    hub: FakeRegistry, tmp_path: Path, clock: Clock, method: Any, gone: str, way: str
) -> None:
    """Served with its label, listed, counted; the metric, the tag entry and `ls` say since when."""
    path, headers = WAYS[way]
    async with keeping(hub, tmp_path, clock) as mirror:
        image = await pull(hub, mirror)
        GONE[gone](hub)
        assert is_kept(await method(mirror.address, path, *headers), image)
        clock.now += 86_400
        reply = await method(mirror.address, path, *headers)
        assert is_kept(reply, image)
        assert reply.header("age") == "86400"
        assert await mirror.metric(METRIC) == 2
        (shown,) = [
            each
            async for each in Management(mirror.service.folder).images.matching(ImagePattern.parse("x:t"))
        ]
        assert (shown.gone_since, shown.complete) == (1_700_000_000.0, True)
        listed = await get(mirror.address, LIST)
        assert (listed.status, json.loads(listed.body)["tags"]) == (200, ["t"])


@pytest.mark.parametrize("gone", GONE)
@pytest.mark.parametrize("method", [get, head])
@pytest.mark.parametrize(
    "tags",
    [
        {"on_gone": "drop"},
        {"rules": [{"repositories": "docker.io/library/*", "on_gone": "drop"}]},
        {"on_gone": "drop", "rules": [{"repositories": "docker.io/other/*", "on_gone": "keep"}]},
    ],
    ids=["all", "rule", "other rule"],
)
async def test_gone_tag_is_dropped(
    hub: FakeRegistry, tmp_path: Path, clock: Clock, method: Method, gone: str, tags: dict[str, Any]
) -> None:
    """Gone is gone by default, and by rule."""
    async with keeping(hub, tmp_path, clock, tags) as mirror:
        await pull(hub, mirror)
        GONE[gone](hub)
        assert (await method(mirror.address, TAG)).status == 404
        assert await entry(mirror) is None
        listed = await get(mirror.address, LIST)
        assert (b'"t"' in listed.body) is (gone == "410")  # a 410 of the manifest alone


async def test_gone_tag_is_kept_by_rule(hub: FakeRegistry, tmp_path: Path, clock: Clock) -> None:
    """A rule keeps what the section drops."""
    rule = {"repositories": "docker.io/library/*", "on_gone": "keep"}
    async with keeping(hub, tmp_path, clock, {"on_gone": "drop", "rules": [rule]}) as mirror:
        image = await pull(hub, mirror)
        tag_removed(hub)
        assert is_kept(await get(mirror.address, TAG), image)


@pytest.mark.parametrize("outage", OUTAGES)
async def test_gone_is_no_word_for_an_outage(
    hub: FakeRegistry, tmp_path: Path, clock: Clock, outage: str
) -> None:
    """A refusal, and a 404 of something in front of the registry, make a stale answer without the label."""
    async with keeping(hub, tmp_path, clock) as mirror:
        image = await pull(hub, mirror)
        OUTAGES[outage](hub)
        for method in (get, head):
            reply = await method(mirror.address, TAG)
            assert (reply.status, reply.header("docker-content-digest")) == (200, str(image.manifest))
            assert "110 " in warnings(reply)
            assert "gone" not in warnings(reply)
        assert (await entry(mirror)).gone is None
        assert await mirror.metric(METRIC) == 0


@pytest.mark.parametrize("terms", [{"stale_if_error": 0}, {"stale_while_revalidate": "forever"}])
async def test_gone_tag_is_kept_whatever_the_terms(
    hub: FakeRegistry, tmp_path: Path, clock: Clock, terms: dict[str, Any]
) -> None:
    """The terms for stale answers are about outages; a revalidation in the background marks the tag too."""
    async with keeping(hub, tmp_path, clock, terms) as mirror:
        image = await pull(hub, mirror)
        tag_removed(hub)
        reply = await get(mirror.address, TAG)
        while not is_kept(reply, image):
            assert "stale_while_revalidate" in terms
            assert (reply.status, "110 " in warnings(reply)) == (200, True)
            reply = await get(mirror.address, TAG)


async def test_gone_tag_is_asked_about_as_seldom_as_a_fresh_one(
    hub: FakeRegistry, tmp_path: Path, clock: Clock
) -> None:
    """The answer "gone" is used for `fresh`, even of a tag that became immutable meanwhile."""
    async with keeping(hub, tmp_path, clock, {"fresh": 60}) as mirror:
        image = await pull(hub, mirror)
        tag_removed(hub)
        clock.now += 61
        assert is_kept(await get(mirror.address, TAG), image)
    hub.log.clear()
    async with keeping(hub, tmp_path, clock, {"fresh": 60, "immutable": ["*"]}) as mirror:
        for seconds in (59, 1):
            assert hub.log == []
            clock.now += seconds
            for method in (get, head):
                assert is_kept(await method(mirror.address, TAG), image)
        while (await entry(mirror)).gone.asked < clock.now:  # in the background
            assert is_kept(await get(mirror.address, TAG), image)


@pytest.mark.parametrize("method", [get, head])
@pytest.mark.parametrize("counts", [False, True])
async def test_gone_tag_that_comes_back(
    hub: FakeRegistry, tmp_path: Path, clock: Clock, method: Method, counts: bool
) -> None:
    """The label goes, and a new digest wins, although the negative cache would remember a missing tag."""
    hub.limit = RateLimit(limit=1000) if counts else None
    async with keeping(hub, tmp_path, clock, {"missing": NEVER}) as mirror:
        image = await pull(hub, mirror)
        for content in (b"a layer of t", b"another one"):
            clock.now += 1
            known = hub.repository("library/x").tags.pop("t")
            kept = await method(mirror.address, TAG)
            assert (kept.header("docker-content-digest"), LABEL in warnings(kept)) == (known, True)
            image = hub.add_image("library/x", "t", [content])
            reply = await method(mirror.address, TAG)
            assert (reply.header("docker-content-digest"), warnings(reply)) == (str(image.manifest), "")
            assert (await get(mirror.address, TAG)).body == image.manifest_data
            assert (await entry(mirror)).gone is None


async def test_gone_tag_that_was_evicted(hub: FakeRegistry, tmp_path: Path, clock: Clock) -> None:
    """Nothing is kept without content, neither at once nor after it was kept for a while."""
    async with keeping(hub, tmp_path, clock, {"fresh": 60}) as mirror:
        store = mirror.service._store
        for kept_before in (False, True):
            image = await pull(hub, mirror)
            tag_removed(hub)
            clock.now += 61
            if kept_before:
                assert is_kept(await get(mirror.address, TAG), image)
            await store.executor.run(store.folder.blobs.remove, image.manifest)
            store.folder.epoch.note_removal()
            for method in (get, head):
                assert (await method(mirror.address, TAG)).status == 404
            assert await entry(mirror) is None
            assert b'"t"' not in (await get(mirror.address, LIST)).body


async def test_gone_tag_is_removed_by_rm(hub: FakeRegistry, tmp_path: Path, clock: Clock) -> None:
    """The tag is missing then, as the negative cache says, until the upstream has it again."""
    async with keeping(hub, tmp_path, clock, {"missing": NEVER}) as mirror:
        image = await pull(hub, mirror)
        tag_removed(hub)
        assert is_kept(await get(mirror.address, TAG), image)
        assert [
            step async for step in Management(mirror.service.folder).images.remove(ImagePattern.parse("x:t"))
        ]
        asked = len(hub.log)
        for _ in range(3):
            assert (await get(mirror.address, TAG)).status == 404
        assert len(hub.log) - asked == 1
        assert b'"t"' not in (await get(mirror.address, LIST)).body


async def test_gone_tag_is_known_to_all_workers_and_after_a_restart(
    hub: FakeRegistry, tmp_path: Path, clock: Clock
) -> None:
    """The first moment is kept, whichever process asks again; offline the label stays."""
    async with keeping(hub, tmp_path, clock) as first, keeping(hub, tmp_path, clock) as second:
        image = await pull(hub, first)
        assert (await get(second.address, TAG)).status == 200
        tag_removed(hub)
        for mirror in (first, second, first):
            assert is_kept(await get(mirror.address, TAG), image)
            clock.now += 3 * 86_400
    hub.log.clear()
    for server in ({}, {"offline": True}):
        async with keeping(hub, tmp_path, clock, server=server) as mirror:
            for method in (get, head):
                assert is_kept(await method(mirror.address, TAG), image)
            assert json.loads((await get(mirror.address, LIST)).body)["tags"] == ["t"]
            assert (len(hub.log) > 0) is (server == {})
        hub.log.clear()
    async with keeping(hub, tmp_path, clock, {"on_gone": "drop"}) as mirror:
        assert (await get(mirror.address, TAG)).status == 404


async def test_gone_tags_are_listed_behind_the_others(
    hub: FakeRegistry, tmp_path: Path, clock: Clock
) -> None:
    """Kept tags are on the last page, or on pages of their own. A tag nobody asked for is not known."""
    async with keeping(hub, tmp_path, clock) as mirror:
        for tag in ("a", "b", "c", "t"):
            await pull(hub, mirror, tag)
        for tag in ("a", "c", "t"):
            del hub.repository("library/x").tags[tag]
        for tag in ("a", "c"):
            assert (await get(mirror.address, TAG.replace("/t", f"/{tag}"))).status == 200
        assert json.loads((await get(mirror.address, LIST)).body) == {
            "name": "library/x",
            "tags": ["b", "a", "c"],
        }
        for way in (f"{LIST}?n=1", f"{LIST.replace('docker.io/', '')}?ns=docker.io&n=1"):
            assert await all_pages(mirror, way) == [["b"], ["a"], ["c"]]
        assert await all_pages(mirror, f"{LIST}?n=2") == [["b", "a"], ["c"]]
        assert await all_pages(mirror, f"{LIST}?n=3") == [["b", "a", "c"]]
        assert json.loads((await get(mirror.address, f"{LIST}?n=0")).body)["tags"] == []


async def all_pages(mirror: Running, path: str) -> list[list[str]]:
    """Return the tags of all pages, each as long as its Link says that another one follows."""
    found = []
    while path:
        reply = await get(mirror.address, path)
        assert reply.status == 200
        found.append(json.loads(reply.body)["tags"])
        link = re.fullmatch(r'<(.*)>; rel="next"', reply.headers.get("link", ""))
        path = link[1] if link else ""
    return found


async def test_gone_platform_of_an_index(hub: FakeRegistry, tmp_path: Path, clock: Clock) -> None:
    """The index and the platform that is here are served; the other platform is gone."""
    async with keeping(hub, tmp_path, clock) as mirror:
        here, other = (hub.add_image("library/x", tag, [tag.encode()]) for tag in ("here", "other"))
        index = image_index([here.manifest_data, other.manifest_data])
        digest = hub.add_manifest("library/x", index, OCI_INDEX, "t")
        for path in (TAG, TAG.replace("/t", f"/{here.manifest}")):
            assert (await get(mirror.address, path)).status == 200
        repository_removed(hub)
        reply = await get(mirror.address, TAG)
        assert (reply.body, reply.header("docker-content-digest")) == (index, str(digest))
        assert LABEL in warnings(reply)
        for image, status in ((here, 200), (other, 404)):
            for method in (get, head):
                reply = await method(mirror.address, TAG.replace("/t", f"/{image.manifest}"))
                assert reply.status == status


@asynccontextmanager
async def private(hub: FakeRegistry, cache: Path, clock: Clock, **tags: Any) -> AsyncIterator[Running]:
    """Serve a mirror that asks with an account, and again at each request whether it still may."""
    hub.auth = BasicAuth("me", "secret")
    account = {"username": "me", "password": "secret", "recheck_access": 0, "private": "everybody"}
    async with keeping(hub, cache, clock, tags, upstream=account) as mirror:
        yield mirror


async def test_gone_digest_of_an_account(hub: FakeRegistry, tmp_path: Path, clock: Clock) -> None:
    """A manifest and a blob by digest are kept with the label, and lose it when they are back."""
    async with private(hub, tmp_path, clock) as mirror:
        image = await pull(hub, mirror)
        base = TAG.rpartition("/manifests/")[0]
        paths = [f"{base}/manifests/{image.manifest}", f"{base}/blobs/{image.layers[0]}"]
        repository = hub.repository("library/x")
        repository_removed(hub)
        for path in paths:
            for method in (get, head):
                reply = await method(mirror.address, path)
                assert (reply.status, LABEL in warnings(reply)) == (200, True)
        assert await mirror.metric(METRIC) == 4
        hub._repositories["library/x"] = repository
        for path in paths:
            reply = await get(mirror.address, path)
            assert (reply.status, warnings(reply)) == (200, "")


async def test_gone_untagged_image_of_an_account_is_shown(
    hub: FakeRegistry, tmp_path: Path, clock: Clock
) -> None:
    """The inventory has the date by the link, and a blob that is not here cannot be kept."""
    async with private(hub, tmp_path, clock) as mirror:
        image = hub.add_image("library/x", None, [b"a"])
        path = TAG.replace("/t", f"/{image.manifest}")
        assert (await get(mirror.address, path)).status == 200
        repository_removed(hub)
        assert LABEL in warnings(await get(mirror.address, path))
        wanted = ImagePattern.parse("x:*", any_tag=True)
        (shown,) = [each async for each in Management(mirror.service.folder).images.matching(wanted)]
        assert (shown.tag, shown.gone_since) == ("", clock.now)
        assert (await get(mirror.address, f"/v2/docker.io/library/x/blobs/{image.layers[0]}")).status == 404


async def test_gone_is_no_word_for_access_that_is_revoked(
    hub: FakeRegistry, tmp_path: Path, clock: Clock
) -> None:
    """An account that may not read the repository any more gets nothing of it, by tag or by digest."""
    async with private(hub, tmp_path, clock) as mirror:
        image = await pull(hub, mirror)
        assert hub.auth is not None
        hub.auth.denied = {"library/x"}
        for reference in ("t", image.manifest):
            for method in (get, head):
                assert (await method(mirror.address, TAG.replace("/t", f"/{reference}"))).status == 404


async def test_gone_digest_of_an_account_is_dropped_by_default(
    hub: FakeRegistry, tmp_path: Path, clock: Clock
) -> None:
    """The link is withdrawn."""
    async with private(hub, tmp_path, clock, on_gone="drop") as mirror:
        image = await pull(hub, mirror)
        repository_removed(hub)
        assert (await get(mirror.address, TAG.replace("/t", f"/{image.manifest}"))).status == 404


@pytest.mark.parametrize("api", [True, False])
async def test_gone_image_keeps_its_signatures(
    hub: FakeRegistry, tmp_path: Path, clock: Clock, api: bool
) -> None:
    """The list of referrers stays with the image, marked as stale; the default loses it with the image."""
    hub.referrers_api = api
    for number, (on_gone, kept) in enumerate((("keep", 1), ("drop", 0))):
        async with keeping(hub, tmp_path / str(number), clock, {"on_gone": on_gone}) as mirror:
            image = await pull(hub, mirror)
            subject = {"mediaType": OCI_MANIFEST, "digest": str(image.manifest), "size": 1}
            config = {"mediaType": "application/x", "digest": str(image.config), "size": 1}
            document = {"schemaVersion": 2, "config": config, "layers": [], "subject": subject}
            digest = hub.add_manifest("library/x", json.dumps(document).encode(), OCI_MANIFEST)
            if not api:
                listed = [{**config, "digest": str(digest)}]
                index = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": listed}
                tag = str(image.manifest).replace(":", "-")
                hub.add_manifest("library/x", json.dumps(index).encode(), OCI_INDEX, tag)
            path = f"/v2/docker.io/library/x/referrers/{image.manifest}"
            assert len(json.loads((await get(mirror.address, path)).body)["manifests"]) == 1
            repository_removed(hub)
            await get(mirror.address, TAG)
            for _ in range(2):
                reply = await get(mirror.address, path)
                found = json.loads(reply.body)["manifests"]
                assert (reply.status, len(found)) == (200, kept)
                assert ("110 " in warnings(reply)) is bool(kept)
            new = await pull(hub, mirror)
            assert new.manifest == image.manifest
            assert len(json.loads((await get(mirror.address, path)).body)["manifests"]) == (
                0 if api else kept
            )


@pytest.mark.parametrize("method", [get, head])
async def test_gone_is_no_word_for_another_type(
    hub: FakeRegistry, tmp_path: Path, clock: Clock, method: Method
) -> None:
    """A client that takes the type which the tag has now gets that; another client the kept image."""
    hub.negotiates = True
    async with keeping(hub, tmp_path, clock) as mirror:
        image = await pull(hub, mirror)
        artifact = hub.add_manifest("library/x", b'{"odd":1}', "application/vnd.odd", "t")
        clock.now += 1
        named = await method(mirror.address, TAG, f"Accept: {OCI_MANIFEST}, application/vnd.odd")
        assert (named.header("docker-content-digest"), warnings(named)) == (str(artifact), "")
        assert is_kept(await method(mirror.address, TAG, f"Accept: {OCI_MANIFEST}"), image)
        tag_removed(hub)
        named = await method(mirror.address, TAG, f"Accept: {OCI_MANIFEST}, application/vnd.odd")
        assert (named.header("docker-content-digest"), LABEL in warnings(named)) == (str(artifact), True)
