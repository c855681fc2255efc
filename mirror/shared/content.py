"""Content for the object store: verified on its way, so that no unverified object ever has a name."""

from collections.abc import AsyncIterator, Callable

from mirror.oci.digest import Digest
from mirror.shared.errors import TierError, TierFault
from mirror.shared.interfaces import VerifiedContent


def verified(digest: Digest, size: int, chunks: Callable[[], AsyncIterator[bytes]]) -> VerifiedContent:
    """Return a blob to publish, whose `chunks` are hashed as they are read.

    The last chunk is yielded once the whole blob has the digest: an upload that raises there is never
    completed.
    """

    async def hashed() -> AsyncIterator[bytes]:
        hasher, length, held = digest.hasher(), 0, b""
        async for chunk in chunks():
            if held:
                yield held
            hasher.update(chunk)
            held, length = chunk, length + len(chunk)
        if length != size or hasher.hexdigest() != digest.encoded:
            raise TierError(
                TierFault.WRONG, f"{digest} is not what this mirror has of it, and was not published"
            )
        if held:
            yield held

    return VerifiedContent(digest, size, hashed)
