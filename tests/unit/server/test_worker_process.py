"""A worker as its parent sees it."""

import os

import pytest

from mirror.server.worker_process import Worker


@pytest.mark.parametrize("own", [True, False])
def test_worker_close_closes_the_parents_pipes(own: bool) -> None:
    """A worker of the program before has no pipe for readiness."""
    parent, lifeline = os.pipe()
    ready, tell = os.pipe()
    Worker(1, 0, None, ready if own else None, lifeline, 0.0).close()
    assert os.read(parent, 1) == b""
    if own:
        with pytest.raises(BrokenPipeError):
            os.write(tell, b"\n")
    else:
        os.close(ready)
    for each in (parent, tell):
        os.close(each)
