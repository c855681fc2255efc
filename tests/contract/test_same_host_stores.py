"""Stores on the registry's own host: credentials belong to the API's paths, and never beside a signature."""

from pathlib import Path

import pytest
from aiohttp import web

from mirror.oci.digest import Digest
from tests.fakes.access import BasicAuth, TokenAuth
from tests.fakes.faults import Fault
from tests.fakes.registry import FakeRegistry
from tests.fakes.site import Seen, Site
from tests.running import CHUNK, LARGE_DATA, configured, serving
from tests.wire import get, head

X = "/v2/docker.io/library/x"
ACCOUNT = {"username": "me", "password": "geheim", "private": "everybody"}
BLOB = b"a blob" * 1000
BIG = LARGE_DATA

TARGETS = [
    "/_storage_proxy/ZXlK/https/s3/key",
    "/_storage_proxy/ZXlK/https/s3/key?X-Amz-Algorithm=AWS4&X-Amz-Credential=a&X-Amz-Signature=b",
    "/v2store/key?Signature=abc&Expires=1",
    "/v2/store/key?X-Amz-Signature=abc",
    "/v2/store/key?x-goog-signature=abc",
    "/v2/store/key?sv=2024&sig=abc%3D",
    "/v2/store/key?AWSAccessKeyId=me&Signature=abc",
    "/v2/store/key?Key-Pair-Id=k&Policy=p",
    "/v2/store/key?temp_url_sig=abc",
    "/storage/v2/key",
    "/key?any=thing",
]


class Registry:
    """A registry whose blobs are redirected to a store on its own host, which refuses any Authorization."""

    def __init__(self, target: str, auth: TokenAuth | BasicAuth) -> None:
        self.target, self.auth = target, auth
        self.blobs: dict[str, bytes] = {}
        self.asked: list[Seen] = []

    async def answer(self, request: web.BaseRequest, seen: Seen) -> web.StreamResponse:
        if seen.path == self.target.partition("?")[0]:
            self.asked.append(seen)
            if "Authorization" in request.headers:
                return web.Response(status=400, body=b"<Error>InvalidArgument</Error>")
            return self.content(request)
        if seen.path == "/token" and isinstance(self.auth, TokenAuth):
            return await self.auth.token(request, seen)
        if not self.auth.allows(request.headers.get("Authorization"), "library/x"):
            lines = self.auth.challenges(f"http://{request.host}", "library/x")
            return web.Response(status=401, headers={"WWW-Authenticate": lines[0]})
        return web.Response(status=302, headers={"Location": self.target})

    def content(self, request: web.BaseRequest) -> web.Response:
        (data,) = self.blobs.values()
        span = request.http_range
        start, stop = span.start or 0, span.stop or len(data)
        if "Range" not in request.headers:
            return web.Response(body=data)
        headers = {"Content-Range": f"bytes {start}-{min(stop, len(data)) - 1}/{len(data)}"}
        return web.Response(status=206, body=data[start:stop], headers=headers)


@pytest.fixture(params=["token", "token of an account", "basic"])
def auth(request: pytest.FixtureRequest) -> TokenAuth | BasicAuth:
    """Authentication of the registry: an anonymous token, a token of an account, a password."""
    if request.param == "basic":
        return BasicAuth("me", "geheim")
    account = request.param == "token of an account"
    return TokenAuth(user="me", password="geheim", private={"library/x"}) if account else TokenAuth()


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("data", [BLOB, BIG], ids=["small", "big"])
async def test_store_on_the_same_host_gets_no_credentials(
    tmp_path: Path, target: str, data: bytes, auth: TokenAuth | BasicAuth
) -> None:
    """Quay's storage proxy, MinIO beside a registry: GET, HEAD and the ranges of a large blob."""
    registry = Registry(target, auth)
    digest = Digest.of(data)
    registry.blobs[str(digest)] = data
    async with Site(registry.answer) as site:
        fill = {"parallel": 2, "parallel_above": 16 * CHUNK}
        account = {} if isinstance(auth, TokenAuth) and auth.user is None else ACCOUNT
        config = configured(tmp_path, {"docker.io": site.url}, upstream=account, fill=fill)
        async with serving(config) as mirror:
            assert (await head(mirror.address, f"{X}/blobs/{digest}")).status == 200
            assert (await get(mirror.address, f"{X}/blobs/{digest}")).body == data
    assert registry.asked
    assert not [seen for seen in registry.asked if "Authorization" in seen.headers]


async def test_redirect_within_the_api_keeps_the_token(fake: FakeRegistry, tmp_path: Path) -> None:
    """A registry that moves a repository within its own API is still answered with the token."""
    digest = fake.add_blob("library/x", BLOB)
    fake.auth = TokenAuth(answer={"expires_in": 300})
    moved = f"/v2/library/x/blobs/{digest}?moved=1"
    async with serving(configured(tmp_path, {"docker.io": fake.url})) as mirror:
        fake.fault(Fault(status=307, headers={"Location": moved}), "blobs", "GET")
        fake.fault(Fault(status=307, headers={"Location": moved}), "blobs", "HEAD")
        assert (await get(mirror.address, f"{X}/blobs/{digest}")).body == BLOB
    assert [seen.status for seen in fake.log if seen.query == "moved=1"][-1] == 206


@pytest.mark.parametrize(
    "path",
    [
        "/v2/../other/key",
        "/v2/%2e%2e/other/key",
        "/v2/.%2E/other/key",
        "/v2/x/..%2f..%2fother/key",
        "/v2/..\\other/key",
        "/v2/..%5Cother/key",
        "/v2/..;a=b/other/key",
        "/v2/%252e%252e/other/key",
    ],
)
async def test_path_that_leads_out_of_the_api_gets_no_credentials(tmp_path: Path, path: str) -> None:
    """Servers resolve dot segments, written in many ways: `/v2/../other` is another service's path."""
    asked: list[str | None] = []
    auth = BasicAuth("me", "geheim")
    digest = Digest.of(BLOB)

    async def answer(request: web.BaseRequest, seen: Seen) -> web.StreamResponse:
        if "other" in request.raw_path:
            asked.append(request.headers.get("Authorization"))
            return web.Response(body=BLOB)
        if not auth.allows(request.headers.get("Authorization"), "library/x"):
            return web.Response(status=401, headers={"WWW-Authenticate": 'Basic realm="x"'})
        return web.Response(status=302, headers={"Location": f"http://{request.host}{path}"})

    async with Site(answer) as site:
        config = configured(tmp_path, {"docker.io": site.url}, upstream=ACCOUNT)
        async with serving(config) as mirror:
            assert (await get(mirror.address, f"{X}/blobs/{digest}")).body == BLOB
    assert asked
    assert not any(asked)
