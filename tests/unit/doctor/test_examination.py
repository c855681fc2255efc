"""The whole examination: local findings, and those of all upstreams."""

import asyncio
from pathlib import Path

from mirror.doctor.examination import examine_machine, examine_upstreams
from mirror.doctor.finding import Diagnosis, Severity
from tests.fakes.registry import FakeRegistry
from tests.running import configured


async def test_upstreams_are_examined_with_their_sources(fake: FakeRegistry, tmp_path: Path) -> None:
    """A source is examined beside the upstream's own endpoint, and one fault stops no other examination."""
    fake.add_image("org/app", "2", [b"x"])
    config = configured(
        tmp_path,
        {"docker.io": fake.url, "down.test": "http://127.0.0.1:1"},
        upstream_of={"docker.io": {"sources": [{"url": "http://127.0.0.1:1"}]}},
    )
    found = [each async for some in examine_upstreams(config, {"docker.io": "org/app:2"}) for each in some]
    by: dict[str, list[Diagnosis]] = {}
    for each in found:
        by.setdefault(each.subject, []).append(each)
    assert [each.severity for each in by["docker.io"]] == [Severity.FINE, Severity.FINE]
    assert by["docker.io at http://127.0.0.1:1"][0].severity is Severity.ERROR
    assert by["down.test"][0].severity is Severity.ERROR
    chosen = [some async for some in examine_upstreams(config, names=["down.test"])]
    assert [each.subject for each in chosen[0]] == ["down.test"]


async def test_offline_mirror_asks_no_upstream(fake: FakeRegistry, tmp_path: Path) -> None:
    """`server.offline` holds for the doctor too."""
    config = configured(tmp_path, {"docker.io": fake.url}, server={"offline": True})
    found = [each async for some in examine_upstreams(config) for each in some]
    assert [each.severity for each in found] == [Severity.FINE]
    assert fake.log == []


async def test_machine_is_examined_as_a_whole(tmp_path: Path) -> None:
    """Port, disk and limits are all there."""
    config = configured(tmp_path, {"docker.io": "http://127.0.0.1:1"}, server={"listen": ["127.0.0.1:1"]})
    subjects = {each.subject for each in await asyncio.to_thread(examine_machine, config)}
    assert subjects == {"127.0.0.1:1", str(tmp_path), "open files"}
