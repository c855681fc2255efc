"""Keys of an issuer over time: fetched once for all, kept through outages, forgotten when withdrawn."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from mirror.access.jwt.keys import DOCUMENT_BYTES
from mirror.upstream.errors import Failure, UpstreamError
from mirror.upstream.issuers.key_source import (
    KEPT_SECONDS,
    NOTHING,
    REFRESH_SECONDS,
    RETRY_SECONDS,
    KeySource,
    file_reader,
)
from mirror.util.tasks import Tasks
from tests.fakes.issuer import EC_KEY, jwk, key_set


class Issuer:
    """The other end of a source: its keys by name, or an outage."""

    def __init__(self) -> None:
        self.now = 0.0
        self.names = ["one"]
        self.down = False
        self.fetches = 0
        self.hold: asyncio.Event | None = None

    async def fetch(self) -> bytes:
        self.fetches += 1
        if self.hold is not None:
            await self.hold.wait()
        if self.down:
            raise UpstreamError(Failure.UNREACHABLE, "down")
        return key_set(*({**jwk(EC_KEY, "x"), "kid": name} for name in self.names))

    def source(self, tasks: Tasks) -> KeySource:
        return KeySource("ci", self.fetch, tasks, lambda: self.now)


async def idle(tasks: Tasks) -> None:
    """Wait until no fetch runs."""
    while tasks.running:  # noqa: ASYNC110  # tasks tell nobody of their end
        await asyncio.sleep(0)


async def test_keys_are_fetched_once_for_all_who_wait(tasks: Tasks) -> None:
    issuer = Issuer()
    source = issuer.source(tasks)
    issuer.hold = asyncio.Event()
    waiting = [asyncio.ensure_future(source.keys("one")) for _ in range(5)]
    await asyncio.sleep(0)
    waiting[0].cancel()
    issuer.hold.set()
    found = await asyncio.gather(*waiting, return_exceptions=True)
    assert isinstance(found[0], asyncio.CancelledError)
    assert all(not isinstance(each, BaseException) and each.knows("one") for each in found[1:])
    assert (await source.keys("one")).knows("one")
    assert issuer.fetches == 1


async def test_keys_rotation_is_seen_at_the_first_token_with_the_new_key(tasks: Tasks) -> None:
    """A flood of unknown names costs the issuer one request in ten seconds."""
    issuer = Issuer()
    source = issuer.source(tasks)
    await source.keys("one")
    issuer.names = ["one", "two"]
    for _ in range(100):
        assert not (await source.keys("two")).knows("two")
    assert issuer.fetches == 1
    issuer.now += RETRY_SECONDS
    assert (await source.keys("two")).knows("two")
    for number in range(100):
        await source.keys(f"x{number}")
    assert issuer.fetches == 2


async def test_keys_that_were_withdrawn_are_forgotten(tasks: Tasks) -> None:
    """The set is fetched again in the background; the request that starts the fetch does not wait."""
    issuer = Issuer()
    source = issuer.source(tasks)
    await source.keys("one")
    issuer.names, issuer.now = ["two"], REFRESH_SECONDS
    assert (await source.keys("one")).knows("one")
    await idle(tasks)
    assert issuer.fetches == 2
    issuer.now += RETRY_SECONDS
    assert not (await source.keys("one")).knows("one")


async def test_keys_are_kept_through_an_outage(tasks: Tasks) -> None:
    """The log says so once, and again when it is over; after a day nothing is believed any more."""
    issuer = Issuer()
    source = issuer.source(tasks)
    await source.keys("one")
    issuer.down = True
    with capture_logs() as logs:
        for _ in range(3):
            issuer.now += REFRESH_SECONDS
            assert (await source.keys("one")).knows("one")
            await idle(tasks)
        issuer.now = KEPT_SECONDS
        assert await source.keys("one") is NOTHING
        issuer.down, issuer.now = False, KEPT_SECONDS + RETRY_SECONDS
        assert (await source.keys("one")).knows("one")
    events = [each["event"] for each in logs]
    assert events == ["keys of an issuer not available", "keys of an issuer available again"]


async def test_keys_of_an_issuer_that_was_never_there(tasks: Tasks) -> None:
    """No key is known, and requests do not wait for each other's attempts."""
    issuer = Issuer()
    issuer.down = True
    source = issuer.source(tasks)
    for _ in range(3):
        assert await source.keys("one") is NOTHING
        assert await source.keys(None) is NOTHING
    assert issuer.fetches == 1


async def test_keys_wrong_document_leaves_the_last_one(tasks: Tasks) -> None:
    issuer = Issuer()
    source = issuer.source(tasks)
    await source.keys("one")
    issuer.names, issuer.now = [], REFRESH_SECONDS
    with capture_logs() as logs:
        await source.keys("one")
        await idle(tasks)
    assert (await source.keys("one")).knows("one")
    assert "no key" in logs[0]["reason"]


async def test_keys_of_a_file(tmp_path: Path) -> None:
    """The file is read at each fetch; a file that is too long is none."""
    path = tmp_path / "keys"
    read: Callable[[], Awaitable[bytes]] = file_reader(path)
    await asyncio.to_thread(path.write_bytes, b"one")
    assert await read() == b"one"
    await asyncio.to_thread(path.write_bytes, b"x" * (DOCUMENT_BYTES + 1))
    with pytest.raises(ValueError, match="longer"):
        await read()
