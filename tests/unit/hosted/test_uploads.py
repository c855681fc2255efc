"""Uploads for the event loop: one request at a time, room, and expiry."""

import asyncio
import errno
import os
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from mirror.config.hosting.hosted import HostedSettings
from mirror.hosted import uploads as module
from mirror.hosted.uploads import NoRoomForUpload, Uploads
from mirror.oci.digest import Digest
from mirror.oci.reference import Repository
from mirror.store.partial.upload import UploadInUse, UploadSession, UploadUnknown
from mirror.store.store import Store

APP = Repository("office", "app")


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    opened = await Store.open(tmp_path / "cache")
    yield opened
    await opened.close()


@pytest.fixture
async def uploads(store: Store) -> AsyncIterator[Uploads]:
    found = Uploads(store, [HostedSettings(name="office", upload_expiry=60)])
    yield found
    found.close()


async def test_upload_waits_for_the_request_before(uploads: Uploads) -> None:
    async with uploads.begin(APP) as session:
        waiting = asyncio.ensure_future(_offset(uploads, session.id))
        await uploads.end_append(uploads.start_append(session, [b"abc"]), session, [b"abc"])
        assert not waiting.done()
    assert await waiting == 3


async def _offset(uploads: Uploads, session_id: str) -> int:
    async with uploads.resume(APP, session_id) as session:
        return session.offset


async def test_upload_that_stays_in_use_is_refused(uploads: Uploads, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BUSY_SECONDS", 0.0)
    async with uploads.begin(APP) as session:
        with pytest.raises(UploadInUse):
            await _offset(uploads, session.id)


async def test_upload_goes_on_once_there_is_room(
    uploads: Uploads, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A write that ends in the middle goes on behind what was written."""
    write, made = UploadSession._write, list[int]()

    def half(self: UploadSession, offset: int, parts: list[bytes]) -> None:
        write(self, offset, [b"".join(parts)[:3]])
        raise OSError(errno.ENOSPC, "No space left on device")

    async def make_room(missing: int = 0) -> None:
        made.append(missing)
        monkeypatch.setattr(UploadSession, "_write", write)

    monkeypatch.setattr(UploadSession, "_write", half)
    monkeypatch.setattr(store.room, "make_room", make_room)
    async with uploads.begin(APP) as session:
        parts = [b"01", b"2345", b"6789"]
        await uploads.end_append(uploads.start_append(session, parts), session, parts, missing=100)
        assert (await uploads.finish(session, Digest.of(b"0123456789"))).size == 10
    assert made == [107]


async def test_room_for_what_can_never_fit_is_refused(uploads: Uploads) -> None:
    await uploads.check_room(1000)
    with pytest.raises(NoRoomForUpload):
        await uploads.check_room(1 << 60)


async def test_uploads_that_no_client_continues_expire(uploads: Uploads) -> None:
    async with uploads.begin(APP) as old, uploads.begin(APP) as new:
        pass
    files = await asyncio.to_thread(lambda: list(uploads.files.folder.iterdir()))
    (path,) = (each for each in files if old.id in each.name)
    await asyncio.to_thread(os.utime, path, (time.time() - 100, time.time() - 100))
    await uploads.expire()
    with pytest.raises(UploadUnknown):
        await _offset(uploads, old.id)
    assert await _offset(uploads, new.id) == 0
