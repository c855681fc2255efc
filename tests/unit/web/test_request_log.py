"""Access lines: one per request, with all an operator needs and no secret."""

from collections.abc import MutableMapping
from typing import Any

import pytest
from structlog.testing import capture_logs

from tests.fakes.content import FakeImage
from tests.fakes.faults import Fault
from tests.fakes.registry import FakeRegistry
from tests.running import Running
from tests.wire import Wire, get


@pytest.fixture(autouse=True)
def lines() -> Any:
    with capture_logs() as captured:
        yield captured


def access(lines: list[MutableMapping[str, Any]]) -> list[MutableMapping[str, Any]]:
    return [line for line in lines if line["event"] == "request"]


async def test_access_line_per_request(
    mirror: Running, image: FakeImage, lines: list[MutableMapping[str, Any]]
) -> None:
    """The line has client, content, outcome, bytes and times."""
    await get(mirror.address, "/v2/library/x/manifests/t?ns=docker.io", "Authorization: Basic c2VjcmV0")
    (line,) = access(lines)
    assert {
        "client": "127.0.0.1",
        "method": "GET",
        "kind": "manifest",
        "status": 200,
        "outcome": "miss",
        "bytes": len(image.manifest_data),
        "upstream": "docker.io",
        "repository": "library/x",
        "reference": "t",
        "digest": str(image.manifest),
    }.items() <= line.items()
    assert len(line["id"]) == 16
    assert 0 <= line["first_byte_ms"] <= line["total_ms"]
    assert "c2VjcmV0" not in str(line)


async def test_access_line_of_a_refused_path_has_no_query(
    mirror: Running, lines: list[MutableMapping[str, Any]]
) -> None:
    """A path that does not parse is logged as received, truncated, without its query."""
    await get(mirror.address, "/v2/X/manifests/t?token=secret")
    (line,) = access(lines)
    assert (line["path"], line["outcome"], line["kind"]) == ("/v2/X/manifests/t", "error", "other")
    assert "secret" not in str(line)


async def test_access_line_of_a_failure_has_a_note(
    mirror: Running, hub: FakeRegistry, lines: list[MutableMapping[str, Any]]
) -> None:
    """The note is the message that the client got."""
    hub.fault(Fault(status=503))
    await get(mirror.address, "/v2/library/x/manifests/t")
    (line,) = access(lines)
    assert (line["outcome"], line["status"]) == ("error", 404)
    assert "503" in line["note"]


async def test_access_line_of_a_client_that_left(
    mirror: Running, hub: FakeRegistry, lines: list[MutableMapping[str, Any]]
) -> None:
    """The line counts the bytes that were sent."""
    digest = hub.add_blob("library/x", b"0123456789")
    gate = hub.hold(digest, after=5)
    async with await Wire.open(mirror.address) as wire:
        wire.send("GET", f"/v2/library/x/blobs/{digest}")
        await gate.reached.wait()
    while not access(lines):
        await get(mirror.address, "/healthz")
    (line,) = access(lines)
    assert (line["bytes"], line["outcome"]) == (0, "error")
    gate.release()
    await mirror.landed(digest)


async def test_access_line_of_an_absolute_url_has_no_password(
    mirror: Running, lines: list[MutableMapping[str, Any]]
) -> None:
    """A request target in absolute form may have user and password in it."""
    assert (await get(mirror.address, "http://me:hunter2@mirror.test/nothing")).status == 404
    (line,) = access(lines)
    assert line["path"] == "http://mirror.test/nothing"
    assert "hunter2" not in str(lines)
