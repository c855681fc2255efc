"""Client of one upstream, in the terms of the distribution specification."""

import json

import pytest
from aiohttp import web

from mirror.oci.digest import Digest
from mirror.oci.manifest import DOCKER_LIST, DOCKER_MANIFEST, MAX_MANIFEST_BYTES, OCI_INDEX, OCI_MANIFEST
from mirror.oci.reference import Tag
from mirror.upstream import registry_client as module
from mirror.upstream.errors import Failure, UpstreamError
from mirror.upstream.registry_client import ManifestBody, RemoteManifest
from tests.fakes.content import StoredManifest, descriptor, image_manifest
from tests.fakes.faults import Fault, flipped
from tests.fakes.registry import FakeRegistry
from tests.fakes.site import Seen, Site
from tests.fakes.upstream import registry_at

LATEST = Tag("latest")
INDEX_HEADERS = {"Content-Type": OCI_INDEX}


async def test_head_manifest() -> None:
    """A HEAD tells digest, type and size."""
    async with FakeRegistry() as fake, registry_at(fake.url) as registry:
        image = fake.add_image("a", "latest", [])
        info = await registry.head_manifest("a", LATEST)
        assert info == RemoteManifest(image.manifest, OCI_MANIFEST, len(image.manifest_data))
        assert [seen.method for seen in fake.log] == ["HEAD"]


async def test_head_manifest_without_digest() -> None:
    """The digest of a tag is unknown without the header; of a digest it is the one asked for."""
    async with FakeRegistry() as fake, registry_at(fake.url) as registry:
        image = fake.add_image("a", "latest", [])
        fake.digest_header = False
        assert (await registry.head_manifest("a", LATEST)).digest is None
        assert (await registry.head_manifest("a", image.manifest)).digest == image.manifest
        fake.fault(Fault(headers={"Docker-Content-Digest": "sha256:nonsense"}))
        assert (await registry.head_manifest("a", LATEST)).digest is None


async def test_head_manifest_without_size() -> None:
    """A length of 0, which no manifest has, counts as unknown, as a missing one does."""
    async with FakeRegistry() as fake, registry_at(fake.url) as registry:
        fake.fault(Fault(status=200, headers=INDEX_HEADERS))
        assert (await registry.head_manifest("a", LATEST)).size is None
        fake.fault(Fault(status=200, headers=INDEX_HEADERS, chunked=True))
        assert (await registry.head_manifest("a", LATEST)).size is None


@pytest.mark.parametrize(
    "fault",
    [
        *(Fault(status=status) for status in (400, 401, 403, 404, 405, 406, 410, 451, 500, 501)),
        Fault(status=200, headers={"Content-Type": "application/json"}),
        Fault(status=200, headers={"Content-Type": "text/plain; charset=utf-8"}),
        Fault(status=200, headers={"Content-Type": "text/html"}),
    ],
)
async def test_head_manifest_falls_back_to_get(fault: Fault) -> None:
    """A GET, with a computed digest, replaces a HEAD that is refused or tells nothing."""
    async with FakeRegistry() as fake, registry_at(fake.url) as registry:
        image = fake.add_image("a", "latest", [])
        fake.fault(fault, method="HEAD")
        info = await registry.head_manifest("a", LATEST)
        body = ManifestBody(image.manifest_data, OCI_MANIFEST, image.manifest)
        assert info == RemoteManifest(image.manifest, OCI_MANIFEST, len(image.manifest_data), body)
        asked = [seen.method for seen in fake.log if "manifests" in seen.path]
        assert asked == ["HEAD", "GET"]


async def test_head_manifest_of_a_missing_tag() -> None:
    """A HEAD of an unknown tag is NOT_FOUND once a GET has said so: a HEAD's 404 has no words."""
    async with FakeRegistry() as fake, registry_at(fake.url) as registry:
        fake.add_image("a", "latest", [])
        with pytest.raises(UpstreamError) as raised:
            await registry.head_manifest("a", Tag("other"))
        assert (raised.value.failure, raised.value.final) == (Failure.NOT_FOUND, True)
        assert [seen.method for seen in fake.log] == ["HEAD", "GET"]


@pytest.mark.parametrize("piece", [None, 1])
@pytest.mark.parametrize(
    "kind", [DOCKER_MANIFEST, DOCKER_LIST, OCI_MANIFEST, OCI_INDEX, "application/x.y+json"]
)
async def test_get_manifest(kind: str, piece: int | None) -> None:
    """A manifest comes byte-identical, with its exact type, and with a digest computed from its bytes."""
    async with FakeRegistry() as fake, registry_at(fake.url) as registry:
        data = b'{ "schemaVersion": 2,\n"unusual":   "spacing" }\n'
        digest = fake.add_manifest("a", data, kind, tag="latest")
        fake.piece = piece
        body = await registry.get_manifest("a", LATEST)
        assert (body.data, body.media_type, body.digest) == (data, kind, digest)
        assert await registry.get_manifest("a", digest) == body


async def test_get_manifest_by_sha512() -> None:
    """A manifest asked for by sha512 is verified, and named, by sha512."""
    async with FakeRegistry() as fake, registry_at(fake.url) as registry:
        digest = Digest.of(b"{}", "sha512")
        fake.repository("a").manifests[str(digest)] = StoredManifest(b"{}", OCI_MANIFEST)
        assert (await registry.get_manifest("a", digest)).digest == digest


async def test_get_manifest_drops_parameters_of_the_type() -> None:
    """Clients compare the type literally, so its parameters are dropped."""
    async with FakeRegistry() as fake, registry_at(fake.url) as registry:
        fake.add_image("a", "latest", [])
        fake.manifest_type = f"{OCI_MANIFEST}; charset=utf-8"
        assert (await registry.get_manifest("a", LATEST)).media_type == OCI_MANIFEST
        assert (await registry.head_manifest("a", LATEST)).media_type == OCI_MANIFEST


async def test_get_manifest_with_wrong_bytes() -> None:
    """A manifest that does not match its digest is INVALID, and not retried."""
    async with FakeRegistry() as fake, registry_at(fake.url) as registry:
        image = fake.add_image("a", "latest", [])
        other = image.manifest_data.replace(b"schemaVersion", b"schemaVersioN")
        fake.fault(Fault(data=other), times=2)
        with pytest.raises(UpstreamError, match="asked for sha256") as raised:
            await registry.get_manifest("a", image.manifest)
        assert raised.value.failure is Failure.INVALID
        assert len(fake.log) == 1
        # By tag its digest is computed, and no header counts.
        assert (await registry.get_manifest("a", LATEST)).digest == Digest.of(other)


@pytest.mark.parametrize(
    "fault",
    [
        Fault(status=200, body=b"<html>Sign in</html>", headers={"Content-Type": "text/html"}),
        Fault(status=200, body=b"<html>Sign in</html>", headers={"Content-Type": OCI_MANIFEST}),
        Fault(status=200, body=b"[]", headers={"Content-Type": OCI_MANIFEST}),
        Fault(status=200, body=b"", headers={"Content-Type": OCI_MANIFEST}),
        Fault(status=200, body=b"{}", headers={"Content-Type": "application/json"}),
        Fault(status=200, body=b"{" + b" " * MAX_MANIFEST_BYTES, headers={"Content-Type": OCI_MANIFEST}),
        Fault(data=b"\x1f\x8bnonsense", headers={"Content-Encoding": "gzip"}),
        Fault(status=206),
    ],
)
async def test_get_manifest_of_other_content(fault: Fault) -> None:
    """Pages, other JSON, too much and compressed data are INVALID."""
    async with FakeRegistry() as fake, registry_at(fake.url) as registry:
        fake.add_image("a", "latest", [])
        fake.fault(fault)
        with pytest.raises(UpstreamError) as raised:
            await registry.get_manifest("a", LATEST)
        assert raised.value.failure is Failure.INVALID
        assert len(fake.log) == 1


@pytest.mark.parametrize("fault", [Fault(cut_at=5), Fault(reset_at=5), Fault(cut_at=5, chunked=True)])
async def test_get_manifest_that_breaks_is_retried(fault: Fault) -> None:
    """A manifest that breaks on the way is small enough to be asked for again."""
    async with FakeRegistry() as fake, registry_at(fake.url) as registry:
        image = fake.add_image("a", "latest", [])
        fake.fault(fault)
        assert (await registry.get_manifest("a", LATEST)).digest == image.manifest


async def test_head_blob() -> None:
    """A HEAD tells the size of a blob, at the registry and behind a redirect, and downloads nothing."""
    async with FakeRegistry() as fake, registry_at(fake.url) as registry:
        digest = fake.add_blob("a", b"blob")
        assert await registry.head_blob("a", digest) == 4
        fake.cdn = True
        assert await registry.head_blob("a", digest) == 4
        assert {seen.method for seen in fake.log + fake.cdn_log} == {"HEAD"}
        with pytest.raises(UpstreamError) as raised:
            await registry.head_blob("a", Digest.of(b"other"))
        assert raised.value.failure is Failure.NOT_FOUND


@pytest.mark.parametrize("data", [b"blob", b""])
@pytest.mark.parametrize("ranges", [True, False])
async def test_head_blob_falls_back_to_one_byte(data: bytes, ranges: bool) -> None:
    """A GET of one byte tells the size where HEAD is refused, with or without ranges."""
    async with FakeRegistry() as fake, registry_at(fake.url) as registry:
        digest = fake.add_blob("a", data)
        fake.head, fake.ranges = False, ranges
        assert await registry.head_blob("a", digest) == len(data)
        assert fake.log[1].headers["Range"] == "bytes=0-0"


async def test_head_blob_answered_with_a_page() -> None:
    """A login form does not know which blobs there are; a GET has to tell, and without a page."""
    async with FakeRegistry() as fake, registry_at(fake.url) as registry:
        digest = fake.add_blob("a", b"blob")
        page = Fault(status=200, body=b"<html>", headers={"Content-Type": "text/html"})
        fake.fault(page, method="HEAD")
        assert await registry.head_blob("a", digest) == 4
        fake.fault(page, times=3)
        with pytest.raises(UpstreamError, match="web page") as raised:
            await registry.head_blob("a", digest)
        assert raised.value.failure is Failure.INVALID


async def test_head_blob_missing_where_head_is_refused() -> None:
    """A missing blob is NOT_FOUND also where HEAD is refused."""
    async with FakeRegistry() as fake, registry_at(fake.url) as registry:
        fake.head = False
        with pytest.raises(UpstreamError) as raised:
            await registry.head_blob("a", Digest.of(b"blob"))
        assert raised.value.failure is Failure.NOT_FOUND


async def test_open_blob_is_retried() -> None:
    """A blob is asked for again before its first byte; then the whole is yielded."""
    async with FakeRegistry() as fake, registry_at(fake.url) as registry:
        digest = fake.add_blob("a", b"blob")
        fake.fault(Fault(status=503), times=2)
        async with registry.open_blob("a", digest) as body:
            assert [piece async for piece in body.chunks()] == [b"blob"]
        assert fake.requests("GET", digest) == 3


async def test_open_blob_passes_wrong_bytes_on() -> None:
    """Bytes of a blob are passed on as they come: the fill verifies them."""
    async with FakeRegistry() as fake, registry_at(fake.url) as registry:
        digest = fake.add_blob("a", b"blob")
        fake.fault(Fault(data=flipped(b"blob")))
        async with registry.open_blob("a", digest) as body:
            assert [piece async for piece in body.chunks()] == [flipped(b"blob")]


async def test_tags_are_passed_through() -> None:
    """A page of tags is passed on as sent, with the query of the next one, and so is the client's query."""
    async with FakeRegistry() as fake, registry_at(fake.url) as registry:
        for tag in ("a", "b", "c"):
            fake.add_image("x", tag, [])
        page = await registry.tags("x", "n=2&weird=%2F+")
        assert json.loads(page.data)["tags"] == ["a", "b"]
        assert page.next_query == "n=2&last=b"
        assert fake.log[0].query == "n=2&weird=%2F+"
        last = await registry.tags("x", page.next_query)
        assert (json.loads(last.data)["tags"], last.next_query) == (["c"], None)


@pytest.mark.parametrize("query", ["a=b c", "a\r\nX-Evil: 1", "a#b", "ä"])
async def test_tags_query_that_cannot_be_sent(query: str) -> None:
    """A query that would break out of the request line is not sent."""
    async with FakeRegistry() as fake, registry_at(fake.url) as registry:
        with pytest.raises(UpstreamError) as raised:
            await registry.tags("x", query)
        assert raised.value.failure is Failure.INVALID
        assert fake.log == []


@pytest.mark.parametrize(
    "body",
    [b"", b"<html>", b"[]", b"{}", b'{"tags": "x"}', b"[" * 100_000, None],
)
async def test_tags_answered_with_other_content(body: bytes | None) -> None:
    """An answer that is no tag list, or is too long, is INVALID."""
    body = b"[" + b" " * module.MAX_TAGS_BYTES if body is None else body
    async with FakeRegistry() as fake, registry_at(fake.url) as registry:
        fake.fault(Fault(status=200, body=body))
        with pytest.raises(UpstreamError) as raised:
            await registry.tags("x", "")
        assert raised.value.failure is Failure.INVALID


@pytest.mark.parametrize("body", [b'{"tags":null}', b'{"name":"x","tags":[],"child":[],"manifest":{}}'])
async def test_tags_in_unusual_lists(body: bytes) -> None:
    """null for no tags, and members of the vendor's own, are passed on."""
    async with FakeRegistry() as fake, registry_at(fake.url) as registry:
        fake.fault(Fault(status=200, body=body))
        assert (await registry.tags("x", "")).data == body


async def test_referrers_of_all_pages() -> None:
    """The pages of a list of referrers are put together; it is asked for unfiltered."""
    async with FakeRegistry() as fake, registry_at(fake.url) as registry:
        image = fake.add_image("x", "latest", [])
        subject = descriptor(OCI_MANIFEST, image.manifest_data)
        expected = [
            str(fake.add_manifest("x", image_manifest(b"%d" % number, [], subject))) for number in range(5)
        ]
        fake.page_size = 2
        found = await registry.referrers("x", image.manifest)
        assert [entry["digest"] for entry in json.loads(found)] == expected
        assert [seen.query for seen in fake.log] == ["", "page=2", "page=4"]


async def test_referrers_of_which_there_are_none() -> None:
    """An API that knows no referrers gives an empty list."""
    async with FakeRegistry() as fake, registry_at(fake.url) as registry:
        image = fake.add_image("x", "latest", [])
        assert await registry.referrers("x", image.manifest) == "[]"


@pytest.mark.parametrize(
    "fault",
    [
        Fault(status=404),
        Fault(status=405),
        Fault(status=400),
        Fault(status=303, headers={"Location": "https://elsewhere.test/"}),
        Fault(status=200, body=b"<html>", headers={"Content-Type": "text/html"}),
        Fault(status=200, body=b'{"schemaVersion": 2}', headers={"Content-Type": "application/json"}),
    ],
)
async def test_referrers_api_that_is_missing(fault: Fault) -> None:
    """Each way of lacking the API is NOT_FOUND, so that the tag schema is asked next."""
    async with FakeRegistry() as fake, registry_at(fake.url) as registry:
        fake.fault(fault)
        with pytest.raises(UpstreamError) as raised:
            await registry.referrers("x", Digest.of(b""))
        assert raised.value.failure is Failure.NOT_FOUND


@pytest.mark.parametrize(
    ("status", "failure"), [(403, Failure.DENIED), (429, Failure.RATE_LIMITED), (500, Failure.SERVER_ERROR)]
)
async def test_referrers_that_fail(status: int, failure: Failure) -> None:
    """A refusal, a limit and a disorder do not mean that the API is missing."""
    async with FakeRegistry() as fake, registry_at(fake.url, attempts=1) as registry:
        fake.fault(Fault(status=status))
        with pytest.raises(UpstreamError) as raised:
            await registry.referrers("x", Digest.of(b""))
        assert raised.value.failure is failure


async def test_referrers_with_a_broken_second_page() -> None:
    """A list with a broken later page is neither complete nor missing."""
    async with FakeRegistry() as fake, registry_at(fake.url) as registry:
        first = {**INDEX_HEADERS, "Link": '</x?page=1>; rel="next"'}
        fake.fault(Fault(status=200, body=b'{"schemaVersion":2,"manifests":[]}', headers=first))
        fake.fault(Fault(status=200, body=b"<html>", headers=INDEX_HEADERS))
        with pytest.raises(UpstreamError) as raised:
            await registry.referrers("x", Digest.of(b""))
        assert raised.value.failure is Failure.INVALID


@pytest.mark.parametrize("endless", ["same", "always new"])
async def test_referrers_pages_without_end(endless: str) -> None:
    """A list whose pages go in circles, or never end, is INVALID."""

    async def answer(request: web.BaseRequest, seen: Seen) -> web.StreamResponse:
        number = len(seen.query) + 1 if endless == "always new" else 1
        link = f"</x?{'p' * number}>; rel=next"
        body = b'{"schemaVersion":2,"manifests":[]}'
        return web.Response(body=body, headers={**INDEX_HEADERS, "Link": link})

    async with Site(answer) as site, registry_at(site.url) as registry:
        with pytest.raises(UpstreamError, match="does not end") as raised:
            await registry.referrers("x", Digest.of(b""))
        assert raised.value.failure is Failure.INVALID
        assert len(site.log) == (module.MAX_REFERRERS_PAGES if endless == "always new" else 2)


async def test_registry_client_repr() -> None:
    """A client shows the name of its upstream."""
    async with registry_at("http://127.0.0.1:1") as registry:
        assert repr(registry) == "RegistryClient('docker.io')"
