"""Running fills that other mirrors may follow."""

from mirror.oci.digest import Digest
from mirror.oci.reference import Repository
from mirror.transfer.shared.leading import LeadingFills
from mirror.transfer.transfer import Transfer
from mirror.upstream.errors import Failure, UpstreamError

DIGEST = Digest.of(b"x")


async def test_leading_fill_without_a_file_has_nothing_to_follow() -> None:
    """No fill, a fill that failed, one whose blob is in memory, and one that is over."""
    fills = LeadingFills()
    assert await fills.wait_content(DIGEST, "bytes=0-") is None
    failed, small = (Transfer(DIGEST, Repository("u", "x")) for _ in range(2))
    failed.finish(UpstreamError(Failure.NOT_FOUND, "no such blob"))
    small.publish(b"x")
    for transfer in (failed, small):
        with fills.leading(transfer):
            assert await fills.wait_content(DIGEST, "bytes=0-") is None
    assert await fills.wait_content(DIGEST, "bytes=0-") is None
