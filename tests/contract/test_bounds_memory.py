"""Memory after failing requests: no bytes of what the upstream sent."""

import asyncio
import gc
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest
from aiohttp import web

from mirror.oci.digest import Digest
from mirror.upstream.errors import AnswerTooLong
from mirror.upstream.registry_client import MAX_TAGS_BYTES
from tests.fakes.site import Handler, Seen, Site, hang_up
from tests.fakes.upstream import FakeTime, registry_at
from tests.running import configured, serving
from tests.wire import get

pytestmark = pytest.mark.slow

MIB = 1024 * 1024
REQUESTS = 6


@pytest.fixture
def uncollected() -> Iterator[None]:
    """Memory is counted, and the garbage collector does not run: a cycle stays where it is."""
    gc.collect()
    gc.disable()
    tracemalloc.start()
    yield
    tracemalloc.stop()
    gc.enable()


async def too_long(request: web.BaseRequest, seen: Seen) -> web.StreamResponse:
    """Answer with 9 MiB of unannounced length."""
    response = web.StreamResponse(headers={"Content-Type": "application/json"})
    await response.prepare(request)
    for _ in range(9):
        await response.write(b" " * MIB)
    return response


async def broken(request: web.BaseRequest, seen: Seen) -> web.StreamResponse:
    """Announce 3 MiB, send 2, and close."""
    response = web.StreamResponse(headers={"Content-Length": str(3 * MIB)})
    await response.prepare(request)
    await response.write(b"x" * (2 * MIB))
    await hang_up(request)


@pytest.mark.usefixtures("uncollected")
@pytest.mark.parametrize("answer", [too_long, broken])
@pytest.mark.parametrize("kind", ["tags/list", "manifests/t", "manifests/{}", "blobs/{}", "referrers/{}"])
async def test_failing_answers_leave_no_bytes_behind(kind: str, answer: Handler, tmp_path: Path) -> None:
    """Answers that are too long or break, asked for again and again: their bytes are freed at once."""
    digest = Digest.of(b"absent")
    async with Site(answer) as site:
        config = configured(tmp_path, {"u.test": site.url}, fill={"attempts": 1})
        async with serving(config) as mirror:
            for number in range(REQUESTS + 1):
                if number == 1:  # what is made once is made
                    before = tracemalloc.get_traced_memory()[0]
                reply = await get(mirror.address, f"/v2/u.test/a{number}/{kind.format(digest)}")
                # A list of referrers that cannot be had is an empty one, labelled.
                empty = kind.startswith("referrers/") and "warning" in reply.headers
                assert reply.status != 200 or not reply.complete or (empty and len(reply.body) < 200)
            await asyncio.sleep(0)
            grown = tracemalloc.get_traced_memory()[0] - before
    assert grown < 2 * MIB


async def test_announced_length_above_the_limit_is_not_read() -> None:
    """A Content-Length above the limit is refused before a byte of the body is asked for."""
    sent = asyncio.Event()

    async def announce(request: web.BaseRequest, seen: Seen) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Length": str(MAX_TAGS_BYTES + 1)})
        await response.prepare(request)
        await sent.wait()
        return response

    async with Site(announce) as site, registry_at(site.url) as registry:
        with pytest.raises(AnswerTooLong, match="longer than 8388608 bytes"):
            await registry.tags("a", "")
        sent.set()


async def test_too_long_list_is_not_asked_for_again_for_a_while() -> None:
    """Finding out that a list is too long costs megabytes: the next request gets the error at once."""
    time = FakeTime()
    async with Site(too_long) as site, registry_at(site.url, time) as registry:
        for _ in range(3):
            with pytest.raises(AnswerTooLong):
                await registry.tags("a", "")
        assert len(site.log) == 1
        with pytest.raises(AnswerTooLong):
            await registry.tags("b", "")
        time.now += 61
        with pytest.raises(AnswerTooLong):
            await registry.tags("a", "")
        assert len(site.log) == 3
