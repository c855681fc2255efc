"""`ls` and `rm` at a running mirror."""

import json
from pathlib import Path

import pytest

from mirror.cli.remote import images
from tests.remote import asked, holding

pytestmark = pytest.mark.usefixtures("own_logging")


async def test_images_of_a_running_mirror_are_listed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Patterns are as of `ls` with a folder."""
    async with holding(tmp_path, tags=3) as (_, remote):
        await asked(remote, images.list_images, "alpine", as_json=True)
        found = json.loads(capsys.readouterr().out)
        assert [each["tag"] for each in found] == ["3.20", "3.21", "3.22"]
        await asked(remote, images.list_images, "*/alp*:3.2[12]", as_json=False)
        lines = capsys.readouterr().out.splitlines()
        assert ["3.20" in each for each in lines].count(True) == 0
        assert sum("docker.io/library/alpine:3.2" in each for each in lines) == 2
        await asked(remote, images.list_images, "nginx", as_json=False)
        assert "No tag there matches nginx" in capsys.readouterr().err


async def test_images_of_a_running_mirror_are_removed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A plan removes nothing; a pinned image stays, unless it is forced."""
    async with holding(tmp_path, tags=3) as (mirror, remote):
        found = await asked(remote, images.plan_removal, "alpine:*", forced=False, quiet=False)
        assert found == [f"docker.io/library/alpine:3.{number}" for number in (20, 21, 22)]
        assert "would remove docker.io/library/alpine:3.20" in capsys.readouterr().out
        pinned = {"reference": found[2], "platforms": []}
        await asked(remote, lambda at: at.client.change("POST", "pins", pinned))
        assert await asked(remote, images.plan_removal, "alpine:*", forced=False, quiet=True) == found[:2]
        await asked(remote, images.remove_images, found[:2], forced=False, as_json=True)
        assert json.loads(capsys.readouterr().out)["removed"] == found[:2]
        with pytest.raises(SystemExit, match="1"):
            await asked(remote, images.plan_removal, "alpine:*", forced=False, quiet=True)
        assert "they are pinned" in capsys.readouterr().err
        await asked(remote, images.remove_images, found[2:], forced=True, as_json=False)
        assert "removed docker.io/library/alpine:3.22" in capsys.readouterr().out
        assert (await mirror.api("images"))["rows"] == []


async def test_image_of_a_running_mirror_is_removed_by_its_digest(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """An image with a tag is counted, and removed, once."""
    async with holding(tmp_path) as (mirror, remote):
        (row,) = (await mirror.api("images"))["rows"]
        wanted = f"alpine@{row['digest']}"
        found = await asked(remote, images.plan_removal, wanted, forced=False, quiet=False)
        assert found == ["docker.io/library/alpine:3.20"]
        assert capsys.readouterr().err.startswith("1 image, ")
        await asked(remote, images.remove_images, found, forced=False, as_json=False)
        assert capsys.readouterr().out == "removed docker.io/library/alpine:3.20\n"
        assert (await mirror.api("images"))["rows"] == []
