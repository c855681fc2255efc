"""Limits and real clients: a pull that waits is whole, a refusal says why; and workers share their counts."""

import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.e2e.clients import pulling_by_name
from tests.e2e.conftest import Library
from tests.e2e.fleet import fleet
from tests.e2e.mirror import Mirror
from tests.e2e.origin import Origin
from tests.fakes.registry import FakeRegistry
from tests.wire import get

CLIENTS = pytest.mark.needs(
    "docker-registry",
    "nginx",
    "busybox",
    "containerd",
    "ctr",
    "dockerd",
    "docker",
    "podman",
    "skopeo",
    root=True,
)
pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

LIMITS = """
[[limit]]
name = "slow"
requests = 20
burst = 3
bandwidth = "50MB"
connections = 1
fills = 2
max_blob = "10MiB"
"""

# The client's message has the mirror's words; ctr 1.6 shows the status alone.
WORDS = "is larger than the 10 MiB that you may pull (limit 'slow' of this mirror)"
SHOWN = {"docker": WORDS, "podman": WORDS, "skopeo": WORDS, "containerd": "403 Forbidden"}


@pytest.fixture
def mirror(hub: Origin, tmp_path: Path) -> Iterator[Mirror]:
    """Run a mirror with limits that every pull of many layers reaches."""
    file = tmp_path / "mirror.toml"
    file.write_text(LIMITS)
    with Mirror(tmp_path / "limited", hub.url, "--config", file) as running:
        yield running


@pytest.fixture
def clients(mirror: Mirror, short: Path) -> Iterator[dict[str, Callable[[str], str]]]:
    """Return the function of each client that pulls by the mirror's name, and returns the complaint or ""."""
    with pulling_by_name(mirror.address, short) as found:
        yield found


@CLIENTS
def test_limited_clients_wait_and_pull_and_are_told_what_is_too_large(
    library: Library, mirror: Mirror, clients: dict[str, Callable[[str], str]]
) -> None:
    for client, pull in clients.items():
        assert pull(library.many.reference) == "", client
        assert SHOWN[client] in pull(library.large.reference), client
    lines = mirror.lines(library.many.name)
    assert any("waited_ms" in line for line in lines)
    assert {line["status"] for line in lines} == {200}
    refused = [line for line in mirror.lines(library.large.name) if line["status"] != 200]
    assert {(line["outcome"], line["note"]) for line in refused} == {("limited", "limited by slow: max_blob")}
    assert mirror.metric('registry_mirror_limited_total{bound="requests",limit="slow"}') == 0


SHARED = """
[[limit]]
name = "few"
requests = 0.001
burst = 20
"""


async def test_limits_are_for_all_workers_together_and_outlive_a_reload(tmp_path: Path) -> None:
    """Two workers give as many requests as one; new workers go on counting."""
    async with FakeRegistry() as hub, fleet(tmp_path, hub.url, 2, SHARED) as mirror:
        statuses = []
        wires = [await mirror.connect(worker) for worker in await mirror.workers()]
        for number in range(24):
            wires[number % 2].send("GET", "/v2/", [f"X-N: {number}"])
            statuses.append((await wires[number % 2].reply()).status)
        assert statuses == [200] * 18 + [429] * 6
        for wire in wires:
            wire.writer.close()
        before = await mirror.workers()
        mirror.signal(signal.SIGHUP)
        await mirror.until(lambda now: len(now) == 2 and not {*now} & {*before}, "new workers")
        assert (await get(mirror.address, "/v2/")).status == 429
