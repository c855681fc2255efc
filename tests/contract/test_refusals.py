"""Refusals: who may take away what was public, and who only refuses this mirror.

The table of docs/upstreams.md, by running mirrors: a tag that is wholly cached is served stale, and labelled,
after every refusal that is not the registry's own word about the repository.
"""

import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from aiohttp import web

from tests.fakes.access import BasicAuth, TokenAuth
from tests.fakes.content import FakeImage
from tests.fakes.faults import Fault, oci_error
from tests.fakes.registry import FakeRegistry
from tests.fakes.site import Seen, Site
from tests.running import NEVER, Running, configured, serving
from tests.wire import Reply, get, head

TAG = "/v2/docker.io/library/x/manifests/t"
PAGE = {"Content-Type": "text/html"}
FIREWALL = b"<html><body>Access denied by policy</body></html>"
FOREVER = 10_000
TERMS = {"fresh": 0, "fallback_after": NEVER, "missing": 0}

Refusal = Callable[[FakeRegistry], None]


def api(status: int, body: bytes = b"", **headers: str) -> Refusal:
    """Answer all requests to the API so."""

    def refuse(fake: FakeRegistry) -> None:
        fake.fault(Fault(status=status, body=body, headers=headers), "/v2/", times=FOREVER)

    return refuse


def token(status: int, body: bytes = b"", **headers: str) -> Refusal:
    """Have the API ask for tokens, and the token server answer so."""

    def refuse(fake: FakeRegistry) -> None:
        fake.auth = TokenAuth()
        fake.fault(Fault(status=status, body=body, headers=headers), "/token", times=FOREVER)

    return refuse


def challenge(*lines: str, body: bytes = oci_error("UNAUTHORIZED", "no")) -> Refusal:
    """Answer 401 with these challenges."""
    return api(401, body, **({"WWW-Authenticate": ", ".join(lines)} if lines else {}))


def granted(status: int, body: bytes) -> Refusal:
    """Grant tokens, and refuse requests that have one."""

    def refuse(fake: FakeRegistry) -> None:
        fake.auth = TokenAuth()
        fake.auth.granted_answer = (status, body)

    return refuse


def login_form(fake: FakeRegistry) -> None:
    """Send all requests to a page for browsers."""
    api(302, Location="/login")(fake)
    fake.fault(Fault(status=200, body=FIREWALL, headers=PAGE), "/login", times=FOREVER)


DENIED = oci_error("DENIED", "requested access to the resource is denied")
UNAUTHORIZED = oci_error("UNAUTHORIZED", "authentication required")

OUTAGES: dict[str, Refusal] = {
    "token 401": token(401),
    "token 401 with a code": token(401, UNAUTHORIZED),
    "token 403": token(403),
    "token 403 with a code": token(403, DENIED),
    "token 402": token(402),
    "token 404": token(404),
    "token 451 page": token(451, FIREWALL, **PAGE),
    "token 200 page": token(200, FIREWALL, **PAGE),
    "token 200 without a token": token(200, b"{}"),
    "api 401 page": api(401, FIREWALL, **PAGE),
    "api 401 bare": api(401),
    "api 402": api(402, b"{}"),
    "api 403 page": api(403, FIREWALL, **PAGE),
    "api 403 bare": api(403),
    "api 403 of a WAF": api(403, b'{"errors":[{"code":1009,"message":"Access denied"}]}'),
    "api 403 with another code": api(403, oci_error("AccessDenied", "no")),
    "api 404 page": api(404, FIREWALL, **PAGE),
    "api 404 of an ingress": api(404, b"default backend - 404", **{"Content-Type": "text/plain"}),
    "api 407": api(407, FIREWALL, **PAGE),
    "api 451 page": api(451, FIREWALL, **PAGE),
    "api 200 page": api(200, FIREWALL, **PAGE),
    "api 400": api(400, oci_error("UNSUPPORTED", "no")),
    "api redirects to a login": login_form,
    "realm that is not a URL": challenge('Bearer realm="nowhere",service="x"'),
    "realm that may not be asked": challenge('Bearer realm="ftp://x.test/token",service="x"'),
    "basic page": challenge('Basic realm="proxy"', body=FIREWALL),
    "token granted, then 403 page": granted(403, FIREWALL),
}

OWN_WORDS: dict[str, Refusal] = {
    "401 without a challenge": challenge(),
    "401 basic": challenge('Basic realm="registry"'),
    "403 denied": api(403, DENIED),
    "403 unauthorized": api(403, UNAUTHORIZED),
    "451 denied": api(451, DENIED),
    "404 name unknown": api(404, oci_error("NAME_UNKNOWN", "no such repository")),
    "404 manifest unknown": api(404, oci_error("MANIFEST_UNKNOWN", "no such manifest")),
    "404 with a code of its own": api(404, oci_error("NOT_FOUND", "artifact not found")),
    "400 manifest unknown": api(400, oci_error("MANIFEST_UNKNOWN", "no such manifest")),
    "410": api(410),
    "410 page": api(410, FIREWALL, **PAGE),
    "token granted, then 401": granted(401, UNAUTHORIZED),
    "token granted, then 403": granted(403, DENIED),
}


def is_stale(reply: Reply) -> bool:
    return reply.status == 200 and reply.headers.get("warning", "").startswith("110 ")


@pytest.fixture
async def mirror(fake: FakeRegistry, tmp_path: Path) -> AsyncIterator[Running]:
    """A mirror for which no tag is fresh."""
    config = configured(tmp_path, {"docker.io": fake.url}, tags=TERMS)
    async with serving(config) as running:
        yield running


async def pull(mirror: Running, fake: FakeRegistry) -> FakeImage:
    """Pull an image whole."""
    image = fake.add_image("library/x", "t", [b"a layer"])
    assert (await get(mirror.address, TAG)).status == 200
    for digest in (image.config, *image.layers):
        assert (await get(mirror.address, f"/v2/docker.io/library/x/blobs/{digest}")).status == 200
        await mirror.landed(digest)
    return image


@pytest.mark.parametrize("way", OUTAGES)
async def test_refusal_of_the_mirror_is_an_outage(
    fake: FakeRegistry, mirror: Running, way: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Cached content is served by tag, labelled, for GET, HEAD and the list of tags; and again afterwards."""
    image = await pull(mirror, fake)
    OUTAGES[way](fake)
    reply = await get(mirror.address, TAG)
    assert (is_stale(reply), reply.body) == (True, image.manifest_data)
    assert is_stale(await head(mirror.address, TAG))
    tags = await get(mirror.address, "/v2/docker.io/library/x/tags/list")
    assert (is_stale(tags), json.loads(tags.body)["tags"]) == (True, ["t"])
    assert await mirror.metric('registry_mirror_requests_total{kind="manifest",outcome="stale"}') == 2
    log = capsys.readouterr().out
    assert log.count("not confirmed: docker.io") >= 2
    assert log.count("upstream refuses this mirror, stale content served") <= 1
    fake.forgive()
    assert not is_stale(await get(mirror.address, TAG))


# Not refusals, but answers that make no sense: the upstream may be asked for blobs.
DISORDERS = ("api 402", "api 407", "api 451", "api 200", "api 400", "api redirects")
TOKEN_DISORDERS = ("token 402", "token 404", "token 451", "token 200")


@pytest.mark.parametrize("way", [way for way in OUTAGES if not way.startswith(DISORDERS + TOKEN_DISORDERS)])
async def test_refusal_of_the_mirror_offers_no_incomplete_image(
    fake: FakeRegistry, mirror: Running, way: str
) -> None:
    """A manifest whose blobs cannot be had is not served after a refusal: podman has no way back."""
    fake.add_image("library/x", "t", [b"a layer"])
    assert (await get(mirror.address, TAG)).status == 200
    OUTAGES[way](fake)
    reply = await get(mirror.address, TAG)
    assert (reply.status, b"2 blobs" in reply.body) == (424, True)


@pytest.mark.parametrize("way", OWN_WORDS)
async def test_own_word_takes_away(fake: FakeRegistry, mirror: Running, way: str) -> None:
    """The registry's own word about the repository ends it by tag, for GET and HEAD."""
    await pull(mirror, fake)
    OWN_WORDS[way](fake)
    replies = [await get(mirror.address, TAG), await head(mirror.address, TAG)]
    assert [reply.status for reply in replies] == [404, 404]


async def test_410_drops_the_tag(fake: FakeRegistry, mirror: Running) -> None:
    """410 is a stronger 404: the tag is gone, also during the outage that follows."""
    await pull(mirror, fake)
    api(410)(fake)
    assert (await get(mirror.address, TAG)).status == 404
    fake.forgive()
    api(503)(fake)
    assert (await get(mirror.address, TAG)).status == 424


@pytest.mark.parametrize("auth", [BasicAuth("me", "new"), TokenAuth(user="me", password="new")])
async def test_refused_password_is_an_outage(
    fake: FakeRegistry, tmp_path: Path, auth: BasicAuth | TokenAuth
) -> None:
    """A password that was changed upstream leaves cached tags, for as long as access is believed."""
    account = {"username": "me", "password": "old", "private": "everybody"}
    fake.auth = BasicAuth("me", "old")
    config = configured(tmp_path, {"docker.io": fake.url}, tags=TERMS, upstream=account)
    async with serving(config) as mirror:
        image = await pull(mirror, fake)
        fake.auth = auth
        reply = await get(mirror.address, TAG)
        assert (is_stale(reply), reply.body) == (True, image.manifest_data)


@pytest.mark.parametrize("way", ["token 401", "api 403 page", "token granted, then 403 page"])
async def test_refusal_ends_private_content_when_access_is_checked(
    fake: FakeRegistry, tmp_path: Path, way: str
) -> None:
    """Content that came with an account is not kept by a refusal that may be meant for the account."""
    account = {"username": "me", "password": "old", "recheck_access": 0, "private": "everybody"}
    fake.auth = BasicAuth("me", "old")
    config = configured(tmp_path, {"docker.io": fake.url}, tags=TERMS, upstream=account)
    async with serving(config) as mirror:
        await pull(mirror, fake)
        OUTAGES[way](fake)
        assert (await get(mirror.address, TAG)).status == 404
        tags = await get(mirror.address, "/v2/docker.io/library/x/tags/list")
        assert tags.status == 404


async def test_upstreams_400_is_told_as_400(fake: FakeRegistry, mirror: Running) -> None:
    """A request that the upstream finds wrong is wrong wherever the client sends it."""
    fake.add_image("library/x", "t", [b"a layer"])
    api(400, oci_error("TAG_INVALID", "that tag is odd"))(fake)
    for path in (TAG, TAG.replace("/docker.io", ""), f"{TAG.replace('/docker.io', '')}?ns=docker.io"):
        reply = await get(mirror.address, path)
        assert (reply.status, b"that tag is odd" in reply.body) == (400, True)


class TestRejectedTokens:
    """Tokens that are no longer good, long before `expires_in`."""

    @pytest.mark.parametrize("status", [401, 403])
    async def test_rejected_token_is_forgotten(
        self, fake: FakeRegistry, mirror: Running, status: int
    ) -> None:
        """The next request has a new token, whatever the first one's expires_in was."""
        fake.auth = auth = TokenAuth(answer={"expires_in": 10**8})
        await pull(mirror, fake)
        auth.issued.clear()
        auth.rejection = status
        assert not is_stale(await get(mirror.address, TAG))
        assert auth.count == 2

    async def test_challenge_to_an_old_token_names_another_realm(self, tmp_path: Path) -> None:
        """nvcr.io names a realm for accounts to a client with an old token: that for new clients is asked."""
        valid: set[str] = set()

        async def nvcr(request: web.BaseRequest, seen: Seen) -> web.StreamResponse:
            token = request.headers.get("Authorization", "").removeprefix("Bearer ")
            if seen.path == "/proxy_auth":
                valid.add(f"token-{len(site.log)}")
                return web.json_response({"token": f"token-{len(site.log)}", "expires_in": 86400})
            if seen.path == "/accounts":
                return web.Response(status=401)
            if token in valid:
                body = b'{"schemaVersion":2,"manifests":[]}'
                return web.Response(body=body, content_type="application/vnd.oci.image.index.v1+json")
            realm = "accounts" if token else "proxy_auth"
            return web.Response(
                status=401, headers={"WWW-Authenticate": f'Bearer realm="{site.url}/{realm}",service="r"'}
            )

        async with Site(nvcr) as site:
            config = configured(tmp_path, {"nvcr.io": site.url}, tags=TERMS)
            async with serving(config) as mirror:
                for _ in range(3):
                    reply = await get(mirror.address, "/v2/nvcr.io/library/x/manifests/t")
                    assert (reply.status, is_stale(reply)) == (200, False)
                    valid.clear()
            assert not [seen for seen in site.log if seen.path == "/accounts"]
