"""The shared tier as the configuration has it."""

from pathlib import Path

import pytest

from mirror.shared.engines import Engines
from mirror.shared.memory import MemoryLeases, MemoryTier
from tests.fakes.registry import FakeRegistry
from tests.running import configured, serving
from tests.unit.shared.test_tier import fit


@pytest.mark.parametrize("secret", [None, "a-secret-of-all-mirrors"])
async def test_shared_words_need_the_secret_of_all_mirrors(
    fake: FakeRegistry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, secret: str | None
) -> None:
    """Content alone is shared without a secret: a word of an upstream could have been written by any user."""
    engines = Engines("s3://memory", MemoryTier(), MemoryLeases(), fit)
    monkeypatch.setattr("mirror.shared.engines.open_engines", lambda settings: engines)
    shared = {"url": "s3://memory"} | ({} if secret is None else {"peers_secret": secret})
    async with serving(configured(tmp_path, {"docker.io": fake.url}, shared=shared)) as mirror:
        assert mirror.service.shared is not None
        assert (mirror.service.shared.words._book is None) == (secret is None)
        assert (mirror.service.shared.peers is None) == (secret is None)
