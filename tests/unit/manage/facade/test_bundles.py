"""Bundles through the facade."""

import asyncio
from contextlib import closing
from pathlib import Path

from mirror.bundle.archives.opening import open_archive
from mirror.manage.management import Management
from tests.fakes.cached import Y, open_folder, put_image
from tests.unit.manage.carry.bundles import exported, selected
from tests.unit.manage.carry.carrying import options


async def test_management_carries_images(management: Management, tmp_path: Path) -> None:
    """A command would export what is collected here; an import reads in the facade's thread."""
    management.folder.reader.trusts_unknown = True  # as where no upstream has an account
    found = await management.exports.collect(selected("x:1"))
    assert len(found.contents.images) == 1
    assert len(await management.exports.have()) == 9

    def bundle() -> Path:
        with closing(open_folder(tmp_path / "other")) as other:
            put_image(other, Y, "2", [b"carried"])
            return exported(other, tmp_path / "lab.tar", "quay.io/org/y:2")[0]

    file, counted = await asyncio.to_thread(bundle), list[int]()
    run = await management.imports.begin(options())
    with await asyncio.to_thread(file.open, "rb") as stream, open_archive(stream) as archive:
        await management.imports.read(run, archive, "lab.tar", counted.append)
        results = [each.state async for each in management.imports.finish(run)]
    assert results == ["imported"]
    assert sum(counted) > 7
