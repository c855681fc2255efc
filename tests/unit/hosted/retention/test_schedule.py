"""Retention in the background: once an hour, told to those who listen."""

from pathlib import Path

import pytest

from mirror.hosted.registry import Change
from mirror.hosted.retention.schedule import FIRST_SECONDS, SWEEP_SECONDS, RetentionSchedule
from tests.hosting import APP, hosted_of, office, push_image


async def test_schedule_sweeps_once_an_hour(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mirror.hosted.retention.rules.YOUNG_SECONDS", 0.0)
    now = 0.0
    async with office(tmp_path / "cache", retention=({"keep_last": 1},)) as mirror:
        registry = hosted_of(mirror)
        assert mirror.service._hosted_upkeep is not None
        assert mirror.service._hosted_upkeep._retention is not None
        schedule = RetentionSchedule(registry, mirror.config.hosted, lambda: now)
        told: list[Change] = []
        for name in ("1", "2"):
            await push_image(registry, APP, name, [name.encode()])
        registry.on_change.append(told.append)
        await schedule.tick()
        assert told == []
        now = FIRST_SECONDS
        await schedule.tick()
        assert [(each.action, each.tag) for each in told] == [("delete", "1")]
        registry.on_change.clear()
        await push_image(registry, APP, "3", [b"3"])
        registry.on_change.append(told.append)
        await schedule.tick()
        assert len(told) == 1
        now += SWEEP_SECONDS
        await schedule.tick()
        assert [each.tag for each in told] == ["1", "2"]


async def test_no_schedule_without_rules(tmp_path: Path) -> None:
    async with office(tmp_path / "cache") as mirror:
        assert mirror.service._hosted_upkeep is not None
        assert mirror.service._hosted_upkeep._retention is None
