"""Answers to pushes that are refused: OCI errors with words of their own.

Docker tries a push again for 50 seconds after an error with the standard text of its code, and none of its
own; with own words it stops at once, and shows them. A registry over its quota answers 403 DENIED: a 413
or a 5xx would be tried again, too.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from mirror.hosted.several import SeveralErrors
from mirror.oci.digest import Digest
from mirror.oci.errors import Code, RegistryError
from mirror.oci.reference import Repository
from mirror.store.errors import NoRoom, ShuttingDown, StoreError
from mirror.store.hosted.errors import (
    BlobLost,
    ContentMissing,
    PushRefused,
    QuotaExceeded,
    TagImmutable,
    TypeFixed,
)
from mirror.util import units

# Most errors in one answer: a manifest may name a thousand blobs.
MOST_ERRORS = 100

INSUFFICIENT_STORAGE = 507


def refusal(error: PushRefused | StoreError) -> RegistryError:
    """Return the error for the client."""
    if isinstance(error, ContentMissing):
        return missing(error.missing)
    if isinstance(error, BlobLost):
        message = f"the blob {error.digest} is not here any more: push it again"
        return RegistryError(Code.BLOB_UPLOAD_INVALID, message, status=400, detail=str(error.digest))
    if isinstance(error, QuotaExceeded):
        message = (
            f"the quota of {error.scope} is {units.size(error.allowed)}, {units.size(error.used)} of it are "
            f"used, and this push needs {units.size(error.asked)}: delete images, or ask the operator"
        )
        if error.coming:
            message += f"; other uploads that are open have {units.size(error.coming)}, so try again later"
        return RegistryError(Code.DENIED, message, status=403)
    if isinstance(error, TagImmutable):
        message = (
            f"the tag {error.tag} never moves here (immutable_tags), and is {error.digest}: push another tag"
        )
        return RegistryError(
            Code.DENIED, message, status=409, detail={"tag": error.tag, "digest": error.digest}
        )
    if isinstance(error, TypeFixed):
        message = (
            f"the manifest {error.digest} was pushed as {error.media_type:.100}, and never changes its type "
            "here (immutable_tags): push it with that Content-Type"
        )
        return RegistryError(Code.DENIED, message, status=409, detail={"mediaType": error.media_type})
    if isinstance(error, NoRoom):
        message = f"the disk of this registry is full: {error}; ask its operator to make room"
        return RegistryError(Code.DENIED, message, status=INSUFFICIENT_STORAGE)
    return unavailable(error)


def unavailable(error: Exception) -> RegistryError:
    """Return the error for a disk that fails."""
    return RegistryError(Code.UNAVAILABLE, f"this registry cannot use its disk: {error}", status=503)


def too_many_lists(_group: str) -> RegistryError:
    """Return the error about lists of referrers of which too many are asked for at once."""
    message = "too many lists of referrers are being read: try again in some seconds"
    return RegistryError(Code.TOOMANYREQUESTS, message, headers={"Retry-After": "5"})


def missing(digests: tuple[Digest, ...]) -> RegistryError:
    """Return an error for each content that a manifest names and its repository lacks."""
    return SeveralErrors(
        [
            RegistryError(
                Code.MANIFEST_BLOB_UNKNOWN,
                f"the manifest names {digest}, which is not in the repository: push it first",
                status=400,
                detail=str(digest),
            )
            for digest in digests[:MOST_ERRORS]
        ]
    )


def unknown_manifest(repository: Repository, reference: object) -> RegistryError:
    """Return the error about a manifest or tag that is not in the repository."""
    message = f"{repository} has no manifest {reference}"
    return RegistryError(Code.MANIFEST_UNKNOWN, message, status=404, detail={"reference": str(reference)})


def unknown_blob(repository: Repository, digest: Digest) -> RegistryError:
    """Return the error about a blob that is not in the repository."""
    return RegistryError(
        Code.BLOB_UNKNOWN, f"{repository} has no blob {digest}", status=404, detail=str(digest)
    )


def unknown_repository(repository: Repository) -> RegistryError:
    """Return the error about a repository to which nothing was pushed."""
    return RegistryError(
        Code.NAME_UNKNOWN, f"{repository} does not exist: nothing was pushed to it", status=404
    )


@contextmanager
def answered() -> Iterator[None]:
    """Turn refusals, and errors of the disk, into the answer to the client."""
    try:
        yield
    except PushRefused as error:
        raise refusal(error) from None
    except ShuttingDown as error:
        raise unavailable(error) from error
    except StoreError as error:
        raise refusal(error) from error
