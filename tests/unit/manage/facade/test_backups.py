"""Backups through the facade."""

import io

from mirror.manage.management import Management


async def test_backup_of_an_event_loop(management: Management) -> None:
    """The plan and the archive tell the same; nothing of the upstreams' content is in them."""
    plan = await management.backups.plan()
    target, counted = io.BytesIO(), list[int]()
    contents = await management.backups.write(target, "-", counted.append)
    assert (plan.blobs, plan.pins) == (contents.blobs, contents.pins) == (0, 0)
    assert sum(counted) == len(target.getvalue()) > 0
