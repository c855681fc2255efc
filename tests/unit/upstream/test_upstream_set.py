"""All configured upstreams together."""

import asyncio
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from mirror.config.endpoints import SourceSettings
from mirror.config.schema import CacheSettings, Config, FillSettings
from mirror.config.types import SecretStr
from mirror.metrics.metrics import Metrics
from mirror.oci.reference import Tag
from mirror.upstream.upstream_set import UpstreamSet
from mirror.util.tasks import Tasks
from tests.fakes.access import BasicAuth
from tests.fakes.registry import FakeRegistry
from tests.fakes.upstream import settings


async def test_upstreams_by_canonical_name_in_order(tmp_path: Path, tasks: Tasks) -> None:
    """Upstreams are found by canonical name, listed as configured, and closed together."""
    async with FakeRegistry() as fake:
        image = fake.add_image("a", "latest", [])
        config = Config(
            cache=CacheSettings(dir=tmp_path),
            upstreams=(
                settings("http://127.0.0.1:1", name="quay.io"),
                settings(fake.url, aliases=("hub",)),
            ),
        )
        upstreams = UpstreamSet(config, Metrics(), tasks)
        assert (list(upstreams), len(upstreams)) == (["quay.io", "docker.io"], 2)
        info = await upstreams["docker.io"].head_manifest("a", Tag("latest"))
        assert info.digest == image.manifest
        with pytest.raises(KeyError):
            upstreams["hub"]
        await upstreams.close()


async def test_connection_slots_are_shared_by_all_sources(tmp_path: Path, tasks: Tasks) -> None:
    """A source with free slots of its own is saturated when all together have none."""
    config = Config(
        cache=CacheSettings(dir=tmp_path),
        fill=FillSettings(connections=2),
        upstreams=(settings("http://127.0.0.1:1"), settings("http://127.0.0.1:2", name="quay.io")),
    )
    upstreams = UpstreamSet(config, Metrics(), tasks)
    hub, quay = upstreams["docker.io"].own, upstreams["quay.io"].own
    async with hub.slots.hold():
        assert not quay.slots.saturated
        async with quay.slots.hold():
            assert (hub.slots.saturated, quay.slots.saturated) == (True, True)
    assert not quay.slots.saturated
    await upstreams.close()


async def test_credentials_of_a_source_are_its_own(tmp_path: Path, tasks: Tasks) -> None:
    """Credentials of the upstream go to the upstream, those of a source to that source."""
    async with FakeRegistry() as own, FakeRegistry() as other:
        own.auth, other.auth = BasicAuth("me", "mine"), BasicAuth("you", "yours")
        digest = own.add_image("library/a", "latest", []).manifest
        other.repository("library/a").manifests.update(own.repository("library/a").manifests)
        source = SourceSettings(url=other.url, username="you", password=SecretStr("yours"), attempts=1)
        mine = {"username": "me", "password": "mine", "attempts": 1}
        config = Config(
            cache=CacheSettings(dir=tmp_path), upstreams=(settings(own.url, sources=(source,), **mine),)
        )
        upstreams = UpstreamSet(config, Metrics(), tasks)
        for each in upstreams["docker.io"].sources:
            assert (await each.get_manifest("library/a", digest)).digest == digest
        sent = {seen.headers["Authorization"] for seen in own.log if "Authorization" in seen.headers}
        got = {seen.headers["Authorization"] for seen in other.log if "Authorization" in seen.headers}
        assert (len(sent), len(got), sent & got) == (1, 1, set())
        await upstreams.close()


async def test_source_metrics(tmp_path: Path, tasks: Tasks) -> None:
    """Each source has its state, by host and path."""
    metrics = Metrics()
    source = SourceSettings(url="http://127.0.0.1:2/x")
    config = Config(
        cache=CacheSettings(dir=tmp_path), upstreams=(settings("http://127.0.0.1:1", sources=(source,)),)
    )
    upstreams = UpstreamSet(config, metrics, tasks)
    upstreams["docker.io"].sources[1].report_corruption("sha256:...")
    upstreams.report(metrics)
    text = (await asyncio.to_thread(metrics.render))[0].decode()
    assert 'source_up{source="127.0.0.1:1",upstream="docker.io"} 1.0' in text
    assert 'source_up{source="127.0.0.1:2/x",upstream="docker.io"} 0.0' in text
    assert repr(upstreams["docker.io"].sources[1]) == "Source('127.0.0.1:2/x')"
    await upstreams.close()


async def test_warm_up_logs_a_ca_file_without_certificates(tmp_path: Path, tasks: Tasks) -> None:
    """The mirror starts, other upstreams work, and the operator sees which file is wrong."""
    empty = tmp_path / "ca.pem"
    await asyncio.to_thread(empty.write_text, "nothing\n")
    config = await asyncio.to_thread(
        lambda: Config(
            cache=CacheSettings(dir=tmp_path), upstreams=(settings("https://127.0.0.1:1", ca_file=empty),)
        )
    )
    upstreams = UpstreamSet(config, Metrics(), tasks)
    with capture_logs() as lines:
        await upstreams.warm_up()
    assert [(line["log_level"], line["event"]) for line in lines] == [("warning", "source not usable")]
    assert f"ca_file {empty}: no certificate or crl found" in lines[0]["reason"]
    await upstreams.close()
