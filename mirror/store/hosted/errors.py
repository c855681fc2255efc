"""Reasons for which a push or a deletion is refused; `mirror.hosted` turns them into answers."""

from collections.abc import Sequence

from mirror.oci.digest import Digest


class PushRefused(Exception):
    """A push or a deletion that is refused. Nothing has changed."""


class ContentMissing(PushRefused):
    """A manifest names what its repository does not have."""

    def __init__(self, missing: Sequence[Digest]) -> None:
        super().__init__(f"{len(missing)} contents are not in the repository")
        self.missing = tuple(missing)


class BlobLost(PushRefused):
    """The blob went between its upload and its link, or was never here."""

    def __init__(self, digest: Digest) -> None:
        super().__init__(f"{digest} is not here any more: upload it again")
        self.digest = digest


class QuotaExceeded(PushRefused):
    """A push would exceed a quota. `scope`: the registry or repository; all else in bytes.

    `coming`: what other uploads bring that are open.
    """

    def __init__(self, scope: str, allowed: int, used: int, asked: int, coming: int = 0) -> None:
        super().__init__(f"{scope} has {used} of {allowed} bytes, and {asked} more were pushed")
        self.scope = scope
        self.allowed = allowed
        self.used = used
        self.asked = asked
        self.coming = coming


class TagImmutable(PushRefused):
    """A tag that never moves would move. `digest`: what it points to."""

    def __init__(self, tag: str, digest: str) -> None:
        super().__init__(f"{tag} is immutable, and points to {digest}")
        self.tag = tag
        self.digest = digest


class TypeFixed(PushRefused):
    """The bytes of a manifest were pushed again as another type. `media_type`: that of the first push."""

    def __init__(self, digest: Digest, media_type: str) -> None:
        super().__init__(f"{digest} was pushed as {media_type}, and keeps that type")
        self.digest = digest
        self.media_type = media_type
