"""Upstreams that are slow without end, or mislead: by redirects, tokens, pages, and unrequested responses."""

import asyncio
from functools import partial
from pathlib import Path

import pytest
from aiohttp import web

from mirror.oci.manifest import OCI_MANIFEST
from mirror.transfer.plan import PlanLimits
from mirror.upstream.http.transport import Transport
from tests.contract.integrity import (
    ERROR,
    KINDS,
    RIGHT,
    SHORT,
    SMALL,
    X,
    assert_all_is_stored,
    assert_nothing_wrong_is_kept,
    close_breakers,
    expect,
    prepared,
    prepared_in_both,
    stop_faults,
    two_sources,
)
from tests.fakes.access import TokenAuth
from tests.fakes.content import image_manifest
from tests.fakes.faults import Fault, Gate
from tests.fakes.registry import FakeRegistry
from tests.fakes.site import Seen, Site
from tests.fakes.tls import Authority
from tests.running import configured, mirror_of, serving
from tests.wire import ask, get

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("no_pauses")]

# One byte at a time: each byte comes in time, and the end never comes.
SLOW = {
    "silent before the head": lambda content: Fault(hold=Gate(), after=-1),
    "silent in the body": lambda content: Fault(hold=Gate(), after=9),
    "dripping head": lambda content: Fault(raw=b"HTTP/1.1 200 OK\r\nX: " + b"x" * 10_000, drip=0.02),
    "dripping body": lambda content: Fault(drip=0.02),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("slow", SLOW)
async def test_slow_responses_end_in_time(fake: FakeRegistry, tmp_path: Path, slow: str, kind: str) -> None:
    """An error in time, or a short body; later clients do not join a request that never ends."""
    fill = {"attempts": 1}
    async with mirror_of(fake, tmp_path, upstream={"read_timeout": 0.2}, fill=fill) as mirror:
        content = await prepared(kind, fake, mirror)
        fake.fault(SLOW[slow](content), content.match, "GET", 99)
        seen = SHORT if kind == "large" and "body" in slow else ERROR
        expect(await get(mirror.address, content.path), content, seen)
        await assert_nothing_wrong_is_kept(mirror)
        stop_faults(fake)
        close_breakers(mirror)
        expect(await get(mirror.address, content.path), content, RIGHT)
        await assert_all_is_stored(mirror)


@pytest.mark.parametrize("times", [1, 2])
async def test_silent_transfer_is_resumed(fake: FakeRegistry, tmp_path: Path, times: int) -> None:
    """The blob is requested again, from the byte where the transfer stopped."""
    async with mirror_of(fake, tmp_path, upstream={"read_timeout": 0.2}) as mirror:
        content = await prepared("large", fake, mirror)
        fake.fault(Fault(hold=Gate(), after=9), content.match, "GET", times)
        expect(await get(mirror.address, content.path), content, RIGHT)
        await assert_all_is_stored(mirror)


@pytest.mark.parametrize("speed", [0.0, 1e8], ids=["unknown", "known"])
@pytest.mark.parametrize("sources", [1, 2])
async def test_low_speed_transfer_is_resumed(
    fake: FakeRegistry,
    other: FakeRegistry,
    tmp_path: Path,
    sources: int,
    speed: float,
) -> None:
    """The blob is requested again, elsewhere if possible, though each of its bytes comes in time."""
    limits = PlanLimits(low_speed_seconds=0.3)
    one = mirror_of(fake, tmp_path, limits)
    async with two_sources(fake, other, tmp_path, limits) if sources == 2 else one as mirror:
        content = await prepared_in_both("large", fake, other, mirror)
        for source in mirror.service._upstreams["docker.io"].sources:
            source.health.speed = speed
        # The fault has no end: if the mirror waited for it, the test would exceed its time limit.
        fake.fault(Fault(drip=0.02), content.match, "GET", times=1 if sources == 1 else 99)
        expect(await get(mirror.address, content.path), content, RIGHT)
        assert other.requests("GET", content.match) == sources - 1
        await assert_all_is_stored(mirror)


async def test_low_speed_network_is_served(fake: FakeRegistry, tmp_path: Path) -> None:
    """Each byte comes once, and the blob completes, however often the limit causes a new request."""
    async with mirror_of(fake, tmp_path, PlanLimits(low_speed_seconds=0.01)) as mirror:
        content = await prepared("large", fake, mirror)
        fake.piece = 128 * 1024
        fake.fault(Fault(drip=0.04), content.match, "GET", times=99)
        expect(await get(mirror.address, content.path), content, RIGHT)
        assert 1 < fake.requests("GET", content.match) < 9
        await assert_all_is_stored(mirror)


@pytest.mark.parametrize("kind", KINDS)
async def test_low_speed_token_response_is_given_up(fake: FakeRegistry, tmp_path: Path, kind: str) -> None:
    """The request fails, and so do the requests that wait for the same token."""
    async with mirror_of(fake, tmp_path, upstream={"read_timeout": 0.2}) as mirror:
        content = await prepared(kind, fake, mirror)
        fake.auth = TokenAuth()
        drip = Fault(raw=b"HTTP/1.1 200 OK\r\nContent-Length: 9000\r\n\r\n" + b" " * 9000, drip=0.02)
        fake.fault(drip, "/token", times=99)
        expect(await get(mirror.address, content.path), content, ERROR)
        await assert_nothing_wrong_is_kept(mirror)
        stop_faults(fake)
        close_breakers(mirror)
        expect(await get(mirror.address, content.path), content, RIGHT)
        await assert_all_is_stored(mirror)


@pytest.mark.parametrize("kind", KINDS)
async def test_token_response_of_10_megabytes_is_refused(
    fake: FakeRegistry, tmp_path: Path, kind: str
) -> None:
    """The response is not read to its end, and gives no token."""
    async with mirror_of(fake, tmp_path) as mirror:
        content = await prepared(kind, fake, mirror)
        fake.auth = TokenAuth(answer={"expires_in": 300, "padding": "x" * 10_000_000})
        expect(await get(mirror.address, content.path), content, ERROR)
        await assert_nothing_wrong_is_kept(mirror)
        fake.auth.answer = {}
        expect(await get(mirror.address, content.path), content, RIGHT)
        await assert_all_is_stored(mirror)


@pytest.mark.parametrize("kind", KINDS)
async def test_redirects_are_counted(fake: FakeRegistry, tmp_path: Path, kind: str) -> None:
    """Each hop is a new location, and there is a limit."""

    async def on(request: web.BaseRequest, seen: Seen) -> web.StreamResponse:
        return web.Response(status=307, headers={"Location": f"{seen.path}x"})

    async with mirror_of(fake, tmp_path) as mirror, Site(on) as site:
        content = await prepared(kind, fake, mirror)
        fake.fault(Fault(status=307, headers={"Location": site.url}), content.match)
        expect(await get(mirror.address, content.path), content, ERROR)
        assert len(site.log) < 10
        await assert_nothing_wrong_is_kept(mirror)
        expect(await get(mirror.address, content.path), content, RIGHT)
        await assert_all_is_stored(mirror)


@pytest.mark.parametrize("kind", KINDS)
async def test_redirects_to_a_private_address_are_refused(
    fake: FakeRegistry, other: FakeRegistry, tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An upstream of the public internet cannot make the mirror ask machines in its own network."""
    # Loopback is private, so that an upstream in a test is never public by itself.
    monkeypatch.setattr(Transport, "private", False)
    async with mirror_of(fake, tmp_path) as mirror:
        content = await prepared(kind, fake, mirror)
        fake.fault(Fault(status=307, headers={"Location": f"{other.url}{content.path}"}), content.match)
        reply = await get(mirror.address, content.path)
        expect(reply, content, ERROR)
        assert b"private address" in reply.body
        assert other.log == []
        await assert_nothing_wrong_is_kept(mirror)
        expect(await get(mirror.address, content.path), content, RIGHT)
        await assert_all_is_stored(mirror)


@pytest.mark.parametrize("kind", KINDS)
async def test_redirects_out_of_https_are_refused(other: FakeRegistry, tmp_path: Path, kind: str) -> None:
    """No request goes over plain http to a location that came over https."""
    authority = await asyncio.to_thread(Authority, tmp_path)
    async with FakeRegistry(tls=authority.server_context()) as fake:
        options = {"ca_file": authority.ca_file}
        config = partial(configured, tmp_path / "cache", {"docker.io": fake.url}, upstream=options)
        async with serving(await asyncio.to_thread(config)) as mirror:
            content = await prepared(kind, fake, mirror)
            fake.fault(Fault(status=307, headers={"Location": f"{other.url}{content.path}"}), content.match)
            reply = await get(mirror.address, content.path)
            expect(reply, content, ERROR)
            assert b"leaves https" in reply.body
            assert other.log == []
            await assert_nothing_wrong_is_kept(mirror)
            expect(await get(mirror.address, content.path), content, RIGHT)
            await assert_all_is_stored(mirror)


@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_login_page_confirms_no_link(fake: FakeRegistry, tmp_path: Path, method: str) -> None:
    """A page in response to every HEAD does not confirm that the repository has the blob (invariant 5)."""
    async with mirror_of(fake, tmp_path, tags={"missing": 0}) as mirror:
        content = await prepared("small", fake, mirror)
        expect(await get(mirror.address, content.path), content, RIGHT)
        foreign = content.path.replace(X, "library/y")
        page = Fault(status=200, body=b"<html>Sign in</html>", headers={"Content-Type": "text/html"})
        fake.fault(page, "library/y", times=99)
        reply = await ask(mirror.address, method, foreign)
        assert (reply.status, SMALL in reply.body) == (502, False)
        stop_faults(fake)
        assert (await ask(mirror.address, method, foreign)).status == 404
        fake.add_blob("library/y", SMALL)
        assert (await ask(mirror.address, method, foreign)).status == 200
        await assert_all_is_stored(mirror)


async def test_unrequested_response_is_not_used(tmp_path: Path) -> None:
    """Bytes that follow a response on its connection are not taken for the next response."""
    right, wrong = image_manifest(b"right", []), image_manifest(b"wrong", [])

    async def talkative(request: web.BaseRequest, seen: Seen) -> web.StreamResponse:
        response = web.Response(body=right, headers={"Content-Type": OCI_MANIFEST})
        await response.prepare(request)
        await response.write_eof()
        head = f"HTTP/1.1 200 OK\r\nContent-Type: {OCI_MANIFEST}\r\nContent-Length: {len(wrong)}\r\n\r\n"
        if request.transport is not None:
            request.transport.write(head.encode() + wrong)
        return response

    async with Site(talkative) as site:
        config = configured(tmp_path, {"docker.io": site.url})
        async with serving(config) as mirror:
            for number in range(5):
                reply = await get(mirror.address, f"/v2/docker.io/{X}/manifests/{number}")
                assert reply.body == right
