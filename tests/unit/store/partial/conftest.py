"""Fixtures of the tests of partials."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from mirror.oci.digest import Digest
from mirror.store.executor import DiskExecutor
from mirror.store.partial.growing import GrowingFile
from mirror.store.partial.growing_writer import GrowingWriter
from mirror.store.partial.partial import Partial
from tests.growing import CHUNK, Grow


@pytest.fixture
async def open_growing(tmp_path: Path) -> AsyncIterator[Grow]:
    """Return a function that makes growing files of content that is still to be written."""
    executor = DiskExecutor(2)
    partials: list[Partial] = []

    async def make(content: bytes) -> tuple[GrowingWriter, Partial]:
        partial = await executor.run(Partial.lock, Digest.of(content), tmp_path)
        assert partial is not None
        partials.append(partial)
        chunks = await executor.run(partial.allocate, len(content), CHUNK)
        return GrowingWriter(GrowingFile(partial, chunks), partial, executor), partial

    yield make
    for partial in partials:
        await executor.run(partial.release)
    await executor.close(lambda: None)
