"""`pin`, `unpin`, `pins` and `warm` at a running mirror."""

import asyncio
from pathlib import Path

import pytest

from mirror.cli.remote import keeping
from tests.remote import asked, holding

pytestmark = pytest.mark.usefixtures("own_logging")


async def test_pins_of_a_running_mirror(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A pin is made, listed and removed; a pattern is refused before anything is asked."""
    async with holding(tmp_path) as (_, remote):
        await asked(remote, keeping.pin, "alpine:3.20", ["linux/amd64"], fetch=False)
        assert "pinned docker.io/library/alpine:3.20" in capsys.readouterr().out
        await asked(remote, keeping.pins, as_json=False)
        assert "linux/amd64" in capsys.readouterr().out
        await asked(remote, keeping.unpin, "alpine:3.20")
        assert "unpinned docker.io/library/alpine:3.20" in capsys.readouterr().out
        with pytest.raises(SystemExit, match="1"):
            await asked(remote, keeping.unpin, "alpine:3.20")
        assert "there is no pin" in capsys.readouterr().err
        with pytest.raises(SystemExit, match="2"):
            await asked(remote, keeping.pin, "alpine:3.*", [], fetch=False)


async def test_warm_lets_the_mirror_fetch(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The mirror fetches by itself; a list that it fetches on a schedule is shown."""
    async with holding(tmp_path) as (mirror, remote):
        await asked(remote, keeping.warm, ["alpine:3.20"], ["all"])
        assert "fetching docker.io/library/alpine:3.20" in capsys.readouterr().out
        while (await mirror.api("image?reference=docker.io/library/alpine:3.20"))["missing"]:
            await asyncio.to_thread(lambda: None)
        await asked(remote, keeping.warm_status, as_json=False)
        assert "no [[warm]] tables" in capsys.readouterr().err
