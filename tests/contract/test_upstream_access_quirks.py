"""Quirks of real registries in tokens, passwords and redirects, each against a fake that behaves so.

Every docstring states what the registry does; the test shows that a pull works, or fails as it should, all
the same. Names say where the quirk was seen.
"""

import gzip

import pytest
from aiohttp import web

from mirror.oci.digest import Digest
from mirror.oci.reference import Tag
from mirror.upstream.errors import Failure, UpstreamError
from mirror.upstream.registry_client import RegistryClient
from tests.fakes.access import BasicAuth, TokenAuth, basic_login
from tests.fakes.faults import Fault, oci_error
from tests.fakes.registry import FakeRegistry
from tests.fakes.site import Seen, Site
from tests.fakes.upstream import FakeTime, registry_at

LATEST = Tag("latest")
REPOSITORY = "library/app"


async def read(registry: RegistryClient, digest: Digest, start: int = 0, path: str = REPOSITORY) -> bytes:
    async with registry.open_blob(path, digest, start) as body:
        return b"".join([piece async for piece in body.chunks()])


async def failure_of_get(registry: RegistryClient, path: str = REPOSITORY) -> UpstreamError:
    with pytest.raises(UpstreamError) as raised:
        await registry.get_manifest(path, LATEST)
    return raised.value


class TestTokens:
    """Token flows."""

    async def test_placeholder_scope_ghcr(self) -> None:
        """ghcr.io's challenge on /v2/ names the scope repository:user/image:pull: we name our own."""
        async with FakeRegistry() as fake, registry_at(fake.url) as registry:
            image = fake.add_image(REPOSITORY, "latest", [])
            fake.auth = TokenAuth(scope="repository:user/image:pull")
            assert (await registry.get_manifest(REPOSITORY, LATEST)).digest == image.manifest

    async def test_never_more_than_pull_ghcr(self) -> None:
        """ghcr.io answers 403 DENIED to pull,push: pull alone is asked for, whatever the challenge names."""
        async with FakeRegistry() as fake, registry_at(fake.url) as registry:
            fake.add_image(REPOSITORY, "latest", [])
            fake.auth = TokenAuth(scope=f"repository:{REPOSITORY}:pull,push")
            await registry.get_manifest(REPOSITORY, LATEST)
            assert fake.log[1].query.endswith(f"scope=repository:{REPOSITORY}:pull")

    async def test_missing_package_is_denied_at_the_token_server_ghcr(self) -> None:
        """ghcr.io refuses the token for a missing or private package with 403: DENIED, asked once."""
        async with FakeRegistry() as fake, registry_at(fake.url) as registry:
            fake.auth = TokenAuth(private={REPOSITORY})
            error = await failure_of_get(registry)
            assert (error.failure, error.status) == (Failure.DENIED, 403)
            assert len(fake.log) == 2

    async def test_missing_repository_is_401_hub(self) -> None:
        """Docker Hub gives a token for a missing repository, then answers 401 insufficient_scope: DENIED."""

        async def hub(request: web.BaseRequest, seen: Seen) -> web.StreamResponse:
            if seen.path == "/token":
                return web.Response(body=b'{"token":"without-access","expires_in":300}')
            challenge = f'Bearer realm="{site.url}/token",service="hub",error="insufficient_scope"'
            return web.Response(
                status=401,
                body=oci_error("UNAUTHORIZED", "authentication required"),
                headers={"WWW-Authenticate": challenge, "Content-Type": "application/json"},
            )

        async with Site(hub) as site, registry_at(site.url) as registry:
            error = await failure_of_get(registry)
            assert (error.failure, error.status) == (Failure.DENIED, 401)
            assert [seen.path.rpartition("/")[2] for seen in site.log] == ["latest", "token", "latest"]

    async def test_wrong_password_locks_the_account_hub(self) -> None:
        """Docker Hub locks an account after some wrong passwords: none is sent for a minute."""
        async with FakeRegistry() as fake:
            fake.auth = TokenAuth(user="me", password="right")
            async with registry_at(fake.url, username="me", password="wrong") as registry:
                for _ in range(5):
                    assert (await failure_of_get(registry)).failure is Failure.DENIED
            assert fake.requests(match="/token") == 1

    async def test_no_challenge_on_the_resource_gcr(self) -> None:
        """gcr.io's 401 for a resource may lack WWW-Authenticate: /v2/ is asked for the challenge."""
        async with FakeRegistry() as fake, registry_at(fake.url) as registry:
            image = fake.add_image(REPOSITORY, "latest", [])
            fake.auth = TokenAuth()
            fake.fault(Fault(status=401), match="manifests")
            assert (await registry.get_manifest(REPOSITORY, LATEST)).digest == image.manifest
            assert [seen.path for seen in fake.log][1:3] == ["/v2/", "/token"]

    async def test_empty_service_gcr(self) -> None:
        """gcr.io's challenge may have an empty service: it is left out of the request."""
        async with FakeRegistry() as fake, registry_at(fake.url) as registry:
            fake.add_image(REPOSITORY, "latest", [])
            fake.auth = TokenAuth(service="")
            await registry.get_manifest(REPOSITORY, LATEST)
            assert fake.log[1].query == f"scope=repository:{REPOSITORY}:pull"

    async def test_public_without_token_gcr(self) -> None:
        """gcr.io challenges on /v2/ but serves public content without a token: /v2/ is not asked first."""
        async with FakeRegistry() as fake, registry_at(fake.url) as registry:
            fake.add_image(REPOSITORY, "latest", [])
            await registry.get_manifest(REPOSITORY, LATEST)
            assert [seen.path for seen in fake.log] == [f"/v2/{REPOSITORY}/manifests/latest"]

    async def test_no_expiry_in_the_answer(self) -> None:
        """Many token servers leave expires_in out: the token is used for less than 60 s."""
        time = FakeTime()
        async with FakeRegistry() as fake, registry_at(fake.url, time) as registry:
            fake.add_image(REPOSITORY, "latest", [])
            fake.auth = TokenAuth(answer={})
            await registry.head_manifest(REPOSITORY, LATEST)
            time.now += 59
            await registry.head_manifest(REPOSITORY, LATEST)
            assert fake.requests(match="/token") == 2

    async def test_tokens_come_by_get(self) -> None:
        """GCR, ACR and Artifactory answer 4xx to the POST form of the token request: GET is used."""
        async with FakeRegistry() as fake, registry_at(fake.url) as registry:
            fake.add_image(REPOSITORY, "latest", [])
            fake.auth = TokenAuth()
            await registry.head_manifest(REPOSITORY, LATEST)
            assert {seen.method for seen in fake.log if seen.path == "/token"} == {"GET"}

    async def test_basic_ecr(self) -> None:
        """ECR challenges with Basic only: user AWS and the password go out with each request."""
        async with FakeRegistry() as fake:
            image = fake.add_image(REPOSITORY, "latest", [])
            fake.auth = BasicAuth("AWS", "twelve-hours")
            async with registry_at(fake.url, username="AWS", password="twelve-hours") as registry:
                assert (await registry.get_manifest(REPOSITORY, LATEST)).digest == image.manifest

    async def test_expired_login_ecr_public(self) -> None:
        """public.ecr.aws answers 403 to an expired login instead of serving anonymously: DENIED."""
        async with FakeRegistry() as fake:
            fake.add_image(REPOSITORY, "latest", [])
            fake.auth = TokenAuth(user="AWS", password="new")
            body = oci_error("DENIED", "Your authorization token has expired")
            fake.fault(Fault(status=403, body=body), match="/token")
            async with registry_at(fake.url, username="AWS", password="old") as registry:
                error = await failure_of_get(registry)
            assert error.failure is Failure.DENIED
            assert "has expired" in error.message

    async def test_realm_of_another_registry_lscr(self) -> None:
        """lscr.io challenges with ghcr.io's realm, then redirects manifests to ghcr.io, which challenges
        again though it is another host: both are answered with anonymous tokens of ghcr.io."""
        async with FakeRegistry() as ghcr:
            image = ghcr.add_image("linuxserver/app", "latest", [b"layer"])
            ghcr.auth = TokenAuth(service="ghcr.io")

            async def lscr(request: web.BaseRequest, seen: Seen) -> web.StreamResponse:
                assert ghcr.auth is not None
                if not ghcr.auth.allows(request.headers.get("Authorization"), "linuxserver/app"):
                    challenge = ghcr.auth.challenges(ghcr.url, "linuxserver/app")[0]
                    return web.Response(status=401, headers={"WWW-Authenticate": challenge})
                return web.Response(status=307, headers={"Location": f"{ghcr.url}{request.rel_url}"})

            async with Site(lscr) as site, registry_at(site.url) as registry:
                body = await registry.get_manifest("linuxserver/app", LATEST)
                assert body.digest == image.manifest
                assert await read(registry, image.layers[0], path="linuxserver/app") == b"layer"
            assert {basic_login(seen.headers.get("Authorization")) for seen in ghcr.log} == {None}


class TestBlobs:
    """Blobs by way of other hosts."""

    async def test_two_authorizations_s3(self) -> None:
        """S3, R2 and Azure answer 400 to a signed URL with an Authorization header: none is sent."""

        async def s3(request: web.BaseRequest, seen: Seen) -> web.StreamResponse:
            if "Authorization" in request.headers:
                return web.Response(status=400, body=b"<Error>Only one auth mechanism allowed</Error>")
            return web.Response(body=b"layer")

        async with FakeRegistry() as fake, Site(s3) as site, registry_at(fake.url) as registry:
            image = fake.add_image(REPOSITORY, "latest", [b"layer"])
            fake.auth = TokenAuth()
            fake.location = f"{site.url}/bucket/key?X-Amz-Signature=abc"
            assert await read(registry, image.layers[0]) == b"layer"

    async def test_relative_location_artifact_registry(self) -> None:
        """Artifact Registry redirects to a relative Location, on its own host."""

        async def answer(request: web.BaseRequest, seen: Seen) -> web.StreamResponse:
            if seen.path == "/artifacts-downloads/x":
                return web.Response(body=b"layer")
            return web.Response(status=302, headers={"Location": "/artifacts-downloads/x"})

        async with Site(answer) as site, registry_at(site.url) as registry:
            assert await read(registry, Digest.of(b"layer")) == b"layer"

    async def test_locations_are_never_kept_hub(self) -> None:
        """Docker Hub's signed Locations are short-lived: each request, a resumed one too, gets its own."""
        async with FakeRegistry() as fake, registry_at(fake.url) as registry:
            digest = fake.add_blob(REPOSITORY, b"layer")
            fake.cdn = True
            assert await read(registry, digest) == b"layer"
            assert await read(registry, digest, 2) == b"yer"
            assert len({seen.query for seen in fake.cdn_log}) == 2

    async def test_signature_expired_on_the_way(self) -> None:
        """A signed URL may be refused (clocks differ, it was used): the registry is asked again, once."""
        async with FakeRegistry() as fake, registry_at(fake.url) as registry:
            digest = fake.add_blob(REPOSITORY, b"layer")
            fake.cdn = True
            fake.fault(Fault(status=403, body=b"<Error>Request has expired</Error>", cdn=True))
            assert await read(registry, digest) == b"layer"
            assert fake.requests("GET") == 2

    @pytest.mark.parametrize("status", [400, 403, 405])
    async def test_signed_for_get_only_s3(self, status: int) -> None:
        """A URL signed for GET refuses HEAD: one byte is fetched instead, and the size is known."""

        async def s3(request: web.BaseRequest, seen: Seen) -> web.StreamResponse:
            if request.method == "HEAD":
                return web.Response(status=status)
            headers = {"Content-Range": "bytes 0-0/5"}
            return web.Response(status=206, body=b"l", headers=headers)

        async with FakeRegistry() as fake, Site(s3) as site, registry_at(fake.url) as registry:
            digest = fake.add_blob(REPOSITORY, b"layer")
            fake.location = f"{site.url}/key?sig=abc"
            assert await registry.head_blob(REPOSITORY, digest) == 5

    async def test_html_in_the_redirect_quay(self) -> None:
        """quay.io's 302 carries an HTML body and a Docker-Content-Digest of its own: neither is read."""
        async with FakeRegistry() as fake, registry_at(fake.url) as registry:
            digest = fake.add_blob(REPOSITORY, b"layer")
            headers = {
                "Location": f"{fake.url}/v2/{REPOSITORY}/blobs/{digest}?cdn",
                "Content-Type": "text/html",
                "Docker-Content-Digest": str(Digest.of(b"other")),
                "Cache-Control": "max-age=3600",
            }
            fake.fault(Fault(status=302, body=b"<!DOCTYPE HTML>Redirecting...", headers=headers))
            assert await read(registry, digest) == b"layer"

    async def test_foreign_etag(self) -> None:
        """CDNs send an ETag of theirs and no digest: bytes and sizes count."""
        async with FakeRegistry() as fake, registry_at(fake.url) as registry:
            digest = fake.add_blob(REPOSITORY, b"layer")
            fake.cdn = True
            assert await registry.head_blob(REPOSITORY, digest) == 5
            assert await read(registry, digest, 1) == b"ayer"

    async def test_gzip_if_accepted_redhat(self) -> None:
        """registry.access.redhat.com compresses config blobs for clients that accept it: we do not."""
        config = b'{"architecture":"amd64"}'

        async def redhat(request: web.BaseRequest, seen: Seen) -> web.StreamResponse:
            if "gzip" in request.headers.get("Accept-Encoding", ""):
                return web.Response(body=gzip.compress(config), headers={"Content-Encoding": "gzip"})
            return web.Response(body=config)

        async with Site(redhat) as site, registry_at(site.url) as registry:
            assert await read(registry, Digest.of(config)) == config

    async def test_egress_limit_mcr(self) -> None:
        """mcr.microsoft.com limits downloads in spikes with 429: retried after its Retry-After."""
        time = FakeTime()
        async with FakeRegistry() as fake, registry_at(fake.url, time) as registry:
            digest = fake.add_blob(REPOSITORY, b"layer")
            fake.fault(Fault(status=429, headers={"Retry-After": "3"}))
            assert await read(registry, digest) == b"layer"
            assert time.slept == [3.0]
