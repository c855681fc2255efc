"""A mirror that starts on a read-only folder, new or not, passes through, and reports one kind of fault."""

import asyncio
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from mirror.cli.banner import room
from mirror.service import service
from tests.disks import MIB, mount, mounted, tmpfs
from tests.fakes.registry import FakeRegistry
from tests.running import configured, mirror_of
from tests.wire import get


@pytest.fixture
def read_only(tmp_path: Path) -> Iterator[Path]:
    """Mount an empty file system of 12 MiB read-only."""
    with mounted(tmp_path / "disk", "-t", "tmpfs", "-o", f"ro,size={12 * MIB}", "none") as disk:
        yield disk


@pytest.mark.needs("unshare", root=True)
async def test_read_only_empty_folder_reports_one_kind_of_fault(
    fake: FakeRegistry, read_only: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Housekeeping does not report folders that were never made as removed, and does not repeat itself."""
    monkeypatch.setattr(service, "HOUSEKEEPING_SECONDS", 0.001)
    image = fake.add_image("library/x", "t", [b"0123456789"])
    rounds = asyncio.Event()
    with capture_logs() as lines:
        async with mirror_of(fake, read_only) as mirror:
            recover, count = mirror.service._store.upkeep.recover, 0

            async def counted() -> None:
                nonlocal count
                await recover()
                count += 1
                if count == 3:
                    rounds.set()

            monkeypatch.setattr(mirror.service._store.upkeep, "recover", counted)
            await rounds.wait()
            assert (await get(mirror.address, f"/v2/library/x/blobs/{image.layers[0]}")).body == b"0123456789"
            trouble = json.loads((await get(mirror.address, "/readyz")).body)["cache"]["trouble"]
            await asyncio.to_thread(mount, "-o", "remount,rw", str(read_only))
            await recover()
            assert json.loads((await get(mirror.address, "/readyz")).body)["cache"]["trouble"] == []
    assert {each["kind"] for each in trouble} == {"read_only"}
    faults = [line for line in lines if line["log_level"] in ("warning", "error")]
    assert {line["kind"] for line in faults} == {"read_only"}
    assert len(faults) == 3


@pytest.mark.needs("unshare", root=True)
def test_read_only_start_logs_each_fault_once(read_only: Path) -> None:
    """The banner looks at the folder again, and reports nothing again."""
    config = configured(read_only / "cache", {"docker.io": "http://127.0.0.1:9"})
    with capture_logs() as lines:
        room(config)
    assert lines == []


@pytest.fixture
def writable(tmp_path: Path) -> Iterator[Path]:
    """Mount an empty file system of 12 MiB."""
    with tmpfs(tmp_path / "disk", 12 * MIB) as disk:
        yield disk


@pytest.mark.needs("unshare", root=True)
@pytest.mark.parametrize("options", ["remount,ro", "remount,bind,ro"])
@pytest.mark.parametrize("name", ["cache", "copy"])
async def test_read_only_start_on_an_existing_cache_passes_through(
    fake: FakeRegistry, writable: Path, options: str, name: str
) -> None:
    """SQLite says only that it cannot open the databases; the mirror says that the disk is read-only.

    Also with a copy of a folder in use, whose write-ahead logs were not moved into the databases.
    """
    image = fake.add_image("library/x", "t", [b"0123456789"])
    blob, manifest = f"/v2/library/x/blobs/{image.layers[0]}", "/v2/library/x/manifests/t"
    async with mirror_of(fake, writable / "cache") as mirror:
        assert (await get(mirror.address, blob)).body == b"0123456789"
        await mirror.landed(image.layers[0])
        await asyncio.to_thread(shutil.copytree, writable / "cache", writable / "copy")
    await asyncio.to_thread(mount, "-o", options, str(writable))
    with capture_logs() as lines:
        async with mirror_of(fake, writable / name) as mirror:
            assert (await get(mirror.address, manifest)).body == image.manifest_data
            assert (await get(mirror.address, blob)).body == b"0123456789"
            trouble = json.loads((await get(mirror.address, "/readyz")).body)["cache"]["trouble"]
            await asyncio.to_thread(mount, "-o", options.replace("ro", "rw"), str(writable))
            await mirror.service._store.upkeep.recover()
            assert json.loads((await get(mirror.address, "/readyz")).body)["cache"]["trouble"] == []
            requests = fake.requests("GET", image.layers[0])
            assert (await get(mirror.address, blob)).body == b"0123456789"
            assert fake.requests("GET", image.layers[0]) == requests
    assert {each["kind"] for each in trouble} == {"read_only"}
    faults = [line for line in lines if line["log_level"] in ("warning", "error")]
    assert {line["kind"] for line in faults} == {"read_only"}
