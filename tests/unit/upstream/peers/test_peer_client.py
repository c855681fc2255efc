"""The client of another mirror, at servers that are none, or not the right process."""

import pytest
from aiohttp import web

from mirror.access.peer_proof import ANSWER_HEADER, BEHIND_HEADER, REQUEST_HEADER, PeerProof, subject
from mirror.metrics.metrics import Metrics
from mirror.oci.digest import Digest
from mirror.upstream.errors import UpstreamError
from mirror.upstream.peers.peer_client import PeerClient
from tests.fakes.site import Seen, Site

SECRET = "a-secret-of-all-mirrors"
DATA = b"0123456789"
DIGEST = Digest.of(DATA)


def client_of(url: str) -> PeerClient:
    return PeerClient(url, PeerProof(SECRET), Metrics(), connect_timeout=5, silence=5)


async def read(client: PeerClient, start: int, stop: int | None) -> bytes:
    try:
        async with client.open_blob("", DIGEST, start, stop) as body:
            return b"".join([chunk async for chunk in body.chunks()])
    finally:
        await client.close()


def answer(secret: str, request: web.BaseRequest) -> web.Response:
    """Send the bytes from 4 on, with the proof that `secret` makes."""
    about, proof = subject(str(DIGEST), 4), PeerProof(secret)
    nonce = request.headers[REQUEST_HEADER].split(".")[1]
    headers = {ANSWER_HEADER: proof.answer(nonce, about), "Content-Range": f"bytes 4-9/{len(DATA)}"}
    return web.Response(status=206, body=DATA[4:], headers=headers)


async def test_peer_gives_the_rest_of_a_blob(monkeypatch: pytest.MonkeyPatch) -> None:
    """The bytes are from the right process of several, past the proxies of the environment."""
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")

    async def handle(request: web.BaseRequest, seen: Seen) -> web.StreamResponse:
        if len(site.log) < 3:
            return web.Response(status=421, headers={"Connection": "close"})
        assert (request.path, request.headers["Range"]) == (f"/v2/peers/blobs/{DIGEST}", "bytes=4-")
        return answer(SECRET, request)

    async with Site(handle) as site:
        assert await read(client_of(site.url), 4, None) == DATA[4:]
        assert len(site.log) == 3
        assert SECRET not in str([each.headers for each in site.log])


@pytest.mark.parametrize("secret", ["another-secret-of-others", ""])
async def test_peer_without_the_secret_is_refused(secret: str) -> None:
    """A program that merely has the address gives no byte."""

    async def handle(request: web.BaseRequest, seen: Seen) -> web.StreamResponse:
        return answer(secret, request)

    async with Site(handle) as site:
        with pytest.raises(UpstreamError, match="secret"):
            await read(client_of(site.url), 4, None)


async def test_peer_that_is_never_right_ends() -> None:
    """Attempts are bounded."""

    async def handle(request: web.BaseRequest, seen: Seen) -> web.StreamResponse:
        return web.Response(status=421)

    async with Site(handle) as site:
        with pytest.raises(UpstreamError):
            await read(client_of(site.url), 0, None)
        assert 1 < len(site.log) < 20


@pytest.mark.parametrize(
    ("said", "known"),
    [("4711", 4711), ("0", 0), *((wrong, None) for wrong in ("", "-1", "1" * 19, "1e9", "²"))],
)
async def test_peer_tells_how_far_this_mirror_is_behind(said: str, known: int | None) -> None:
    """A number of bytes is believed; anything else is as if nothing had been said."""

    async def handle(request: web.BaseRequest, seen: Seen) -> web.StreamResponse:
        right = answer(SECRET, request)
        right.headers[BEHIND_HEADER] = said
        return right

    async with Site(handle) as site:
        client = client_of(site.url)
        assert client.behind(DIGEST) is None
        assert await read(client, 4, None) == DATA[4:]
        assert client.behind(DIGEST) == known
