"""A mirror that starts on an empty, read-only folder: it passes through, and reports one kind of fault."""

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from mirror import service
from tests.disks import MIB, mount, mounted
from tests.fakes.registry import FakeRegistry
from tests.running import mirror_of
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
            recover, count = mirror.service._store.recover, 0

            async def counted() -> None:
                nonlocal count
                await recover()
                count += 1
                if count == 3:
                    rounds.set()

            monkeypatch.setattr(mirror.service._store, "recover", counted)
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
