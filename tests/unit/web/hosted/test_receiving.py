"""Bodies into uploads: pieces in order, checks on the way, a full disk."""

import asyncio
import errno
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, cast

import pytest

from mirror.config.hosting.hosted import HostedSettings
from mirror.hosted.uploads import Uploads
from mirror.oci.digest import Digest
from mirror.oci.errors import RegistryError
from mirror.oci.reference import Repository
from mirror.store.partial.upload import UploadSession
from mirror.store.store import Store
from mirror.web.hosted.receiving import OVERLAPPING, Receiver
from tests.unit.web.hosted.test_body import pushed

APP = Repository("office", "app")
DATA = bytes(range(256)) * 20_000


@pytest.fixture
async def uploads(tmp_path: Path) -> AsyncIterator[Uploads]:
    store = await Store.open(tmp_path / "cache")
    found = Uploads(store, [HostedSettings(name="office")])
    yield found
    found.close()
    await store.close()


async def accept(_: int) -> None:
    """Take every size."""


async def received(uploads: Uploads, receiver: Receiver, length: int | None = len(DATA)) -> Digest:
    body, _ = pushed(length)
    async with uploads.begin(APP) as session:
        taking = asyncio.ensure_future(receiver.receive(session, body, accept))
        for start in range(0, len(DATA), 70_000):
            body.feed(DATA[start : start + 70_000])
            await asyncio.sleep(0)
        await taking
        assert session.offset == len(DATA)
        return (await uploads.finish(session, Digest.of(DATA))).digest


async def test_body_is_written_piece_by_piece(uploads: Uploads) -> None:
    counted: list[int] = []
    assert await received(uploads, Receiver(uploads, counted.append)) == Digest.of(DATA)
    assert sum(counted) == len(DATA)
    assert len(counted) > 1


async def test_many_bodies_at_once_are_written_in_smaller_pieces(uploads: Uploads) -> None:
    counted: list[int] = []
    receiver = Receiver(uploads, counted.append)
    found = await asyncio.gather(*(received(uploads, receiver) for _ in range(2 * OVERLAPPING)))
    assert set(found) == {Digest.of(DATA)}


async def test_body_that_is_refused_is_not_read(uploads: Uploads) -> None:
    async def refuse(_: int) -> None:
        raise RegistryError.__new__(RegistryError)

    body, socket = pushed(10, awaits=True)
    async with uploads.begin(APP) as session:
        with pytest.raises(RegistryError):
            await Receiver(uploads, int).receive(session, body, refuse)
    assert socket.written == b""


async def test_body_without_room_is_refused_before_it_is_read(uploads: Uploads) -> None:
    body, socket = pushed(1 << 60, awaits=True)
    async with uploads.begin(APP) as session:
        with pytest.raises(RegistryError) as refused:
            await Receiver(uploads, int).receive(session, body, accept)
    assert (refused.value.status, refused.value.code) == (507, "DENIED")
    assert socket.written == b""


async def test_body_onto_a_disk_that_fills_up_ends_with_a_clear_error(
    uploads: Uploads, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(UploadSession, "_write", full)
    body, _ = pushed(10)
    body.feed(b"0123456789")
    async with uploads.begin(APP) as session:
        with pytest.raises(RegistryError) as refused:
            await Receiver(uploads, int).receive(session, body, accept)
    assert refused.value.status == 507
    assert "has no room" in refused.value.message
    assert cast(Any, body).is_complete
