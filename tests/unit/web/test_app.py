"""The request handler: unexpected errors."""

import json

import pytest
from structlog.testing import capture_logs

from tests.fakes.content import FakeImage
from tests.fakes.registry import FakeRegistry
from tests.running import Running
from tests.wire import get


async def test_unexpected_error_is_an_oci_error_with_an_id(
    mirror: Running, image: FakeImage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bug is a 500 that refers to the log, not a dropped connection."""
    monkeypatch.setattr(mirror.service.cache, "origins", None)
    with capture_logs() as lines:
        reply = await get(mirror.address, "/v2/library/x/manifests/t")
    failure = json.loads(reply.body)["errors"][0]
    assert (reply.status, failure["code"]) == (500, "UNKNOWN")
    (line,) = (each for each in lines if each["event"] == "unexpected error")
    assert line["id"] in failure["message"]


async def test_unexpected_error_in_a_body_cuts_it_short(
    mirror: Running, hub: FakeRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the head, the client would take an error document for content: the body is short instead."""
    digest = hub.add_blob("library/x", b"0123456789")

    async def broken(*_: object) -> None:
        raise LookupError("a bug")

    monkeypatch.setattr("mirror.web.responses.BodySender.send", broken)
    reply = await get(mirror.address, f"/v2/library/x/blobs/{digest}")
    assert (reply.status, reply.body, reply.complete) == (200, b"", False)
