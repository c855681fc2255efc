"""The log of sent responses: counted together, each digest once."""

from mirror.metrics.metrics import Metrics
from mirror.oci.digest import Digest
from mirror.web.fastpath.hit_log import HitLog, KnownResponse

DIGEST = Digest.of(b"content")


async def test_hit_log_counts_lengths_apart() -> None:
    """Responses of one kind with bodies of several lengths give the sum of their bytes, and one use."""
    used, stats = list[Digest](), Metrics().requests.of("blob", "hit")
    hits = HitLog(used.append)
    response = KnownResponse(expires=1.0, removal_epoch=0, access_epoch=0, stats=stats, digest=DIGEST)
    for length in (10, 10, 7):
        hits.add(response, length, "192.0.2.1", (0.0, 0.001))
    assert stats.requests == 0
    hits.flush()
    assert (stats.requests, stats.bytes) == (3, 27)
    assert used == [DIGEST]
    hits.flush()
    assert stats.requests == 3
