"""Real clients, and an upstream that mis-answers ranges, by which broken downloads are resumed."""

from pathlib import Path

import pytest

from mirror.transfer.plan import PlanLimits
from tests.e2e.tolerance.images import add_image
from tests.e2e.tolerance.pulls import compare
from tests.e2e.tolerance.situations import RANGE_SITUATIONS
from tests.fakes.registry import FakeRegistry
from tests.running import mirror_of

pytestmark = [
    pytest.mark.nightly,
    pytest.mark.slow,
    pytest.mark.needs("skopeo"),
    pytest.mark.timeout(120),
    pytest.mark.usefixtures("no_pauses"),
]
LIMITS = PlanLimits(first_span=1024 * 1024)
FILL = {"parallel": 4, "parallel_above": 1024 * 1024}


@pytest.mark.parametrize("name", RANGE_SITUATIONS)
async def test_clients_with_odd_ranges(fake: FakeRegistry, tmp_path: Path, name: str) -> None:
    """Each client pulls through the mirror, also those that fail directly because a download breaks."""
    image = add_image(fake, name)
    async with mirror_of(fake, tmp_path / "cache", LIMITS, fill=FILL) as mirror:
        direct = await compare(fake, mirror, image, RANGE_SITUATIONS[name], tmp_path, better=True)
    assert "" in direct.values() or name.startswith("broken")
