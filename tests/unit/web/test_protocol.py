"""Connections: requests that are not HTTP, and requests that are one head."""

import json
import logging
from collections.abc import MutableMapping
from typing import Any

import pytest
from structlog.testing import capture_logs

from mirror.web.framing import is_one_head
from tests.running import Running
from tests.wire import Wire, request_head

HEAD = request_head("GET", "/v2/x")


@pytest.mark.parametrize(
    ("sent", "why"),
    [
        (b"GET /v2/ HTTP/1.1\r\n\r\n", "Host"),
        (
            b"GET /v2/ HTTP/1.1\r\nHost: x\r\nAuthorization: Basic c2Vj\x00cmV0\r\n\r\n",
            "the header Authorization has a con",
        ),
        (b"GET /v2/ HTTP/1.1\r\nHost: x\r\nAuthorization Basic c2VjcmV0\r\n\r\n", "no colon"),
        (b"FOO /v2/ HTTP/1.1\r\nHost: x\r\n\r\n", "not an HTTP"),
        (
            b"GET /v2/ HTTP/1.1\r\nHost: x\r\nX: " + b"c2Vj" * 20_000 + b"\r\n\r\n",
            "the header X is longer than",
        ),
    ],
    ids=["no host", "control", "no colon", "method", "long"],
)
async def test_malformed_request_gets_an_oci_error(
    mirror: Running, sent: bytes, why: str, caplog: pytest.LogCaptureFixture
) -> None:
    """400 with a reason, counted, one line in the log, no traceback, and no byte of the request."""
    with capture_logs() as lines:
        async with await Wire.open(mirror.address) as wire:
            wire.writer.write(sent)
            reply = await wire.reply()
            assert await wire.reader.read() == b""
    failure = json.loads(reply.body)["errors"][0]
    assert (reply.status, reply.header("content-type"), failure["code"]) == (
        400,
        "application/json",
        "UNSUPPORTED",
    )
    assert why in failure["message"]
    access: list[MutableMapping[str, Any]] = [line for line in lines if line["event"] == "request"]
    assert [(line["status"], line["client"]) for line in access] == [(400, "127.0.0.1")]
    assert "c2Vj" not in str(lines) + str(reply.body) + caplog.text
    assert not [each for each in caplog.records if each.levelno >= logging.WARNING]
    assert await mirror.metric('registry_mirror_requests_total{kind="other",outcome="error"}') == 1


async def test_tls_probe_is_no_error(mirror: Running, caplog: pytest.LogCaptureFixture) -> None:
    """Docker and Podman try TLS first where plain HTTP is allowed: neither logged nor counted as an error."""
    with capture_logs() as lines:
        async with await Wire.open(mirror.address) as wire:
            wire.writer.write(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03")
            reply = await wire.reply()
            assert await wire.reader.read() == b""
    assert reply.status == 400
    assert "TLS" in json.loads(reply.body)["errors"][0]["message"]
    assert [line["event"] for line in lines if line["log_level"] != "debug"] == []
    assert not [each for each in caplog.records if each.levelno >= logging.WARNING]
    assert await mirror.metric('registry_mirror_requests_total{kind="other",outcome="error"}') == 0


@pytest.mark.parametrize("data", [HEAD, request_head("HEAD", "/v2/x", ["Accept: */*"])])
def testis_one_head(data: bytes) -> None:
    """One head reaches from the method to the empty line."""
    assert is_one_head(data)


@pytest.mark.parametrize(
    "data",
    [
        HEAD + HEAD,
        HEAD + b"x",
        HEAD[:-1],
        HEAD[:-2],
        HEAD.replace(b"\r\n", b"\n"),
        b"GET /v2/x HTTP/1.1\nHost: x\n\n" + HEAD,
        b"GET /v2/x HTTP/1.1\r\nHost: x\n\r\n" + HEAD,
        request_head("PUT", "/v2/x"),
        request_head("GET", "/v2/x", ["CONTENT-LENGTH: 4"]),
        request_head("GET", "/v2/x", ["transfer-encoding: chunked"]),
        request_head("GET", "/v2/x", ["Expect: 100-continue"]),
        request_head("GET", "/v2/x", ["Upgrade: h2c"]),
    ],
)
def test_is_not_one_head(data: bytes) -> None:
    """Several heads, a part of one, one with a body, or ambiguous line ends."""
    assert not is_one_head(data)
