"""The grammar of media types: the one way by which outside text becomes a Content-Type."""

import re

# RFC 6838 4.2: restricted-name. No control characters, spaces or anything beyond ASCII.
_NAME = r"[A-Za-z0-9][A-Za-z0-9!#$&^_.+-]{0,126}"
_MEDIA_TYPE = re.compile(f"{_NAME}/{_NAME}")

OCTETS = "application/octet-stream"


def is_media_type(text: str) -> bool:
    """Return whether `text` is a media type, without parameters, that may be sent as a header."""
    return _MEDIA_TYPE.fullmatch(text) is not None
