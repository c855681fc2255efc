"""Pushes to a registry: logins, mounts, refusals in its own words, and nothing sent to another server."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web

from mirror.config.endpoints import UpstreamSettings
from mirror.metrics.metrics import Metrics
from mirror.oci.digest import Digest
from mirror.oci.manifest import OCI_MANIFEST
from mirror.oci.reference import Tag
from mirror.upstream.errors import Failure, UpstreamError
from mirror.upstream.pushing import push_client
from mirror.upstream.pushing.push_client import PushClient, push_scope
from tests.fakes.site import Seen, Site

DATA = b"the bytes of a layer"
DIGEST = Digest.of(DATA)


class Registry:
    """A registry that answers as it is told, and keeps what it was asked."""

    def __init__(self, **answers: web.StreamResponse) -> None:
        self.answers = answers
        self.seen: list[tuple[str, str, bytes]] = []
        self.headers: list[dict[str, str]] = []

    async def __call__(self, request: web.BaseRequest, _: Seen) -> web.StreamResponse:
        body = await request.read()
        self.seen.append((request.method, request.path_qs, body))
        self.headers.append(dict(request.headers))
        found = self.answers[request.method.lower()]
        return web.Response(status=found.status, headers=found.headers, body=getattr(found, "body", None))


def answer(status: int, words: str = "", **headers: str) -> web.Response:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    body = json.dumps({"errors": [{"code": "DENIED", "message": words}]}) if words else None
    return web.Response(status=status, headers=named, text=body, content_type="application/json")


@asynccontextmanager
async def client_of(registry: Registry, **options: Any) -> AsyncIterator[PushClient]:
    async with Site(registry) as site:
        settings = UpstreamSettings.model_validate(
            {"name": "target.lan", "url": site.url, "attempts": 1, **options}
        )
        client = PushClient(settings, Metrics(), headers={"X-Own": "1"})
        try:
            yield client
        finally:
            await client.close()


async def body() -> AsyncIterator[bytes]:
    yield DATA[:4]
    yield DATA[4:]


async def test_blob_is_sent_with_its_length_to_where_the_registry_says() -> None:
    registry = Registry(post=answer(202, Location="/v2/app/blobs/uploads/1?_state=a%3D"), put=answer(201))
    async with client_of(registry) as client:
        assert not await client.put_blob("app", DIGEST, len(DATA), body)
    assert registry.seen == [
        ("POST", "/v2/app/blobs/uploads/", b""),
        ("PUT", f"/v2/app/blobs/uploads/1?_state=a%3D&digest={DIGEST}", DATA),
    ]
    assert registry.headers[1]["Content-Length"] == str(len(DATA))
    assert [each["X-Own"] for each in registry.headers] == ["1", "1"]


async def test_mounted_blob_is_not_sent() -> None:
    registry = Registry(post=answer(201))
    async with client_of(registry) as client:
        assert await client.put_blob("app", DIGEST, len(DATA), body, "other")
    assert registry.seen == [("POST", f"/v2/app/blobs/uploads/?mount={DIGEST}&from=other", b"")]


async def test_upload_is_sent_to_no_other_server() -> None:
    registry = Registry(post=answer(202, Location="http://other.lan/v2/app/blobs/uploads/1"))
    async with client_of(registry) as client:
        with pytest.raises(UpstreamError, match=r"sent to other\.lan"):
            await client.put_blob("app", DIGEST, len(DATA), body)
    assert len(registry.seen) == 1


async def test_refusal_is_told_in_the_words_of_the_registry() -> None:
    registry = Registry(put=answer(403, "the quota of team is used up"))
    async with client_of(registry) as client:
        with pytest.raises(UpstreamError, match="answered 403: DENIED: the quota of team") as caught:
            await client.put_manifest("app", Tag("1"), OCI_MANIFEST, b"{}")
    assert caught.value.failure is Failure.DENIED


async def test_manifest_that_became_another_one_is_an_error() -> None:
    registry = Registry(put=answer(201, Docker_Content_Digest=str(DIGEST)))
    async with client_of(registry) as client:
        with pytest.raises(UpstreamError, match="which it is not"):
            await client.put_manifest("app", Tag("1"), OCI_MANIFEST, b"{}")


async def test_digest_is_none_for_what_is_not_there() -> None:
    registry = Registry(head=answer(404), delete=answer(404))
    async with client_of(registry) as client:
        assert await client.digest_of("app", Tag("1")) is None
        assert not await client.has_blob("app", DIGEST)
        await client.delete_manifest("app", Tag("1"))
    registry.answers["head"] = answer(200, Docker_Content_Digest=str(DIGEST))
    async with client_of(registry) as client:
        assert await client.digest_of("app", Tag("1")) == DIGEST
        assert await client.has_blob("app", DIGEST)


async def test_password_goes_only_to_who_asks_for_it(tmp_path: Any) -> None:
    registry = Registry(head=answer(401, WWW_Authenticate='Basic realm="x"'))
    async with client_of(registry, username="us", password="canary-secret") as client:
        with pytest.raises(UpstreamError) as caught:
            await client.digest_of("app", Tag("1"))
    assert "Authorization" not in registry.headers[0]
    assert registry.headers[1]["Authorization"].startswith("Basic ")
    assert "canary-secret" not in str(caught.value)
    assert caught.value.failure is Failure.DENIED


def test_scope_names_the_source_of_a_mount() -> None:
    assert push_scope("app") == "repository:app:pull,push"
    assert push_scope("app base") == "repository:app:pull,push repository:base:pull"


@pytest.mark.parametrize("told", ["odd:0123", "shake_128:00", "sha256:00", ""])
async def test_digest_that_is_none_is_an_error_of_the_registry(told: str) -> None:
    registry = Registry(put=answer(201, Docker_Content_Digest=told))
    async with client_of(registry) as client:
        with pytest.raises(UpstreamError, match="which it is not"):
            await client.put_manifest("app", Tag("1"), OCI_MANIFEST, b"{}")


async def test_content_that_breaks_off_is_no_failure_of_the_registry() -> None:
    """Else a blob that is damaged here would let a target rest that has no fault."""
    begun: list[int] = []

    async def damaged() -> AsyncIterator[bytes]:
        begun.append(1)
        yield DATA[:4]
        raise ValueError("damaged")

    registry = Registry(post=answer(202, Location="/v2/app/blobs/uploads/1"), delete=answer(204))
    async with client_of(registry, attempts=3) as client:
        with pytest.raises(ValueError, match="damaged"):
            await client.put_blob("app", DIGEST, len(DATA), damaged)
    assert begun == [1]


async def test_upload_that_is_cancelled_waits_for_no_registry_that_hangs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A mirror that stops cancels its replication, and would wait for half a minute."""
    monkeypatch.setattr(push_client, "ABANDON_SECONDS", 0.01)
    asked, ended = asyncio.Event(), asyncio.Event()

    class Hanging(Registry):
        async def __call__(self, request: web.BaseRequest, seen: Seen) -> web.StreamResponse:
            if request.method != "POST":
                asked.set()
                await ended.wait()
            return await super().__call__(request, seen)

    hanging = Hanging(
        post=answer(202, Location="/v2/app/blobs/uploads/1"), put=answer(201), delete=answer(204)
    )
    async with client_of(hanging) as client:
        task = asyncio.ensure_future(client.put_blob("app", DIGEST, len(DATA), body))
        await asked.wait()
        task.cancel()
        try:
            done, _ = await asyncio.wait([task], timeout=20)
        finally:
            ended.set()
        assert done
        assert task.cancelled()
