"""Mounts: which repository a client means, and what is declined."""

import pytest

from mirror.oci.digest import Digest
from tests.fakes.pusher import Pusher
from tests.running import Running

LAYER = Digest.of(b"layer")


@pytest.mark.parametrize(
    ("target", "query", "mounted"),
    [
        ("/v2/office/app/blobs/uploads/", f"?mount={LAYER}&from=office/base", True),
        ("/v2/office/app/blobs/uploads/", f"?mount={LAYER}&from=office%2Fbase", True),
        ("/v2/office/app/blobs/uploads/", f"?mount={LAYER}", True),
        ("/v2/app/blobs/uploads/", f"?ns=office&mount={LAYER}&from=base", True),
        ("/v2/office/app/blobs/uploads/", f"?mount={LAYER}&from=base", False),
        ("/v2/office/app/blobs/uploads/", f"?mount={LAYER}&from=", False),
        ("/v2/office/app/blobs/uploads/", f"?mount={LAYER}&from=UPPER", False),
        ("/v2/office/app/blobs/uploads/", f"?mount={Digest.of(b'no')}", False),
        ("/v2/office/app/blobs/uploads/", "?mount=&from=office/base", False),
    ],
)
async def test_mount_takes_a_source_as_the_client_names_it(
    hosting: Running, target: str, query: str, mounted: bool
) -> None:
    async with await Pusher.open(hosting.address, "office/base") as pusher:
        await pusher.blob(b"layer")
        reply = await pusher.ask("POST", f"{target}{query}", body=b"")
        assert reply.status == (201 if mounted else 202)
        assert ("docker-content-digest" in reply.headers) is mounted
        assert ("docker-upload-uuid" in reply.headers) is not mounted
