"""The state of one blob on its way: what waits for what."""

import asyncio

import pytest

from mirror.oci.digest import Digest
from mirror.oci.reference import Repository
from mirror.store.errors import StoreError
from mirror.transfer.transfer import Transfer
from mirror.upstream.errors import Failure, UpstreamError

D = Digest.of(b"x")
X = Repository("docker.io", "library/x")


async def test_transfer_clients_wait_for_content() -> None:
    """Clients wait until there is content, or until the blob is in the store (None)."""
    transfer = Transfer(D, X)
    waiting = asyncio.ensure_future(transfer.wait_content())
    await asyncio.sleep(0)
    assert not waiting.done()
    transfer.publish(None)
    assert await waiting is None
    transfer.finish(None)
    await transfer.wait_done()
    assert await transfer.wait_content() is None


@pytest.mark.parametrize("error", [UpstreamError(Failure.NOT_FOUND, "no"), StoreError("no")])
async def test_transfer_that_fails_early_raises_for_all_clients(error: UpstreamError | StoreError) -> None:
    """Clients that wait and clients that come later receive the same error."""
    transfer = Transfer(D, X)
    waiting = asyncio.ensure_future(transfer.wait_content())
    transfer.finish(error)
    for each in (waiting, transfer.wait_content()):
        with pytest.raises(type(error), match="no"):
            await each


def test_transfer_that_gives_way_takes_no_content() -> None:
    """The fill may still publish something, which no client must read: its partial is being released."""
    transfer = Transfer(D, X)
    transfer.publish(b"1")
    transfer.withdraw()
    transfer.publish(b"2")
    assert transfer._content is None
