"""Pass-through: from any source that works, hashed on the way."""

from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path

import pytest

from mirror.config.endpoints import SourceSettings
from mirror.oci.digest import Digest
from mirror.oci.ranges import Span
from mirror.oci.reference import Repository
from mirror.transfer.context import TransferContext
from mirror.transfer.passthrough import PassThroughBlob
from mirror.upstream.errors import WrongBytes
from tests.fakes.content import sample
from tests.fakes.faults import Fault, flipped
from tests.fakes.registry import FakeRegistry
from tests.running import LARGE, Running, configured, serving

DATA = sample(LARGE)
DIGEST = Digest.of(DATA)
X = Repository("docker.io", "library/x")


@pytest.fixture
async def both(hub: FakeRegistry, quay: FakeRegistry, tmp_path: Path) -> AsyncIterator[Running]:
    """docker.io with a mirror of it, which is asked first; both have the blob."""
    for each in (hub, quay):
        each.add_blob("library/x", DATA)
    source = SourceSettings(url=quay.url, attempts=1, weight=1000)
    config = configured(tmp_path / "cache", {"docker.io": hub.url}, upstream={"sources": (source,)})
    async with serving(config) as running:
        yield running


async def passed(mirror: Running, span: Span) -> bytes:
    context: TransferContext = mirror.service.cache._blobs._context
    blob = PassThroughBlob(context, mirror.service._upstreams["docker.io"], X, DIGEST, len(DATA))
    async with aclosing(blob.stream(span)) as pieces:
        return b"".join([piece async for piece in pieces])


async def test_pass_through_of_any_span(both: Running) -> None:
    """Spans to the last byte, from the middle, of the holdback, and an empty span."""
    size = len(DATA)
    for start, stop in [(0, size), (0, 10), (5, size - 1), (size - 3, size), (size // 2, size), (7, 7)]:
        assert await passed(both, Span(start, stop)) == DATA[start:stop]


async def test_pass_through_resumes_from_another_source(
    hub: FakeRegistry, quay: FakeRegistry, both: Running
) -> None:
    """After the first source broke off, or does not have the blob."""
    quay.fault(Fault(cut_at=LARGE // 2), DIGEST, "GET")
    assert await passed(both, Span(0, len(DATA))) == DATA
    assert (quay.requests("GET", DIGEST), hub.requests("GET", DIGEST)) == (1, 1)
    quay.fault(Fault(status=404), DIGEST, "GET")
    assert await passed(both, Span(0, len(DATA))) == DATA


async def test_pass_through_reports_a_corrupt_source(quay: FakeRegistry, both: Running) -> None:
    """The source is counted and not used: the next transfer comes from elsewhere."""
    quay.fault(Fault(data=flipped(DATA)), DIGEST, "GET", times=9)
    with pytest.raises(WrongBytes):
        await passed(both, Span(0, len(DATA)))
    label = f'registry_mirror_source_wrong_bytes_total{{source="{quay.url[7:]}",upstream="docker.io"}}'
    assert await both.metric(label) == 1
    assert await passed(both, Span(0, len(DATA))) == DATA
