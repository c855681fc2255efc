"""Client-facing errors for upstream and store failures (the failure table of docs/architecture.md).

The status of an *unavailable* upstream depends on how the request named the upstream. A client that came by
the root path, `ns` (with a prefix too) or Host has another registry to try, and 404 is the one status at
which every client goes there at once. A client that came by a prefix alone has no other registry:

- Where a repeated request may bring something it gets the honest status, with Retry-After where a wait helps;
  503 when the store fails or the mirror stops.
- Where the upstream is gone it gets 424 (RFC 4918 11.4): at 502 and 504 crane, oras, Helm, regctl ask again
  for seconds; at 424 they stop, and show the reason (docs/clients.md has the measured table).

An upstream's own 400 is told as 400: the request would fail at any other registry too. What the upstream
refuses or does not have, and a miss offline, is 404 for every client. Never a challenge: a challenge would
draw out credentials.
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
    # NAME_UNKNOWN makes oras give up the repository; after any other 404 oras looks for the referrers tag.
    TargetKind.REFERRERS: Code.MANIFEST_UNKNOWN,
}

# Failures that are final and not a fault: a retry does not help.
NOT_HERE = frozenset({Failure.NOT_FOUND, Failure.DENIED, Failure.OFFLINE})

HONEST: dict[Failure, tuple[int, Code]] = {
    Failure.RATE_LIMITED: (429, Code.TOOMANYREQUESTS),
    Failure.TIMEOUT: (504, Code.UNAVAILABLE),
    Failure.UNREACHABLE: (502, Code.UNAVAILABLE),
    Failure.SERVER_ERROR: (502, Code.UNAVAILABLE),
    Failure.INVALID: (502, Code.UNAVAILABLE),
}

# Failures of an upstream that is gone: this mirror has asked several times, or has done so lately.
GONE = frozenset({Failure.UNREACHABLE, Failure.SERVER_ERROR})
FAILED_DEPENDENCY = 424

# Retry-After, in seconds, for a rate limit without a duration: Docker Hub's limits are per hour, and a
# shorter wait would only bring useless retries.
DEFAULT_RETRY_AFTER = 60


def client_error(error: UpstreamError | StoreError, target: Target, when: WhenUnavailable) -> RegistryError:
    """Return the error that the client of `target` gets."""
    missing = UNKNOWN.get(target.kind, Code.NAME_UNKNOWN)
    if isinstance(error, StoreError):
        message = f"this mirror cannot use its cache: {error}"
        if _tries_elsewhere(target, when):
            return RegistryError(missing, message, status=404)
        return RegistryError(Code.UNAVAILABLE, message, status=503)
    if error.bad_request and when != "next":
        return RegistryError(Code.UNSUPPORTED, str(error), status=400)
    if error.failure in NOT_HERE or _tries_elsewhere(target, when):
        return RegistryError(missing, str(error), status=404)
    status, code = HONEST[error.failure]
    if when == "auto" and error.failure in GONE:
        status = FAILED_DEPENDENCY
    headers = {}
    if status == 429:
        headers["Retry-After"] = str(math.ceil(error.retry_after or DEFAULT_RETRY_AFTER))
    return RegistryError(code, str(error), status=status, headers=headers)


def _tries_elsewhere(target: Target, when: WhenUnavailable) -> bool:
    """Return whether the client has another registry to try after a 404."""
    if when == "auto":
        return target.via is not Via.PREFIX
    return when == "next"


def read_only(method: str) -> RegistryError:
    """Return the error about a method that changes something, where nothing is hosted."""
    advice = "push to the registry itself"
    if method == "DELETE":
        advice = "to remove an image from the cache, run `registry-mirror rm IMAGE` on this machine"
    message = f"this is a pull-through mirror, {method} is not for it: {advice}"
    return RegistryError(Code.UNSUPPORTED, message, status=405, headers={"Allow": "GET, HEAD"})
