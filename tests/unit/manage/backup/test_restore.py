"""Backups of a running mirror with a hosted registry, and what becomes of them."""

import asyncio
import io
import os
import shutil
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from mirror.access.tokens import TokenEntry
from mirror.manage.backup import restore as restores
from mirror.manage.backup.layout import HEAD, BackupContents, BackupError
from mirror.manage.backup.restore import COMPLETE, check_target, move_up, restore, verify
from mirror.manage.backup.writer import write_backup
from mirror.manage.carry.export import OutputFolder
from mirror.oci.digest import Digest
from mirror.oci.image_pattern import ImagePattern, Pin
from mirror.oci.reference import Tag
from mirror.store.cache_dir import CacheDirectory
from mirror.store.errors import StoreError
from mirror.store.metadata.savings_book import Amounts, SavingsBook
from mirror.store.recovery import RESTORING
from mirror.store.tokens.token_store import TokenStore
from mirror.util.callbacks import ignore
from tests.hosting import APP, CONFIG, OTHER, hosted_of, manifest_of, office, push_image
from tests.wire import Wire

TOKEN = TokenEntry(name="ci", sha256="ab" * 32, created=1.0)
LARGE = os.urandom(1_000_000)


async def filled(cache: Path) -> Digest:
    """Make a folder with everything that a backup has; return the digest of an image."""
    async with office(cache) as running:
        registry = hosted_of(running)
        await push_image(registry, OTHER, "v1", [b"shared"])
        digest = await push_image(registry, APP, "1.0", [b"shared", LARGE])

        def more() -> None:
            folder = registry.store.folder
            folder.pinning.pin(Pin(ImagePattern.printed("docker.io/library/alpine:3")))
            TokenStore(cache, folder.epoch).add(TOKEN)
            SavingsBook(cache).add({(20_000, "docker.io", "library/alpine"): Amounts(requests=7)})
            (cache / "warm-runs").write_text("{}\n")
            folder.recovery.drop_connections()

        await registry.store.read(more)
        return digest


def backed_up(cache: Path) -> bytes:
    """Return the backup of a folder."""
    folder, out = CacheDirectory(cache), io.BytesIO()
    try:
        write_backup(folder, out, "-", ignore)
    finally:
        folder.close()
    return out.getvalue()


def restored(data: bytes, path: Path) -> BackupContents | None:
    return restore(io.BytesIO(data), path)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache folder with everything."""
    folder = tmp_path_factory.mktemp("source") / "cache"
    asyncio.run(filled(folder))
    return folder


@pytest.fixture(scope="module")
def data(source: Path) -> bytes:
    """The backup of that folder."""
    return backed_up(source)


@pytest.fixture
def cache(source: Path, tmp_path: Path) -> Path:
    """A copy of the folder, to be spoiled."""
    return shutil.copytree(source, tmp_path / "cache")


def tags_in(path: Path) -> list[str]:
    """Return the tags of the pushed repository in a folder that opens."""
    folder = CacheDirectory(path)
    try:
        return folder.index.tags(APP, "", 9)
    finally:
        folder.close()


async def test_backup_restores_what_was_pushed_and_what_operators_made(tmp_path: Path) -> None:
    """A mirror on the restored folder serves the image byte for byte; pins, tokens and savings are back."""
    digest = await filled(tmp_path / "cache")
    data = await asyncio.to_thread(backed_up, tmp_path / "cache")
    new = tmp_path / "new"
    contents = await asyncio.to_thread(restored, data, new)
    assert contents is not None
    assert (contents.hosted, contents.pins, contents.tokens, contents.missing) == (["office"], 1, 1, [])
    async with office(new) as running, await Wire.open(running.address) as wire:
        wire.send("GET", "/v2/office/app/manifests/1.0", ["Accept: */*"])
        assert (await wire.reply()).body == manifest_of([b"shared", LARGE])
        wire.send("GET", f"/v2/office/app/blobs/{Digest.of(LARGE)}")
        assert (await wire.reply()).body == LARGE
        wire.send("GET", "/v2/office/team/other/tags/list")
        assert b'"v1"' in (await wire.reply()).body
        registry = hosted_of(running)
        manifests = len(manifest_of([b"shared", LARGE])) + len(manifest_of([b"shared"]))
        held = len(CONFIG) + len(b"shared") + len(LARGE) + manifests
        assert await registry.store.room.held(["office"]) == {"office": held}

        def look() -> None:
            folder = registry.store.folder
            assert [str(each.pin.images) for each in folder.pins.all()] == ["docker.io/library/alpine:3"]
            assert TokenStore(new, folder.epoch).all() == [TOKEN]
            assert folder.blobs.retention.retained_among([str(digest)]) == {str(digest)}
            folder.recovery.drop_connections()

        await registry.store.read(look)
        assert await asyncio.to_thread(SavingsBook(new).days, 0) == [(20_000, Amounts(requests=7))]
        # And it takes further pushes, which share what is there.
        await push_image(registry, APP, "1.1", [b"shared"])


def test_backup_has_no_file_of_the_cache(data: bytes) -> None:
    """The cache's own files are not in it."""
    names = [
        line for line in data.split(b"\0") if line.startswith((b"blobs/", b"pins", b"books", b"generation"))
    ]
    assert len([each for each in names if each.startswith(b"blobs/")]) == 5
    assert not [each for each in names if each.startswith((b"books", b"generation"))]


def test_backup_file_is_its_owners_alone_and_replaces_the_last_one(source: Path, tmp_path: Path) -> None:
    """The old file stays until the new one is complete; what a killed backup left is dropped."""
    (tmp_path / "mirror.tar").write_bytes(b"old")
    (tmp_path / "mirror.tar.part").write_bytes(b"left by a kill" * 1_000_000)
    (tmp_path / "mirror.tar.part").chmod(0o666)
    folder = CacheDirectory(source)

    def look(_: int) -> None:
        assert (tmp_path / "mirror.tar").read_bytes() == b"old"
        assert stat.S_IMODE((tmp_path / "mirror.tar.part").stat().st_mode) == 0o600
        with pytest.raises(BackupError, match="another backup"):
            write_backup(folder, OutputFolder(tmp_path, 0o600), "mirror.tar", ignore)

    try:
        write_backup(folder, OutputFolder(tmp_path, 0o600), "mirror.tar", look)
    finally:
        folder.close()
    assert sorted(os.listdir(tmp_path)) == ["mirror.tar"]
    assert stat.S_IMODE((tmp_path / "mirror.tar").stat().st_mode) == 0o600
    with (tmp_path / "mirror.tar").open("rb") as file:
        assert verify(file).blobs == 5


async def test_backup_is_of_one_moment_while_images_are_pushed_and_deleted(tmp_path: Path) -> None:
    """All blobs of the rows are in the archive, whatever is deleted and pushed during the copy."""
    async with office(tmp_path / "cache") as running:
        registry = hosted_of(running)
        # Blobs are written in the order of their digests: this one is not the first, which is open already.
        large = next(
            each for each in map(bytes, range(70_000, 71_000)) if Digest.of(each) > Digest.of(CONFIG)
        )
        digest = await push_image(registry, APP, "old", [large])
        loop = asyncio.get_running_loop()
        seen: list[int] = []

        async def change() -> None:
            await registry.store.delete_manifest(APP, digest, lambda _: False)
            for each in (Digest.of(large), digest):
                await registry.store.delete_blob(APP, each)
            await registry.store.read(registry.store.folder.blobs.remove, Digest.of(large))
            await push_image(registry, APP, "new", [b"of the new one"])

        def on_bytes(count: int) -> None:
            seen.append(count)
            if len(seen) == 2:  # the rows were read, and the first blob is opened
                asyncio.run_coroutine_threadsafe(change(), loop).result(60)

        def write() -> bytes:
            folder, out = CacheDirectory(tmp_path / "cache"), io.BytesIO()
            try:
                write_backup(folder, out, "-", on_bytes)
            finally:
                folder.close()
            return out.getvalue()

        data = await asyncio.to_thread(write)
    await asyncio.to_thread(restored, data, tmp_path / "new")
    async with office(tmp_path / "new") as running:
        registry = hosted_of(running)
        assert await registry.store.tags(APP, "", 9) == ["new"]
        entry = await registry.store.tag(APP, Tag("new"))
        assert entry is not None
        assert (await registry.store.open_blob(APP, Digest.of(b"of the new one"))).data == b"of the new one"


def test_backup_without_a_lost_blob_says_so(cache: Path, tmp_path: Path) -> None:
    """The rest is written; the archive names what it lacks, and is restored."""
    (path,) = (cache / "blobs/sha256").glob(f"*/{Digest.of(b'shared').encoded[2:]}.*")
    path.unlink()
    contents = restored(backed_up(cache), tmp_path / "new")
    assert contents is not None
    assert contents.missing == [str(Digest.of(b"shared"))]
    assert tags_in(tmp_path / "new") == ["1.0"]


def test_backup_with_a_corrupt_blob_is_none(cache: Path) -> None:
    """The blob goes to quarantine, and the next backup says that it is missing."""
    (path,) = (cache / "blobs/sha256").glob(f"*/{Digest.of(LARGE).encoded[2:]}.*")
    path.chmod(0o600)
    path.write_bytes(bytes(len(LARGE)))
    with pytest.raises(BackupError, match="quarantine"):
        backed_up(cache)
    assert verify(io.BytesIO(backed_up(cache))).missing == [str(Digest.of(LARGE))]


@pytest.mark.parametrize(
    "spoil",
    [
        lambda data: data[:-1024],
        lambda data: data[: len(data) // 2],
        lambda data: data[:700],
        lambda data: b"",
        lambda data: data.replace(b"shared", b"Shared"),
        lambda data: data.replace(b"tag:office", b"tag:OFFICE"),
        lambda data: data.replace(b'"ci"', b'"no"'),
        lambda data: data.replace(b'"blobs":5', b'"blobs":6'),
        lambda data: data.replace(b'"format":1', b'"format":2'),
        lambda data: data.replace(b'"layout":1', b'"layout":9'),
        lambda data: data.replace(HEAD.encode(), b"registry-mirror.json".ljust(len(HEAD), b"\0")),
        lambda data: data.replace(b"warm-runs\0\0", b"../../etc/x"),
        lambda data: data.replace(b"warm-runs\0", b"generation"),
        lambda data: data + b"more" * 128,
    ],
)
def test_restore_keeps_nothing_of_a_wrong_backup(
    data: bytes, tmp_path: Path, spoil: Callable[[bytes], bytes]
) -> None:
    """Cut short, changed, of a newer version, or something else: an error, and no folder."""
    wrong = spoil(data)
    assert wrong != data
    with pytest.raises(BackupError):
        restored(wrong, tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_restore_refuses_a_folder_with_anything_in_it(source: Path, data: bytes, tmp_path: Path) -> None:
    with pytest.raises(BackupError, match="has something in it"):
        restored(data, source)
    (tmp_path / "lost+found").mkdir(parents=True)  # a new file system
    restored(data, tmp_path)
    with pytest.raises(BackupError, match="has something in it"):
        check_target(tmp_path)


@pytest.mark.parametrize("when", ["while it reads", "before the moves", "between two moves", "at the end"])
def test_restore_goes_on_after_a_kill(
    data: bytes, tmp_path: Path, when: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No mirror starts on half a folder; the same command makes a whole one."""
    new = tmp_path / "new"
    staging = new / RESTORING
    if when == "while it reads":
        (staging / "blobs").mkdir(parents=True)
    else:
        with monkeypatch.context() as patch:
            patch.setattr(restores, "move_up", ignore)
            restored(data, new)
        first = sorted(each for each in staging.iterdir() if each.name != COMPLETE)
        moved = {"before the moves": 0, "between two moves": 3}.get(when, len(first))
        for each in first[:moved]:
            each.rename(new / each.name)
    with pytest.raises(StoreError, match="not restored to its end"):
        CacheDirectory(new)
    found = restored(data, new)
    assert (found is None) == (when != "while it reads")
    assert not (new / RESTORING).exists()
    assert tags_in(new) == ["1.0"]


def test_restore_killed_after_its_last_move_is_complete(data: bytes, tmp_path: Path) -> None:
    """An empty folder `restoring` is no obstacle."""
    restored(data, tmp_path / "new")
    (tmp_path / "new" / RESTORING).mkdir()
    assert tags_in(tmp_path / "new") == ["1.0"]
    assert not (tmp_path / "new" / RESTORING).exists()


def test_restore_needs_room(tmp_path: Path) -> None:
    """An archive that is larger than the room on the disk is refused before anything is written."""
    with (tmp_path / "huge.tar").open("w+b") as file:
        file.truncate(min(2**42, 2 * shutil.disk_usage(tmp_path).total))
        with pytest.raises(BackupError, match="has room for"):
            restore(file, tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_restore_may_repeat_its_moves(tmp_path: Path) -> None:
    staging = tmp_path / RESTORING
    (staging / "blobs").mkdir(parents=True)
    (staging / COMPLETE).touch()
    move_up(staging)
    assert [each.name for each in tmp_path.iterdir()] == ["blobs"]
