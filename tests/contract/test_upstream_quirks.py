"""Quirks of real registries in manifests and lists, each against a fake that behaves so.

Every docstring states what the registry does; the test shows that a pull works, or fails as it should, all
the same. Names say where the quirk was seen.
"""

import json

import pytest
from aiohttp import web
from yarl import URL

from mirror.oci.digest import Digest
from mirror.oci.manifest import DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST
from mirror.oci.reference import Tag
from mirror.upstream.errors import Failure, UpstreamError
from mirror.upstream.registry_client import RegistryClient
from tests.fakes.content import image_index
from tests.fakes.faults import Fault, oci_error
from tests.fakes.registry import FakeRegistry
from tests.fakes.site import Seen, Site
from tests.fakes.upstream import registry_at

LATEST = Tag("latest")
REPOSITORY = "library/app"


async def read(registry: RegistryClient, digest: Digest, start: int = 0, path: str = REPOSITORY) -> bytes:
    async with registry.open_blob(path, digest, start) as body:
        return b"".join([piece async for piece in body.chunks()])


async def failure_of_get(registry: RegistryClient, path: str = REPOSITORY) -> UpstreamError:
    with pytest.raises(UpstreamError) as raised:
        await registry.get_manifest(path, LATEST)
    return raised.value


class TestManifests:
    """Manifests and their headers."""

    async def test_all_types_in_one_accept_line(self) -> None:
        """Distribution-based registries (ghcr.io) answer 404 for an OCI index to a client that does not
        accept it, and quay.io converts to schema 1: all four types are accepted, in one line.
        """
        wanted = {OCI_INDEX, OCI_MANIFEST, DOCKER_MANIFEST}

        async def strict(request: web.BaseRequest, seen: Seen) -> web.StreamResponse:
            accepted = {each.strip() for each in request.headers["Accept"].split(",")}
            if not wanted <= accepted:
                return web.Response(
                    status=404, body=oci_error("MANIFEST_UNKNOWN", "OCI index found, but ...")
                )
            return web.Response(body=image_index([b"{}"]), headers={"Content-Type": OCI_INDEX})

        async with Site(strict) as site, registry_at(site.url) as registry:
            assert (await registry.get_manifest(REPOSITORY, LATEST)).media_type == OCI_INDEX
            assert (await registry.head_manifest(REPOSITORY, LATEST)).media_type == OCI_INDEX
            assert all(len(seen.headers.getall("Accept")) == 1 for seen in site.log)

    async def test_get_without_digest_ecr(self) -> None:
        """ECR's GET of a manifest lacks Docker-Content-Digest: the digest is computed anyway."""
        async with FakeRegistry() as fake, registry_at(fake.url) as registry:
            image = fake.add_image(REPOSITORY, "latest", [])
            fake.digest_header = False
            assert (await registry.get_manifest(REPOSITORY, LATEST)).digest == image.manifest

    async def test_wrong_digest_header(self) -> None:
        """Many registries send a wrong digest header with a body: it is ignored."""
        async with FakeRegistry() as fake, registry_at(fake.url) as registry:
            image = fake.add_image(REPOSITORY, "latest", [])
            fake.fault(Fault(headers={"Docker-Content-Digest": str(Digest.of(b"other"))}), times=2)
            assert (await registry.get_manifest(REPOSITORY, LATEST)).digest == image.manifest
            assert (await registry.get_manifest(REPOSITORY, image.manifest)).digest == image.manifest

    async def test_head_without_digest_redhat(self) -> None:
        """registry.access.redhat.com's HEAD lacks the digest: it is None, and the caller gets the body."""
        async with FakeRegistry() as fake, registry_at(fake.url) as registry:
            fake.add_image(REPOSITORY, "latest", [])
            fake.digest_header = False
            assert (await registry.head_manifest(REPOSITORY, LATEST)).digest is None

    @pytest.mark.parametrize(
        "kind", ["text/plain", "application/octet-stream", "application/json; charset=utf-8"]
    )
    async def test_generic_type_redhat(self, kind: str) -> None:
        """registry.access.redhat.com sent manifests as text/plain: the type is read from the manifest."""
        async with FakeRegistry() as fake, registry_at(fake.url) as registry:
            image = fake.add_image(REPOSITORY, "latest", [])
            fake.manifest_type = kind
            assert (await registry.get_manifest(REPOSITORY, LATEST)).media_type == OCI_MANIFEST
            info = await registry.head_manifest(REPOSITORY, LATEST)
            assert (info.media_type, info.digest) == (OCI_MANIFEST, image.manifest)

    async def test_no_type_at_all(self) -> None:
        """Static servers may send no Content-Type: the type is read from the manifest."""
        async with FakeRegistry() as fake, registry_at(fake.url) as registry:
            image = fake.add_image(REPOSITORY, "latest", [])
            head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(image.manifest_data)}\r\n\r\n"
            fake.fault(Fault(raw=head.encode() + image.manifest_data))
            assert (await registry.get_manifest(REPOSITORY, LATEST)).media_type == OCI_MANIFEST

    @pytest.mark.parametrize("code", ["UNKNOWN", "NOT_FOUND", "MANIFEST_UNKNOWN"])
    async def test_not_found_by_other_codes_harbor(self, code: str) -> None:
        """Harbor and Red Hat answer 404 with the code UNKNOWN: NOT_FOUND all the same."""
        async with FakeRegistry() as fake, registry_at(fake.url) as registry:
            fake.fault(Fault(status=404, body=oci_error(code, "artifact library/app:latest not found")))
            assert (await failure_of_get(registry)).failure is Failure.NOT_FOUND

    async def test_no_head(self) -> None:
        """Some registries answer 405 to HEAD: a GET tells the same."""
        async with FakeRegistry() as fake, registry_at(fake.url) as registry:
            image = fake.add_image(REPOSITORY, "latest", [])
            fake.head = False
            assert (await registry.head_manifest(REPOSITORY, LATEST)).digest == image.manifest

    async def test_login_page(self) -> None:
        """Captive portals and single sign-on answer 200 with a page: that is INVALID, not a manifest."""
        async with FakeRegistry() as fake, registry_at(fake.url) as registry:
            page = Fault(status=200, body=b"<html>Sign in</html>", headers={"Content-Type": "text/html"})
            fake.fault(page, times=2)
            assert (await failure_of_get(registry)).failure is Failure.INVALID

    async def test_tags_by_head_hub(self) -> None:
        """Docker Hub counts a GET of a manifest as a pull, not a HEAD: tags are looked up with HEAD alone."""
        async with FakeRegistry() as fake, registry_at(fake.url) as registry:
            fake.add_image(REPOSITORY, "latest", [])
            for _ in range(3):
                await registry.head_manifest(REPOSITORY, LATEST)
            assert fake.requests("GET") == 0

    async def test_head_works_when_get_is_limited_hub(self) -> None:
        """Docker Hub over the limit refuses GET but still answers HEAD: a tag can still be revalidated."""
        async with FakeRegistry() as fake, registry_at(fake.url, attempts=1) as registry:
            image = fake.add_image(REPOSITORY, "latest", [])
            fake.fault(Fault(status=429, body=oci_error("TOOMANYREQUESTS", "pull rate limit")), method="GET")
            assert (await failure_of_get(registry)).failure is Failure.RATE_LIMITED
            assert (await registry.head_manifest(REPOSITORY, LATEST)).digest == image.manifest

    @pytest.mark.parametrize(
        ("status", "body", "kind"),
        [
            (429, oci_error("TOOMANYREQUESTS", "You have reached your pull rate limit"), "application/json"),
            (429, b"Too Many Requests", "text/plain"),
            (429, b"toomanyrequests: Rate exceeded", "text/plain"),
            (403, oci_error("TOOMANYREQUESTS", "Rate exceeded"), "application/json"),
        ],
    )
    async def test_limits(self, status: int, body: bytes, kind: str) -> None:
        """Docker Hub's limit is a 429 with a code, its abuse limit and public.ecr.aws's a bare one, and some
        send the code alone: RATE_LIMITED each time, after as many attempts as are configured.
        """
        async with FakeRegistry() as fake, registry_at(fake.url, attempts=2) as registry:
            fake.fault(Fault(status=status, body=body, headers={"Content-Type": kind}), times=2)
            assert (await failure_of_get(registry)).failure is Failure.RATE_LIMITED
            assert fake.requests("GET") == 2

    async def test_long_retry_after(self) -> None:
        """A limit that says to come back in an hour is passed on at once, with that time."""
        async with FakeRegistry() as fake, registry_at(fake.url) as registry:
            fake.fault(Fault(status=429, headers={"Retry-After": "3600"}))
            error = await failure_of_get(registry)
            assert (error.failure, error.retry_after) == (Failure.RATE_LIMITED, 3600.0)
            assert len(fake.log) == 1

    async def test_transient_errors_quay(self) -> None:
        """quay.io answers 502 and 503 now and then: retried, without an error for the client."""
        async with FakeRegistry() as fake, registry_at(fake.url) as registry:
            image = fake.add_image(REPOSITORY, "latest", [])
            fake.fault(Fault(status=502, body=b"<html>Bad Gateway</html>"))
            fake.fault(Fault(status=503))
            assert (await registry.get_manifest(REPOSITORY, LATEST)).digest == image.manifest

    async def test_manifests_elsewhere_k8s(self) -> None:
        """registry.k8s.io redirects manifests, tags and blobs to another registry and another repository,
        dropping the query, with no token anywhere."""
        async with FakeRegistry() as region:
            image = region.add_image("k8s-artifacts-prod/images/pause", "3.9", [b"layer"])

            async def k8s(request: web.BaseRequest, seen: Seen) -> web.StreamResponse:
                path = seen.path.replace("/v2/", "/v2/k8s-artifacts-prod/images/")
                return web.Response(status=307, headers={"Location": region.url + path})

            async with Site(k8s) as site, registry_at(site.url) as registry:
                info = await registry.head_manifest("pause", Tag("3.9"))
                assert info.digest == image.manifest
                assert (await registry.get_manifest("pause", image.manifest)).data == image.manifest_data
                assert await read(registry, image.layers[0], path="pause") == b"layer"
                assert json.loads((await registry.tags("pause", "n=10")).data)["tags"] == ["3.9"]
                with pytest.raises(UpstreamError) as raised:
                    await registry.head_manifest("pause", Tag("sha256-abc.sig"))
                assert raised.value.failure is Failure.NOT_FOUND


class TestLists:
    """Tags and referrers."""

    async def test_opaque_pages_quay(self) -> None:
        """quay.io pages tags by an encrypted next_page: it is handed on to the byte."""
        async with FakeRegistry() as fake, registry_at(fake.url) as registry:
            link = f'</v2/{REPOSITORY}/tags/list?n=50&next_page=gAAAAB%3D%3D>; rel="next"'
            fake.fault(Fault(status=200, body=b'{"name":"x","tags":[]}', headers={"Link": link}))
            page = await registry.tags(REPOSITORY, "n=50")
            assert page.next_query == "n=50&next_page=gAAAAB%3D%3D"

    async def test_extra_members_gcr(self) -> None:
        """gcr.io's tag list has members of its own (child, manifest): passed on as they are."""
        body = b'{"child":["a"],"manifest":{"sha256:x":{}},"name":"x","tags":["1"]}'
        async with FakeRegistry() as fake, registry_at(fake.url) as registry:
            fake.fault(Fault(status=200, body=body))
            assert (await registry.tags(REPOSITORY, "")).data == body

    async def test_too_large_a_page_ecr(self) -> None:
        """ECR refuses n > 1000 with 400: that is told, and not taken for a missing repository."""
        async with FakeRegistry() as fake, registry_at(fake.url) as registry:
            fake.fault(Fault(status=400, body=oci_error("UNSUPPORTED", "Invalid parameter at 'maxResults'")))
            with pytest.raises(UpstreamError, match="maxResults") as raised:
                await registry.tags(REPOSITORY, "n=5000")
            assert raised.value.failure is Failure.INVALID

    async def test_link_to_an_internal_host(self) -> None:
        """Registries behind proxies put internal hosts into Link: only the query of it is used."""
        async with FakeRegistry() as fake, registry_at(fake.url) as registry:
            headers = {"Link": '<http://registry-internal:5000/v2/x/tags/list?last=b&n=1>; rel="next"'}
            fake.fault(Fault(status=200, body=b'{"tags":["b"]}', headers=headers))
            assert (await registry.tags(REPOSITORY, "n=1")).next_query == "last=b&n=1"

    async def test_referrers_redirect_ghcr(self) -> None:
        """ghcr.io answered referrers with 303 to a page of github.com, which then limits: not followed."""

        async def github(request: web.BaseRequest, seen: Seen) -> web.StreamResponse:
            return web.Response(status=429)

        async with FakeRegistry() as fake, Site(github) as site, registry_at(fake.url) as registry:
            location = str(URL(site.url) / "-/v2/packages/x")
            fake.fault(Fault(status=303, headers={"Location": location}))
            with pytest.raises(UpstreamError) as raised:
                await registry.referrers(REPOSITORY, Digest.of(b""))
            assert raised.value.failure is Failure.NOT_FOUND
            assert site.log == []

    @pytest.mark.parametrize(
        ("status", "body"),
        [
            (404, oci_error("MANIFEST_UNKNOWN", "manifest unknown")),
            (404, b"404 page not found"),
            (400, oci_error("MANIFEST_INVALID", "manifest invalid")),
            (405, b""),
        ],
    )
    async def test_referrers_lacking(self, status: int, body: bytes) -> None:
        """ghcr.io answers referrers with 404, quay.io an unknown digest with MANIFEST_INVALID, others 405:
        NOT_FOUND each time, so that the tag schema is asked."""
        async with FakeRegistry() as fake, registry_at(fake.url) as registry:
            fake.fault(Fault(status=status, body=body))
            with pytest.raises(UpstreamError) as raised:
                await registry.referrers(REPOSITORY, Digest.of(b""))
            assert raised.value.failure is Failure.NOT_FOUND

    async def test_referrers_unfiltered_ecr(self) -> None:
        """ECR answers several filters with nothing: referrers are asked for without any."""
        async with FakeRegistry() as fake, registry_at(fake.url) as registry:
            image = fake.add_image(REPOSITORY, "latest", [])
            assert await registry.referrers(REPOSITORY, image.manifest) == "[]"
            assert fake.log[0].query == ""
