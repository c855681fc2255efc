"""`du` and `gc` at a running mirror."""

import json
from pathlib import Path

import pytest

from mirror.cli.remote import room
from tests.remote import asked, holding

pytestmark = pytest.mark.usefixtures("own_logging")


async def test_room_of_a_running_mirror(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each repository, its upstream, and the whole."""
    async with holding(tmp_path) as (_, remote):
        await asked(remote, room.disk_usage, "*", as_json=False)
        done = capsys.readouterr()
        assert "docker.io/*" in done.out
        assert "docker.io/library/alpine" in done.out
        assert "allowed" in done.err
        await asked(remote, room.disk_usage, "alpine", as_json=True)
        (share,) = json.loads(capsys.readouterr().out)["shares"]
        assert (share["name"], share["is_upstream"]) == ("docker.io/library/alpine", False)
        await asked(remote, room.disk_usage, "nginx", as_json=False)
        assert "No repository there matches nginx" in capsys.readouterr().err


async def test_garbage_of_a_running_mirror(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A collection that finds nothing says so."""
    async with holding(tmp_path) as (_, remote):
        await asked(remote, room.collect_garbage, dry_run=True, as_json=True)
        assert json.loads(capsys.readouterr().out)["dry_run"] is True
        await asked(remote, room.collect_garbage, dry_run=False, as_json=False)
        assert "There is no garbage" in capsys.readouterr().err
