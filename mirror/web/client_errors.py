"""What a client is told when the upstream could not give what it asked for (DESIGN.md, failure table).

*Unavailable* depends on how the client came. By root, `ns` or Host it has another place to go, and 404 is
the one status at which every client goes there at once. By an explicit prefix there is nowhere else, so it
gets the truth as a status, and what to wait for. Never a challenge: that would draw credentials out.
"""

import math
from typing import Literal

from mirror.oci.errors import Code, RegistryError
from mirror.oci.reference import Target, TargetKind, Via
from mirror.store.errors import StoreError
from mirror.upstream.errors import Failure, UpstreamError

WhenUnavailable = Literal["auto", "next", "honest"]

UNKNOWN = {
    TargetKind.MANIFEST: Code.MANIFEST_UNKNOWN,
    TargetKind.BLOB: Code.BLOB_UNKNOWN,
    # At NAME_UNKNOWN oras takes the repository for missing and stops; at any other 404 it looks for the tag.
    TargetKind.REFERRERS: Code.MANIFEST_UNKNOWN,
}

# There is nothing to wait for, nor anything wrong.
NOT_HERE = frozenset({Failure.NOT_FOUND, Failure.DENIED, Failure.OFFLINE})

HONEST: dict[Failure, tuple[int, Code]] = {
    Failure.RATE_LIMITED: (429, Code.TOOMANYREQUESTS),
    Failure.TIMEOUT: (504, Code.UNAVAILABLE),
    Failure.UNREACHABLE: (502, Code.UNAVAILABLE),
    Failure.SERVER_ERROR: (502, Code.UNAVAILABLE),
    Failure.INVALID: (502, Code.UNAVAILABLE),
}

# When an upstream limits without saying for how long, in seconds: Docker Hub's limits are by the hour, and
# shorter would only make clients ask again for nothing.
DEFAULT_RETRY_AFTER = 60


def client_error(error: UpstreamError | StoreError, target: Target, when: WhenUnavailable) -> RegistryError:
    """The error as this client is to see it."""
    missing = UNKNOWN.get(target.kind, Code.NAME_UNKNOWN)
    if isinstance(error, StoreError):
        if _goes_on(target, when):
            return RegistryError(missing, f"this mirror cannot use its cache: {error}", status=404)
        return RegistryError(Code.UNAVAILABLE, f"this mirror cannot use its cache: {error}", status=503)
    if error.failure in NOT_HERE or _goes_on(target, when):
        return RegistryError(missing, str(error), status=404)
    status, code = HONEST[error.failure]
    headers = {}
    if status == 429:
        headers["Retry-After"] = str(math.ceil(error.retry_after or DEFAULT_RETRY_AFTER))
    return RegistryError(code, str(error), status=status, headers=headers)


def _goes_on(target: Target, when: WhenUnavailable) -> bool:
    if when == "auto":
        return target.via is not Via.PREFIX
    return when == "next"
