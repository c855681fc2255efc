"""Error answers of upstreams: which failure an answer means, and its own words without secrets."""

import re
from collections.abc import Collection

from mirror.oci import json_text
from mirror.upstream.errors import Failure

# Enough for any OCI error document, in bytes; a longer one is not read to its end.
MAX_ERROR_BYTES = 64 * 1024
_MAX_EXCERPT = 200
# An error document has ten values; of a text that is shortened, this many characters are looked at.
_MAX_VALUES = 1000
_MAX_SCRUBBED = 1024

_RATE_CODES = frozenset({"TOOMANYREQUESTS"})
_DENIAL_CODES = frozenset({"DENIED", "UNAUTHORIZED"})
# A code of an OCI error document. Firewalls send documents of the same shape with numbers.
_CODE = re.compile(r"[A-Z][A-Z0-9_]+")
_MISSING_CODES = frozenset({"NAME_UNKNOWN", "MANIFEST_UNKNOWN", "BLOB_UNKNOWN", "MANIFEST_BLOB_UNKNOWN"})

# An error page may echo the request, S3 even its Authorization header: text of such a shape is masked.
_SECRETS = (
    # URLs first: the third pattern would take the scheme of a URL for a credential.
    (re.compile(r"(?i)\b(https?://)[^\s/@]*@"), r"\1***@"),
    (re.compile(r"(https?://[^\s?]*)\?[^\s\"'<>]*"), r"\1?***"),
    (re.compile(r"(?i)\b(bearer|basic)\s+[\w.~+/=-]+"), r"\1 ***"),
    (re.compile(r"[^\s]{140,}"), "***"),  # a sha512 digest has 135 characters, a JWT several hundred
)


def errors_in(body: bytes) -> list[tuple[str, str]]:
    """Return (code, message) pairs of an OCI error document; none if the body is anything else."""
    try:
        document = json_text.parse(body, _MAX_VALUES)
    except ValueError:
        return []
    entries = document.get("errors") if isinstance(document, dict) else None
    if not isinstance(entries, list):
        return []
    return [
        (_text(entry.get("code")), _text(entry.get("message")))
        for entry in entries
        if isinstance(entry, dict)
    ]


def _text(value: object) -> str:
    """Return a text, or a number as one; empty for what may be nested too deeply to be shown."""
    return str(value) if isinstance(value, str | int) else ""


def failure_of(status: int, codes: frozenset[str]) -> Failure:
    """Return the failure that a status means. A code in the body counts for more: registries differ."""
    if status == 429 or codes & _RATE_CODES:
        return Failure.RATE_LIMITED
    if status in (401, 403) or (status == 451 and codes & _DENIAL_CODES):
        return Failure.DENIED
    if status in (404, 410) or (codes & _MISSING_CODES and status < 500):
        return Failure.NOT_FOUND
    if status == 408:
        return Failure.TIMEOUT
    return Failure.SERVER_ERROR if status >= 500 else Failure.INVALID


def is_own_word(status: int, codes: Collection[str]) -> bool:
    """Return whether a refusal is a registry's own word about the repository (docs/upstreams.md).

    A firewall or a login form refuses with a page, an ingress without its registry with a bare 404.
    """
    if status == 410:
        return True
    if status in (401, 403, 451):
        return not _DENIAL_CODES.isdisjoint(codes)
    return any(_CODE.fullmatch(code) for code in codes)


def excerpt(body: bytes, media_type: str) -> str:
    """Return a short, printable part of an error body, without secrets; empty for a page for browsers."""
    errors = errors_in(body)
    if errors:
        return scrub("; ".join(f"{code}: {message}" if message else code for code, message in errors[:3]))
    return scrub(body.decode("utf-8", "replace")) if media_type in ("text/plain", "application/json") else ""


def scrub(text: str) -> str:
    """Return `text` as one printable line of at most 200 characters; mask what looks like a credential."""
    line = "".join(char if char.isprintable() else " " for char in text[:_MAX_SCRUBBED])
    if len(text) > _MAX_SCRUBBED and " " in line:
        line = line[: line.rindex(" ")]  # the end of a credential alone would not be recognised
    for pattern, replacement in _SECRETS:
        line = pattern.sub(replacement, line)
    line = " ".join(line.split())
    return line if len(line) <= _MAX_EXCERPT else line[: _MAX_EXCERPT - 3] + "..."
