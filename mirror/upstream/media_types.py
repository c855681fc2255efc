"""Media types of manifests, also where the upstream's Content-Type does not tell."""

import re
from typing import Any

from mirror.oci import json_text
from mirror.oci.manifest import OCI_INDEX, OCI_MANIFEST
from mirror.oci.media_type import is_media_type

_SCHEMA1 = "application/vnd.docker.distribution.manifest.v1+prettyjws"
# Types that static file servers and some registries send for manifests (registry.access.redhat.com:
# text/plain).
GENERIC = frozenset(
    {"", "application/json", "application/octet-stream", "binary/octet-stream", "text/plain", "text/json"}
)

# The beginning of a manifest as all builders write it: its type is the first field, or the second.
_LEADING_TYPE = re.compile(rb'\s*\{\s*(?:"schemaVersion"\s*:\s*2\s*,\s*)?"mediaType"\s*:\s*"([^"\\]{1,255})"')


def is_generic(kind: str) -> bool:
    """Return True if only the body can tell the type: every manifest type begins with application/."""
    return kind.lower() in GENERIC or not kind.lower().startswith("application/")


def media_type(content_type: str | None) -> str:
    """Return the media type as sent, without parameters: clients compare it literally (docs/clients.md).

    Empty for text that is no media type, and for no Content-Type.
    """
    kind = (content_type or "").partition(";")[0].strip()
    return kind if is_media_type(kind) else ""


def is_page(kind: str) -> bool:
    """Return True for a page meant for browsers: a login form, a captive portal, a proxy's error."""
    return kind.lower() in ("text/html", "application/xhtml+xml")


def manifest_type(kind: str, body: bytes) -> str:
    """Return the manifest's media type: `kind` unless that is generic, else the type that the body has.

    Raise ValueError if the body is not a JSON object, or neither tells the type.
    """
    document = _object(body)
    if is_page(kind):
        raise ValueError("a web page instead of a manifest")
    if not is_generic(kind):
        return kind
    if document is None:
        leading = _LEADING_TYPE.match(body)
        document = {"mediaType": leading[1].decode("latin-1")} if leading else {}
    declared = document.get("mediaType")
    if isinstance(declared, str) and is_media_type(declared):
        return declared
    return _by_shape(document)


def _object(body: bytes) -> dict[str, Any] | None:
    """Return the manifest; None for one with too many values to parse. Raises ValueError."""
    try:
        document = json_text.parse(body)
    except json_text.TooManyValues:
        if json_text.may_be_object(body):
            return None
        raise ValueError("not JSON, so no manifest") from None
    except ValueError:
        raise ValueError("not JSON, so no manifest") from None
    if not isinstance(document, dict):
        raise ValueError("JSON, but no object, so no manifest")
    return document


def _by_shape(document: dict[str, Any]) -> str:
    # Docker's manifests always have a mediaType, so one without it is OCI, or schema 1.
    if document.get("schemaVersion") == 1:
        return _SCHEMA1
    if isinstance(document.get("manifests"), list):
        return OCI_INDEX
    if isinstance(document.get("layers"), list) or isinstance(document.get("config"), dict):
        return OCI_MANIFEST
    raise ValueError("neither Content-Type nor mediaType says what kind of manifest it is")
