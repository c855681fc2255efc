"""An upstream with an endpoint of its own and a mirror of it; none is ever asked."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from mirror.config.endpoints import SourceSettings
from mirror.config.schema import CacheSettings, Config
from mirror.metrics.metrics import Metrics
from mirror.upstream.upstream import Upstream
from mirror.upstream.upstream_set import UpstreamSet
from mirror.util.tasks import Tasks
from tests.fakes.upstream import settings


@pytest.fixture
async def upstream(tmp_path: Path, tasks: Tasks) -> AsyncIterator[Upstream]:
    other = SourceSettings(url="http://127.0.0.1:9")
    at = settings("http://127.0.0.1:9", sources=(other,))
    upstreams = UpstreamSet(Config(cache=CacheSettings(dir=tmp_path), upstreams=(at,)), Metrics(), tasks)
    yield upstreams["docker.io"]
    await upstreams.close()
