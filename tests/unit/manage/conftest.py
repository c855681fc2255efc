"""A cache folder with images, and the facade on it."""

from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path

import pytest

from mirror.config.schema import CacheSettings
from mirror.config.types import Amount
from mirror.manage.management import Management
from tests.fakes.cached import X, Y, open_folder, put_blob, put_image


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """Two images of one repository and one of another, and a blob of none."""
    with closing(open_folder(tmp_path / "cache")) as folder:
        put_image(folder, X, "1", [b"a" * 2000, b"b" * 3000])
        put_image(folder, X, "2", [b"a" * 2000])
        put_image(folder, Y, "1", [b"c" * 1000])
        folder.blobs.table.touch({put_blob(folder, b"of nobody"): 1.0})
    return tmp_path / "cache"


@pytest.fixture
async def management(cache: Path) -> AsyncIterator[Management]:
    opened = await Management.open(cache, CacheSettings(dir=cache, min_free=Amount()))
    yield opened
    await opened.aclose()
