"""Patience with upstreams."""

from pathlib import Path

from mirror.oci.reference import Repository
from mirror.upstream.errors import Failure, UpstreamError
from mirror.upstream.health import FAILURES
from tests.fakes.registry import FakeRegistry
from tests.hosting import APP, office
from tests.running import mirror_of

X = Repository("docker.io", "library/x")


async def test_hosted_registry_has_no_upstream_to_wait_for(tmp_path: Path) -> None:
    async with office(tmp_path / "cache") as mirror:
        patience = mirror.service.cache.patience
        assert patience.limit(APP, 5.0) == 5.0
        assert not patience.report_timeout(APP, 5.0)


async def test_silent_upstream_is_waited_for_less(hub: FakeRegistry, tmp_path: Path) -> None:
    async with mirror_of(hub, tmp_path, tags={"fallback_after": 0.5}) as mirror:
        patience = mirror.service.cache.patience
        assert patience.limit(X, 5.0) == 5.0
        silence = UpstreamError(Failure.TIMEOUT, "no answer")
        silence.unanswered = True
        mirror.service._upstreams["docker.io"].own.record_failure(silence, FAILURES)
        assert patience.limit(X, 5.0) == 0.5
        assert not patience.report_timeout(X, 5.0)  # no request is on its way
