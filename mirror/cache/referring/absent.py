"""Signature tags that an image lacks, remembered across restarts for times without the upstream.

cosign and Podman ask at each pull for tags that are made of an image's digest (`sha256-<hex>.sig`), which
most images lack, and fail at any answer but 404. `NegativeCache` forgets after `tags.missing`, and a tag that
is not here cannot be told from one that does not exist. So it is written down that the registry itself has
said 404 to such a tag of an image that is here; while the upstream cannot be asked that is the answer.
"""

import re
import time
from collections.abc import Callable
from contextlib import suppress

from mirror.cache.freshness import Freshness
from mirror.oci.digest import Digest
from mirror.oci.errors import RegistryError
from mirror.oci.reference import Repository, Tag
from mirror.oci.referrers import array_of
from mirror.store.errors import StoreError
from mirror.store.metadata.index import ReferrersEntry
from mirror.store.parts.interfaces import ContentStore, Metadata
from mirror.upstream.errors import Failure, UpstreamError

# The digest of a subject, and a suffix: the tags of cosign, and the fallback tag of the specification.
_TAG = re.compile(r"(sha256)-([0-9a-f]{64})(?:\.[a-z]{1,16})?")


class AbsentSignatures:
    """Signature tags that do not exist, as far as is known.

    Each is a row of the index: an empty list of referrers, of a digest that is made of the tag. Like other
    such rows it goes when the index exceeds its bound.
    """

    def __init__(
        self,
        metadata: Metadata,
        content: ContentStore,
        freshness: Freshness,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._metadata = metadata
        self._content = content
        self._freshness = freshness
        self._clock = clock

    async def judge(self, repository: Repository, tag: Tag, error: UpstreamError) -> UpstreamError:
        """Return the error of a request for a tag: NOT_FOUND where that is known, and otherwise `error`.

        Remembers the registry's own word that the tag does not exist.
        """
        subject = _subject(tag)
        if subject is None:
            return error
        with suppress(StoreError):
            if error.final and error.failure is Failure.NOT_FOUND:
                await self._note(repository, tag, subject)
            elif error.temporary and await self._is_known(repository, tag):
                return UpstreamError(
                    Failure.NOT_FOUND, f"{tag} did not exist when last asked for; now {error}", status=404
                )
        return error

    async def _note(self, repository: Repository, tag: Tag, subject: Digest) -> None:
        if (await self._content.look_up(repository, subject)).link is not None:
            entry = ReferrersEntry(array_of(()), self._clock())
            await self._metadata.put_referrers(repository, _row(tag), entry)

    async def _is_known(self, repository: Repository, tag: Tag) -> bool:
        entry = await self._metadata.referrers(repository, _row(tag))
        if entry is None:
            return False
        return self._freshness.terms(repository, tag).serve_on_error(self._clock() - entry.confirmed)


def _subject(tag: Tag) -> Digest | None:
    found = _TAG.fullmatch(tag.name)
    if found is None:
        return None
    with suppress(RegistryError):
        return Digest.parse(f"{found[1]}:{found[2]}")
    return None


def _row(tag: Tag) -> Digest:
    """Return the digest under which it is kept that a tag does not exist: that of no content."""
    return Digest.of(f"no such tag: {tag.name}".encode())
