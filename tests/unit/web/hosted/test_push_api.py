"""Requests that change a hosted registry: methods that each path has, and unknown sessions."""

import pytest

from mirror.oci.digest import Digest
from tests.fakes.pusher import Pusher, error

DIGEST = Digest.of(b"x")
SESSION = "a" * 32


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("PATCH", "manifests/1", "GET, HEAD, PUT, DELETE"),
        ("PUT", f"blobs/{DIGEST}", "GET, HEAD, DELETE"),
        ("DELETE", "tags/list", "GET, HEAD"),
        ("PUT", f"referrers/{DIGEST}", "GET, HEAD"),
        ("GET", "blobs/uploads/", "POST"),
        ("PUT", "blobs/uploads", "POST"),
        ("POST", f"blobs/uploads/{SESSION}", "GET, HEAD, PATCH, PUT, DELETE"),
    ],
)
async def test_method_that_a_path_does_not_have_is_refused(
    pusher: Pusher, method: str, path: str, allowed: str
) -> None:
    reply = await pusher.ask(method, path)
    assert error(reply) == (405, "UNSUPPORTED")
    assert reply.header("allow") == allowed


@pytest.mark.parametrize("session", [SESSION, "x", "..%2Fx"])
@pytest.mark.parametrize("method", ["GET", "PATCH", "DELETE"])
async def test_session_that_is_not_here_is_unknown(pusher: Pusher, method: str, session: str) -> None:
    reply = await pusher.ask(method, f"blobs/uploads/{session}")
    assert reply.status == 404
