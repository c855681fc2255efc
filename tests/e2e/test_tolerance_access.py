"""Real clients, and an upstream whose stores, tokens or own endpoint are not as they should be."""

from pathlib import Path

import pytest

from mirror.config.endpoints import SourceSettings
from mirror.transfer.plan import PlanLimits
from tests.e2e.processes import free_port
from tests.e2e.tolerance.images import add_image
from tests.e2e.tolerance.pulls import compare
from tests.e2e.tolerance.situations import ACCESS_SITUATIONS
from tests.fakes.registry import FakeRegistry
from tests.running import configured, mirror_of, serving

pytestmark = [
    pytest.mark.nightly,
    pytest.mark.slow,
    pytest.mark.needs("skopeo"),
    pytest.mark.timeout(120),
    pytest.mark.usefixtures("no_pauses"),
]
LIMITS = PlanLimits(first_span=1024 * 1024)
FILL = {"parallel": 4, "parallel_above": 1024 * 1024}


@pytest.mark.parametrize("name", ACCESS_SITUATIONS)
async def test_clients_with_odd_stores_and_tokens(fake: FakeRegistry, tmp_path: Path, name: str) -> None:
    image = add_image(fake, name)
    async with mirror_of(fake, tmp_path / "cache", LIMITS, fill=FILL) as mirror:
        direct = await compare(fake, mirror, image, ACCESS_SITUATIONS[name], tmp_path)
    assert "" in direct.values()


async def test_clients_with_a_source_in_place_of_the_own_endpoint(fake: FakeRegistry, tmp_path: Path) -> None:
    """The upstream's endpoint refuses connections; the source that speaks for it has everything."""
    image = add_image(fake, "source")
    source = SourceSettings(url=fake.url, tags=True, attempts=1)
    own = f"http://127.0.0.1:{free_port()}"
    config = configured(tmp_path / "cache", {"docker.io": own}, upstream={"sources": (source,)})
    async with serving(config) as mirror:
        direct = await compare(fake, mirror, image, lambda *_: None, tmp_path)
    assert set(direct.values()) == {""}
