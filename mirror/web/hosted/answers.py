"""Answers to pushes: where things are, how much has come, and refusals in words of their own.

Docker shows such words at once. It tries again for 50 seconds after an error with the words of the standard
or with a code that it does not know as final, so that refusals which no repetition changes are DENIED.
"""

from collections.abc import Mapping

from aiohttp import web
from msgspec.structs import replace

from mirror.cache.results import Outcome
from mirror.oci.digest import Digest
from mirror.oci.errors import Code, RegistryError
from mirror.oci.reference import Target, TargetKind
from mirror.web import responses
from mirror.web.hosted.manifests import location
from mirror.web.request_log import RequestRecord

# Least size of a chunk, in bytes: clients need not send smaller ones than a piece that is written at once.
CHUNK_BYTES = "1048576"


def empty(
    record: RequestRecord, status: int, headers: Mapping[str, str], outcome: Outcome
) -> web.StreamResponse:
    """Return a response without a body."""
    record.outcome = outcome
    if status != 204:
        return responses.buffered(record, status, headers, b"")
    record.status = status
    record.first_byte()
    return web.Response(status=status, headers={**responses.COMMON, **headers})


def session_headers(record: RequestRecord, target: Target, session: str, offset: int) -> dict[str, str]:
    """Return the headers about an upload of which `offset` bytes have come."""
    return {
        "Location": location(record, replace(target, session=session)),
        "Range": f"0-{max(0, offset - 1)}",
        "Docker-Upload-UUID": session,
    }


def created(record: RequestRecord, target: Target, digest: Digest) -> web.StreamResponse:
    """Return the answer to an upload that is complete."""
    record.digest = digest
    blob = replace(target, kind=TargetKind.BLOB, reference=digest)
    headers = {"Location": location(record, blob), "Docker-Content-Digest": str(digest)}
    return empty(record, 201, headers, Outcome.PUSHED)


def not_allowed(record: RequestRecord, allowed: str) -> RegistryError:
    """Return the refusal of a method that the target does not have."""
    message = f"{record.request.method} is not for this path of a hosted registry; there are {allowed}"
    return RegistryError(Code.UNSUPPORTED, message, status=405, headers={"Allow": allowed})


def unknown_upload(session: str) -> RegistryError:
    """Return the error about a session that is not here."""
    message = (
        "this upload is not known in this repository: it was finished, cancelled or has expired; begin again"
    )
    return RegistryError(Code.BLOB_UPLOAD_UNKNOWN, message, detail=session[:100])


def upload_in_use(session: str) -> RegistryError:
    """Return the error about a session to which another request appends."""
    message = "another request appends to this upload now: wait for its end, and ask for the status"
    return RegistryError(Code.BLOB_UPLOAD_INVALID, message, status=409, detail=session)


def wrong_range(headers: Mapping[str, str], offset: int, start: int) -> RegistryError:
    """Return the error about a chunk that does not begin where the last one ended."""
    message = f"the chunk begins at byte {start}, and the next byte of this upload is {offset}"
    return RegistryError(Code.RANGE_INVALID, message, status=416, detail={"offset": offset}, headers=headers)


def no_room(reason: object) -> RegistryError:
    """Return the error about a disk that cannot take an upload."""
    message = f"this registry has no room for the upload: {reason}; its operator must free some"
    return RegistryError(Code.DENIED, message, status=507)


# What is to be done about too many open uploads, by who has them.
TOO_MANY = {
    "client": "you have your share of the uploads that may be open here: finish or cancel some",
    "repository": "this repository has its share of the uploads that may be open here: finish or cancel some",
    "registry": "all uploads that may be open here are in use: finish or cancel some",
}


def too_many(whose: str) -> RegistryError:
    """Return the error about too many open uploads. `whose`: "client", "repository" or "registry"."""
    advice = "try again in a minute (unused ones end after five), or ask the operator for more (max_uploads)"
    return RegistryError(Code.TOOMANYREQUESTS, f"{TOO_MANY[whose]}, {advice}", headers={"Retry-After": "60"})
