"""Errors as clients see them: an OCI error body with its HTTP status.

The codes up to UNSUPPORTED are those of the OCI distribution-spec, "Error Codes". The codes after UNSUPPORTED
are Docker's; clients know them too.
"""

import json
from collections.abc import Mapping
from enum import StrEnum


class Code(StrEnum):
    BLOB_UNKNOWN = "BLOB_UNKNOWN"
    BLOB_UPLOAD_INVALID = "BLOB_UPLOAD_INVALID"
    BLOB_UPLOAD_UNKNOWN = "BLOB_UPLOAD_UNKNOWN"
    DIGEST_INVALID = "DIGEST_INVALID"
    MANIFEST_BLOB_UNKNOWN = "MANIFEST_BLOB_UNKNOWN"
    MANIFEST_INVALID = "MANIFEST_INVALID"
    MANIFEST_UNKNOWN = "MANIFEST_UNKNOWN"
    NAME_INVALID = "NAME_INVALID"
    NAME_UNKNOWN = "NAME_UNKNOWN"
    SIZE_INVALID = "SIZE_INVALID"
    UNAUTHORIZED = "UNAUTHORIZED"
    DENIED = "DENIED"
    UNSUPPORTED = "UNSUPPORTED"
    TOOMANYREQUESTS = "TOOMANYREQUESTS"
    PAGINATION_NUMBER_INVALID = "PAGINATION_NUMBER_INVALID"
    RANGE_INVALID = "RANGE_INVALID"
    TAG_INVALID = "TAG_INVALID"
    UNAVAILABLE = "UNAVAILABLE"
    UNKNOWN = "UNKNOWN"


# Default HTTP status of each code. A code that is not listed has 400.
STATUS: dict[Code, int] = {
    Code.BLOB_UNKNOWN: 404,
    Code.BLOB_UPLOAD_UNKNOWN: 404,
    Code.MANIFEST_BLOB_UNKNOWN: 404,
    Code.MANIFEST_UNKNOWN: 404,
    Code.NAME_UNKNOWN: 404,
    Code.UNAUTHORIZED: 401,
    Code.DENIED: 403,
    Code.UNSUPPORTED: 405,
    Code.RANGE_INVALID: 416,
    Code.TOOMANYREQUESTS: 429,
    Code.UNKNOWN: 500,
    Code.UNAVAILABLE: 503,
}


class RegistryError(Exception):
    """A failure as the client sees it. `message` is for people and says what to do next."""

    def __init__(
        self,
        code: Code,
        message: str,
        *,
        status: int | None = None,
        detail: object = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message
        self.status = STATUS.get(code, 400) if status is None else status
        self.detail = detail
        self.headers = dict(headers or {})

    def fields(self) -> dict[str, object]:
        """Return the error as one of the list in the document of the distribution-spec."""
        error: dict[str, object] = {"code": self.code.value, "message": self.message}
        return error if self.detail is None else {**error, "detail": self.detail}

    def body(self) -> bytes:
        """Return the error as the JSON document of the distribution-spec."""
        return json.dumps({"errors": [self.fields()]}, separators=(",", ":")).encode()
