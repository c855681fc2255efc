"""A system without any client."""

from pathlib import Path

import pytest

from tests.unit.setup.system import System


@pytest.fixture
def system(tmp_path: Path) -> System:
    return System(tmp_path / "root")
