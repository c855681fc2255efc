"""Notifications: what is told, and a signature that others can verify."""

import hashlib
import hmac
import json
from base64 import b64decode

from mirror.hosted.notify.message import body_of, headers_of
from mirror.hosted.registry import Change
from mirror.oci.digest import Digest
from mirror.oci.manifest import OCI_MANIFEST
from tests.hosting import OTHER

DIGEST = Digest.of(b"x")


def test_body_says_what_happened_and_leaves_out_what_is_not_known() -> None:
    change = Change("push", OTHER, DIGEST, "1", OCI_MANIFEST, 7, "sha256:before")
    assert json.loads(body_of(change, 1_700_000_000.5)) == {
        "type": "push",
        "timestamp": "2023-11-14T22:13:20.500+00:00",
        "data": {
            "registry": "office",
            "repository": "team/other",
            "tag": "1",
            "digest": str(DIGEST),
            "mediaType": OCI_MANIFEST,
            "size": 7,
            "before": "sha256:before",
        },
    }
    data = json.loads(body_of(Change("delete", OTHER, DIGEST), 0.0))["data"]
    assert set(data) == {"registry", "repository", "digest"}


def test_signature_is_that_of_standard_webhooks() -> None:
    headers = headers_of("id", '{"a":1}', b"secret", 1_700_000_000.9)
    assert headers["webhook-timestamp"] == "1700000000"
    version, _, signature = headers["webhook-signature"].partition(",")
    signed = b'id.1700000000.{"a":1}'
    assert version == "v1"
    assert b64decode(signature) == hmac.new(b"secret", signed, hashlib.sha256).digest()
