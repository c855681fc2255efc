"""What every test stands on: an event loop in which nothing may block."""

from collections.abc import Iterator

import pytest
from blockbuster import BlockBuster, blockbuster_ctx


@pytest.fixture(autouse=True)
def blockbuster() -> Iterator[BlockBuster]:
    """A blocking call inside a running event loop raises BlockingError instead of stalling every client."""
    with blockbuster_ctx() as active:
        yield active
