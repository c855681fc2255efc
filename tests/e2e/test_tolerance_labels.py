"""Real clients, and an upstream that labels content wrongly, or sends it otherwise than it says."""

from pathlib import Path

import pytest

from mirror.transfer.plan import PlanLimits
from tests.e2e.tolerance.images import add_image
from tests.e2e.tolerance.pulls import compare
from tests.e2e.tolerance.situations import LABEL_SITUATIONS
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


@pytest.mark.parametrize("name", LABEL_SITUATIONS)
async def test_clients_with_wrong_labels(fake: FakeRegistry, tmp_path: Path, name: str) -> None:
    image = add_image(fake, name)
    async with mirror_of(fake, tmp_path / "cache", LIMITS) as mirror:
        direct = await compare(fake, mirror, image, LABEL_SITUATIONS[name], tmp_path)
    assert direct["skopeo"] == ""


@pytest.mark.parametrize("claimed", [1, -1, -1_000_000, 1_000_000])
async def test_clients_with_a_wrong_size_in_the_manifest(
    fake: FakeRegistry, tmp_path: Path, claimed: int
) -> None:
    image = add_image(fake, str(claimed), claimed)
    async with mirror_of(fake, tmp_path / "cache", LIMITS) as mirror:
        direct = await compare(fake, mirror, image, lambda *_: None, tmp_path)
    assert "" in direct.values()
