"""Real clients, and an upstream whose HEADs are answered otherwise than its GETs."""

from pathlib import Path

import pytest

from mirror.transfer.plan import PlanLimits
from tests.e2e.tolerance.images import add_image
from tests.e2e.tolerance.pulls import compare
from tests.e2e.tolerance.situations import HEAD_SITUATIONS
from tests.fakes.registry import FakeRegistry
from tests.running import NEVER, mirror_of

pytestmark = [
    pytest.mark.nightly,
    pytest.mark.slow,
    pytest.mark.needs("skopeo"),
    pytest.mark.timeout(120),
    pytest.mark.usefixtures("no_pauses"),
]


@pytest.mark.parametrize("name", HEAD_SITUATIONS)
async def test_clients_with_wrong_heads(fake: FakeRegistry, tmp_path: Path, name: str) -> None:
    """skopeo, Podman's library and crane send no HEAD, and notice nothing."""
    image = add_image(fake, name)
    # The second round revalidates the tag, by a HEAD first.
    limits, tags = PlanLimits(first_span=1024 * 1024), {"fresh": 0, "fallback_after": NEVER}
    async with mirror_of(fake, tmp_path / "cache", limits, tags=tags) as mirror:
        direct = await compare(fake, mirror, image, HEAD_SITUATIONS[name], tmp_path)
    assert direct["skopeo"] == ""
