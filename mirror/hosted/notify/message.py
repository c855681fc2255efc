"""Notifications as they are sent: JSON, signed as Standard Webhooks has it (standardwebhooks.com). Pure.

webhook-id          the same for all attempts at one notification
webhook-timestamp   seconds since the epoch, of this attempt
webhook-signature   v1, and HMAC-SHA256 of "<id>.<timestamp>.<body>" in base64
"""

import hashlib
import hmac
import json
from base64 import b64encode
from datetime import UTC, datetime

from mirror.hosted.registry import Change


def body_of(change: Change, moment: float) -> str:
    """Return the text of a notification. `moment`: seconds since the epoch."""
    facts = {
        "registry": change.repository.upstream,
        "repository": change.repository.path,
        "tag": change.tag,
        "digest": str(change.digest),
        "mediaType": change.media_type,
        "size": change.size or None,
        "before": change.before,
    }
    data = {key: value for key, value in facts.items() if value is not None}
    when = datetime.fromtimestamp(moment, UTC).isoformat(timespec="milliseconds")
    return json.dumps({"type": change.action, "timestamp": when, "data": data}, separators=(",", ":"))


def headers_of(identifier: str, body: str, secret: bytes, moment: float) -> dict[str, str]:
    """Return the headers of an attempt."""
    seconds = str(int(moment))
    signed = hmac.digest(secret, f"{identifier}.{seconds}.{body}".encode(), hashlib.sha256)
    return {
        "Content-Type": "application/json",
        "webhook-id": identifier,
        "webhook-timestamp": seconds,
        "webhook-signature": f"v1,{b64encode(signed).decode()}",
    }
