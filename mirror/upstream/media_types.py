"""What kind of manifest some bytes are, where the upstream's Content-Type does not say."""

import json
from typing import Any

from mirror.oci.manifest import OCI_INDEX, OCI_MANIFEST

_SCHEMA1 = "application/vnd.docker.distribution.manifest.v1+prettyjws"
# Static file servers and some registries send these for manifests (registry.access.redhat.com: text/plain).
GENERIC = frozenset(
    {"", "application/json", "application/octet-stream", "binary/octet-stream", "text/plain", "text/json"}
)


def says_nothing(kind: str) -> bool:
    """Whether only the body can tell the type: every manifest's is of the form application/..."""
    return kind.lower() in GENERIC or not kind.lower().startswith("application/")


def media_type(content_type: str | None) -> str:
    """The media type as sent, without parameters: clients compare it literally (CLIENTS.md 0.1, rule 4)."""
    return (content_type or "").partition(";")[0].strip()


def is_page(kind: str) -> bool:
    """Whether this is a page for browsers: a login form, a captive portal, a proxy's complaint."""
    return kind.lower() in ("text/html", "application/xhtml+xml")


def manifest_type(kind: str, body: bytes) -> str:
    """The manifest's media type: `kind` if it means anything, else by the body.

    ValueError when the body is not a JSON object, or nothing tells what it is.
    """
    document = _object(body)
    if is_page(kind):
        raise ValueError("a web page instead of a manifest")
    if not says_nothing(kind):
        return kind
    declared = document.get("mediaType")
    if isinstance(declared, str) and declared:
        return declared
    return _by_shape(document)


def _object(body: bytes) -> dict[str, Any]:
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        raise ValueError("not JSON, so no manifest") from None
    if not isinstance(document, dict):
        raise ValueError("JSON, but no object, so no manifest")
    return document


def _by_shape(document: dict[str, Any]) -> str:
    # Docker's types always name themselves in mediaType, so what does not is OCI, or schema 1.
    if document.get("schemaVersion") == 1:
        return _SCHEMA1
    if isinstance(document.get("manifests"), list):
        return OCI_INDEX
    if isinstance(document.get("layers"), list) or isinstance(document.get("config"), dict):
        return OCI_MANIFEST
    raise ValueError("neither Content-Type nor mediaType says what kind of manifest it is")
