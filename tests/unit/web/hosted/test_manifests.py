"""HTTP of pushed manifests, and of deletions."""

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request

from mirror.oci.digest import Digest
from mirror.oci.errors import RegistryError
from mirror.oci.manifest import OCI_MANIFEST
from mirror.oci.reference import Target, parse_target
from mirror.web.hosted.manifests import MOST_TAGS, ManifestApi, location
from mirror.web.request_log import RequestRecord
from tests.hosting import APP, CONFIG, descriptor, hosted_of, manifest_of, office, push_blob, push_image
from tests.running import Running


@pytest.fixture
async def mirror(tmp_path: Path) -> AsyncIterator[Running]:
    async with office(tmp_path / "cache") as running:
        await push_blob(hosted_of(running), APP, CONFIG)
        yield running


class Api:
    """The handlers, called as the dispatch of the server calls them."""

    def __init__(self, mirror: Running) -> None:
        self._names = mirror.config.names()
        self._api = ManifestApi(hosted_of(mirror))

    def _request(self, method: str, path: str, media_type: str) -> tuple[RequestRecord, Target]:
        request = make_mocked_request(
            method, path, headers={"Content-Type": media_type} if media_type else {}
        )
        return RequestRecord(request), parse_target(self._names, path.partition("?")[0], None, None)

    async def put(self, path: str, data: bytes, media_type: str = OCI_MANIFEST) -> web.StreamResponse:
        return await self._api.put(*self._request("PUT", path, media_type), data)

    async def delete(self, path: str) -> web.StreamResponse:
        return await self._api.delete(*self._request("DELETE", path, ""))


async def test_push_answers_with_location_digest_and_subject(mirror: Running) -> None:
    """OCI distribution-spec, "Pushing Manifests", and "Pushing Manifests with Subject"."""
    data = manifest_of(subject=descriptor(Digest.of(b"subject"), 7, OCI_MANIFEST))
    reply = await Api(mirror).put("/v2/office/app/manifests/1.0", data)
    assert reply.status == 201
    assert reply.headers["Location"] == f"/v2/office/app/manifests/{Digest.of(data)}"
    assert reply.headers["Docker-Content-Digest"] == str(Digest.of(data))
    assert reply.headers["OCI-Subject"] == str(Digest.of(b"subject"))
    assert "OCI-Tag" not in reply.headers


async def test_push_by_digest_takes_tags(mirror: Running) -> None:
    """OCI distribution-spec, "Pushing Manifests": OCI-Tag has each accepted tag; 414 for too many."""
    data, api = manifest_of(), Api(mirror)
    path = f"/v2/office/app/manifests/{Digest.of(data)}"
    reply = await api.put(f"{path}?tag=1.2&tag=1&tag=1", data)
    assert reply.headers.getall("OCI-Tag") == ["1.2", "1"]
    listed = await hosted_of(mirror).content.tags(APP, "")
    assert json.loads(listed.data)["tags"] == ["1", "1.2"]
    query = "&".join(f"tag=t{number}" for number in range(MOST_TAGS + 1))
    for bad, status in ((query, 414), ("tag=-x", 400)):
        with pytest.raises(RegistryError) as caught:
            await api.put(f"{path}?{bad}", data)
        assert caught.value.status == status


async def test_deletions_are_accepted(mirror: Running) -> None:
    """OCI distribution-spec, "Content Management": 202 for a tag, a manifest and a blob; 404 afterwards."""
    api, digest = Api(mirror), await push_image(hosted_of(mirror), APP, "latest")
    for path in ("manifests/latest", f"manifests/{digest}", f"blobs/{Digest.of(CONFIG)}"):
        assert (await api.delete(f"/v2/office/app/{path}")).status == 202
        with pytest.raises(RegistryError) as caught:
            await api.delete(f"/v2/office/app/{path}")
        assert caught.value.status == 404


async def test_other_targets_are_unsupported(mirror: Running) -> None:
    api = Api(mirror)
    for call in (
        api.delete("/v2/office/app/tags/list"),
        api.put(f"/v2/office/app/blobs/{Digest.of(CONFIG)}", CONFIG),
    ):
        with pytest.raises(RegistryError) as caught:
            await call
        assert (caught.value.status, caught.value.code) == (405, "UNSUPPORTED")


async def test_longest_body_tells_too_large_apart(mirror: Running) -> None:
    target = parse_target(mirror.config.names(), "/v2/office/app/manifests/x", None, None)
    assert ManifestApi(hosted_of(mirror)).longest_body(target) == 4 * 1024 * 1024 + 1


@pytest.mark.parametrize("prefix", ["", "/t/secret", "/v2/t/secret"])
async def test_location_keeps_the_secret_of_the_path(mirror: Running, prefix: str) -> None:
    """A client whose login is a part of its path finds what it pushed by the Location."""
    digest = Digest.of(b"x")
    target = parse_target(mirror.config.names(), f"/v2/office/app/manifests/{digest}", None, None)
    record = RequestRecord(make_mocked_request("PUT", "/"))
    record.path_prefix = prefix
    rest = f"/office/app/manifests/{digest}"
    assert location(record, target) == (f"{prefix}{rest}" if "/v2" in prefix else f"{prefix}/v2{rest}")
