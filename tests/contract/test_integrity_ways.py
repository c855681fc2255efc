"""Upstreams that are slow without end, or lead astray: by redirects, tokens, pages, and unasked answers."""

import asyncio
from functools import partial
from pathlib import Path

import pytest
from aiohttp import web

from mirror.oci.manifest import OCI_MANIFEST
from mirror.transfer import plan
from mirror.upstream.http.transport import Transport
from tests.contract.integrity import (
    ERROR,
    KINDS,
    RIGHT,
    SHORT,
    SMALL,
    X,
    expect,
    nothing_is_left,
    nothing_wrong_is_kept,
    prepared,
    prepared_in_both,
    two_sources,
    waited,
    well_again,
)
from tests.fakes.access import TokenAuth
from tests.fakes.content import image_manifest
from tests.fakes.faults import Fault, Gate
from tests.fakes.registry import FakeRegistry
from tests.fakes.site import Seen, Site
from tests.fakes.tls import Authority
from tests.running import configured, mirror_of, serving
from tests.wire import ask, get

pytestmark = pytest.mark.usefixtures("no_pauses")

# One byte at a time: each comes in time, and the end never.
SLOW = {
    "silent before the head": lambda what: Fault(hold=Gate(), after=-1),
    "silent in the body": lambda what: Fault(hold=Gate(), after=9),
    "dripping head": lambda what: Fault(raw=b"HTTP/1.1 200 OK\r\nX: " + b"x" * 10_000, drip=0.02),
    "dripping body": lambda what: Fault(drip=0.02),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("slow", SLOW)
async def test_slow_answers(fake: FakeRegistry, tmp_path: Path, slow: str, kind: str) -> None:
    """An error in time, or a short body; who comes later does not join what never ends."""
    fill = {"attempts": 1}
    async with mirror_of(fake, tmp_path, upstream={"read_timeout": 0.2}, fill=fill) as mirror:
        what = await prepared(kind, fake, mirror)
        fake.fault(SLOW[slow](what), what.match, "GET", 99)
        seen = SHORT if kind == "large" and "body" in slow else ERROR
        expect(await get(mirror.address, what.path), what, seen)
        await nothing_wrong_is_kept(mirror)
        well_again(fake)
        waited(mirror)
        expect(await get(mirror.address, what.path), what, RIGHT)
        await nothing_is_left(mirror)


@pytest.mark.parametrize("times", [1, 2])
async def test_a_large_blob_that_falls_silent(fake: FakeRegistry, tmp_path: Path, times: int) -> None:
    """It is asked for again, and goes on where it stopped."""
    async with mirror_of(fake, tmp_path, upstream={"read_timeout": 0.2}) as mirror:
        what = await prepared("large", fake, mirror)
        fake.fault(Fault(hold=Gate(), after=9), what.match, "GET", times)
        expect(await get(mirror.address, what.path), what, RIGHT)
        await nothing_is_left(mirror)


@pytest.mark.parametrize("speed", [0.0, 1e8], ids=["unknown", "known"])
@pytest.mark.parametrize("sources", [1, 2])
async def test_a_large_blob_that_drips(
    fake: FakeRegistry,
    other: FakeRegistry,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    sources: int,
    speed: float,
) -> None:
    """It is asked for again, elsewhere if there is somewhere else, though each of its bytes comes in time."""
    monkeypatch.setattr(plan, "LOW_SPEED_SECONDS", 0.3)
    async with two_sources(fake, other, tmp_path) if sources == 2 else mirror_of(fake, tmp_path) as mirror:
        what = await prepared_in_both("large", fake, other, mirror)
        for source in mirror.service._upstreams["docker.io"].sources:
            source.health.speed = speed
        # Without end: where it is for ever, the test does not end in its time.
        fake.fault(Fault(drip=0.02), what.match, "GET", times=1 if sources == 1 else 99)
        expect(await get(mirror.address, what.path), what, RIGHT)
        assert other.requests("GET", what.match) == sources - 1
        await nothing_is_left(mirror)


async def test_a_slow_line_is_served(
    fake: FakeRegistry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However often it is asked again because of that: each byte comes once, and the end comes."""
    monkeypatch.setattr(plan, "LOW_SPEED_SECONDS", 0.01)
    async with mirror_of(fake, tmp_path) as mirror:
        what = await prepared("large", fake, mirror)
        fake.piece = 128 * 1024
        fake.fault(Fault(drip=0.04), what.match, "GET", times=99)
        expect(await get(mirror.address, what.path), what, RIGHT)
        assert 1 < fake.requests("GET", what.match) < 9
        await nothing_is_left(mirror)


@pytest.mark.parametrize("kind", KINDS)
async def test_a_token_that_drips(fake: FakeRegistry, tmp_path: Path, kind: str) -> None:
    """It is given up, and those who wait for the same token with it."""
    async with mirror_of(fake, tmp_path, upstream={"read_timeout": 0.2}) as mirror:
        what = await prepared(kind, fake, mirror)
        fake.auth = TokenAuth()
        drip = Fault(raw=b"HTTP/1.1 200 OK\r\nContent-Length: 9000\r\n\r\n" + b" " * 9000, drip=0.02)
        fake.fault(drip, "/token", times=99)
        expect(await get(mirror.address, what.path), what, ERROR)
        await nothing_wrong_is_kept(mirror)
        well_again(fake)
        waited(mirror)
        expect(await get(mirror.address, what.path), what, RIGHT)
        await nothing_is_left(mirror)


@pytest.mark.parametrize("kind", KINDS)
async def test_a_token_of_10_megabytes(fake: FakeRegistry, tmp_path: Path, kind: str) -> None:
    """It is not read to its end, and is no token."""
    async with mirror_of(fake, tmp_path) as mirror:
        what = await prepared(kind, fake, mirror)
        fake.auth = TokenAuth(answer={"expires_in": 300, "padding": "x" * 10_000_000})
        expect(await get(mirror.address, what.path), what, ERROR)
        await nothing_wrong_is_kept(mirror)
        fake.auth.answer = {}
        expect(await get(mirror.address, what.path), what, RIGHT)
        await nothing_is_left(mirror)


@pytest.mark.parametrize("kind", KINDS)
async def test_redirects_without_end(fake: FakeRegistry, tmp_path: Path, kind: str) -> None:
    """Each hop is another one: they are counted."""

    async def on(request: web.BaseRequest, seen: Seen) -> web.StreamResponse:
        return web.Response(status=307, headers={"Location": f"{seen.path}x"})

    async with mirror_of(fake, tmp_path) as mirror, Site(on) as site:
        what = await prepared(kind, fake, mirror)
        fake.fault(Fault(status=307, headers={"Location": site.url}), what.match)
        expect(await get(mirror.address, what.path), what, ERROR)
        assert len(site.log) < 10
        await nothing_wrong_is_kept(mirror)
        expect(await get(mirror.address, what.path), what, RIGHT)
        await nothing_is_left(mirror)


@pytest.mark.parametrize("kind", KINDS)
async def test_redirects_to_a_private_address(
    fake: FakeRegistry, other: FakeRegistry, tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An upstream of the public internet does not make us ask the machines around us."""
    # Loopback is private, so that an upstream in a test is never public by itself.
    monkeypatch.setattr(Transport, "private", False)
    async with mirror_of(fake, tmp_path) as mirror:
        what = await prepared(kind, fake, mirror)
        fake.fault(Fault(status=307, headers={"Location": f"{other.url}{what.path}"}), what.match)
        reply = await get(mirror.address, what.path)
        expect(reply, what, ERROR)
        assert b"private address" in reply.body
        assert other.log == []
        await nothing_wrong_is_kept(mirror)
        expect(await get(mirror.address, what.path), what, RIGHT)
        await nothing_is_left(mirror)


@pytest.mark.parametrize("kind", KINDS)
async def test_redirects_out_of_https(other: FakeRegistry, tmp_path: Path, kind: str) -> None:
    """Nothing is asked for over plain http that an upstream over https sent us to."""
    authority = await asyncio.to_thread(Authority, tmp_path)
    async with FakeRegistry(tls=authority.server_context()) as fake:
        options = {"ca_file": authority.ca_file}
        config = partial(configured, tmp_path / "cache", {"docker.io": fake.url}, upstream=options)
        async with serving(await asyncio.to_thread(config)) as mirror:
            what = await prepared(kind, fake, mirror)
            fake.fault(Fault(status=307, headers={"Location": f"{other.url}{what.path}"}), what.match)
            reply = await get(mirror.address, what.path)
            expect(reply, what, ERROR)
            assert b"leaves https" in reply.body
            assert other.log == []
            await nothing_wrong_is_kept(mirror)
            expect(await get(mirror.address, what.path), what, RIGHT)
            await nothing_is_left(mirror)


@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_a_login_page_opens_nothing(fake: FakeRegistry, tmp_path: Path, method: str) -> None:
    """Whoever answers every HEAD with a page has not said that the repository has the blob (invariant 5)."""
    async with mirror_of(fake, tmp_path) as mirror:
        what = await prepared("small", fake, mirror)
        expect(await get(mirror.address, what.path), what, RIGHT)
        foreign = what.path.replace(X, "library/y")
        page = Fault(status=200, body=b"<html>Sign in</html>", headers={"Content-Type": "text/html"})
        fake.fault(page, "library/y", times=99)
        reply = await ask(mirror.address, method, foreign)
        assert (reply.status, SMALL in reply.body) == (502, False)
        well_again(fake)
        assert (await ask(mirror.address, method, foreign)).status == 404
        fake.add_blob("library/y", SMALL)
        assert (await ask(mirror.address, method, foreign)).status == 200
        await nothing_is_left(mirror)


async def test_an_answer_that_was_not_asked_for(tmp_path: Path) -> None:
    """What follows an answer on its connection is not taken for the answer to the next request."""
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
