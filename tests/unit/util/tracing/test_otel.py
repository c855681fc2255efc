"""Traces as a collector gets them: an OTLP receiver on loopback, whose requests are read."""

import asyncio
import gzip
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from socket import create_server, socket
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from mirror.util.tracing import otel
from mirror.util.tracing.spans import ACTIVE
from tests.contract.test_bounds_fills import until
from tests.fakes.registry import FakeRegistry
from tests.running import configured, serving
from tests.wire import Wire

TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = "b7ad6b7169203331"
SECRET = "correct-horse-battery"


class Collector:
    """A collector that takes OTLP over HTTP. `spans`: those that have come."""

    url: str

    def __init__(self) -> None:
        self.spans: list[Any] = []
        self.bodies: list[bytes] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                fields = dict(
                    line.split(": ", 1) for line in head.decode().lower().split("\r\n")[1:] if ": " in line
                )
                body = await reader.readexactly(int(fields["content-length"]))
                body = gzip.decompress(body) if fields.get("content-encoding") == "gzip" else body
                self.bodies.append(body)
                for each in ExportTraceServiceRequest.FromString(body).resource_spans:
                    self.spans += [span for scope in each.scope_spans for span in scope.spans]
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
                await writer.drain()
        except (asyncio.IncompleteReadError, OSError):
            pass
        finally:
            writer.close()

    def named(self, name: str) -> list[Any]:
        return [each for each in self.spans if each.name == name]


@asynccontextmanager
async def collecting() -> AsyncIterator[Collector]:
    collector = Collector()
    server = await asyncio.start_server(collector.serve, "127.0.0.1", 0)
    async with server:
        collector.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1/traces"
        yield collector


def attributes(span: Any) -> dict[str, Any]:
    return {each.key: each.value.string_value or each.value.int_value for each in span.attributes}


async def get(address: str, path: str, *headers: str) -> None:
    async with await Wire.open(address) as wire:
        wire.send("GET", path, list(headers))
        assert (await wire.reply()).status == 200


async def test_traces_of_a_cold_pull_by_two_clients(tmp_path: Path) -> None:
    """A span for each request, the one fill, and each request to the upstream; linked, with no secret."""
    async with collecting() as collector, FakeRegistry() as hub:
        blob = hub.add_blob("team/app", b"x" * 300_000)
        config = configured(
            tmp_path,
            {"hub.test": hub.url},
            otel={"endpoint": collector.url},
            upstream={"username": "me", "password": SECRET},
        )
        path = f"/v2/team/app/blobs/{blob}"
        async with serving(config) as mirror:
            gate = hub.hold(blob, after=-1)
            first = asyncio.create_task(
                get(
                    mirror.address,
                    path,
                    f"traceparent: 00-{TRACE}-{PARENT}-01",
                    f"Authorization: Bearer {SECRET}",
                )
            )
            await gate.reached.wait()
            second = asyncio.create_task(get(mirror.address, f"{path}?{SECRET}"))
            (flight,) = mirror.service.cache.fills()
            await until(lambda: len(flight.clients) == 2)
            gate.release()
            await asyncio.gather(first, second)
            await mirror.landed(blob)
        requests = {each.trace_id.hex(): each for each in collector.named("GET blob")}
        (fill,) = collector.named("fill")
        started = requests[TRACE]
        (joined,) = [each for trace, each in requests.items() if trace != TRACE]
        assert started.parent_span_id.hex() == PARENT
        assert fill.trace_id.hex() == TRACE
        assert fill.parent_span_id == started.span_id
        assert not joined.parent_span_id
        assert [each.span_id for each in joined.links] == [fill.span_id]
        asked = [each for each in collector.named("GET hub.test") if each.parent_span_id == fill.span_id]
        assert asked
        assert all(each.trace_id == fill.trace_id for each in asked)
        assert attributes(started)["registry_mirror.outcome"] == "miss"
        assert attributes(joined)["registry_mirror.outcome"] == "join"
        assert attributes(fill)["registry_mirror.digest"] == str(blob)
        for body in collector.bodies:
            assert SECRET.encode() not in body
        assert not [each for each in hub.log if "traceparent" in str(each.headers).lower()]


async def test_traces_tell_an_upstream_of_the_trace_only_where_configured(tmp_path: Path) -> None:
    """An upstream of `otel.propagate` gets the id of the trace, with the span of the request to it."""
    async with collecting() as collector, FakeRegistry() as hub:
        blob = hub.add_blob("team/app", b"x")
        otel = {"endpoint": collector.url, "propagate": ("hub.test",)}
        async with serving(configured(tmp_path, {"hub.test": hub.url}, otel=otel)) as mirror:
            await get(mirror.address, f"/v2/team/app/blobs/{blob}", f"traceparent: 00-{TRACE}-{PARENT}-01")
        sent = [each.headers["traceparent"] for each in hub.log if str(blob) in each.path]
        spans = {each.span_id.hex() for each in collector.named("GET hub.test")}
        assert sent
        for each in sent:
            _, trace, span, _ = each.split("-")
            assert trace == TRACE
            assert span in spans


@pytest.mark.parametrize(
    "value", ["", "00-x", f"00-{'0' * 32}-{PARENT}-01", f"ff-{TRACE}-{PARENT}-01", "\xff" * 300]
)
async def test_traces_of_a_wrong_context_begin_anew(tmp_path: Path, value: str) -> None:
    """A header that is no trace context changes nothing for the client."""
    async with collecting() as collector, FakeRegistry() as hub:
        blob = hub.add_blob("team/app", b"x")
        otel = {"endpoint": collector.url}
        async with serving(configured(tmp_path, {"hub.test": hub.url}, otel=otel)) as mirror:
            await get(mirror.address, f"/v2/team/app/blobs/{blob}", f"traceparent: {value}")
        (span,) = collector.named("GET blob")
        assert not span.parent_span_id
        assert span.trace_id.hex() != TRACE


async def test_traces_are_sampled_by_this_mirror(tmp_path: Path) -> None:
    """A client that says that its trace is sampled does not raise the share."""
    async with collecting() as collector, FakeRegistry() as hub:
        blob = hub.add_blob("team/app", b"x")
        otel = {"endpoint": collector.url, "sample": 0}
        async with serving(configured(tmp_path, {"hub.test": hub.url}, otel=otel)) as mirror:
            await get(mirror.address, f"/v2/team/app/blobs/{blob}", f"traceparent: 00-{TRACE}-{PARENT}-01")
        assert collector.spans == []


async def test_traces_without_a_collector_change_nothing(tmp_path: Path) -> None:
    """Nothing listens at the endpoint: clients are served, and the mirror ends soon."""
    async with FakeRegistry() as hub:
        blob = hub.add_blob("team/app", b"x")
        otel = {"endpoint": "http://127.0.0.1:9/v1/traces"}
        async with serving(configured(tmp_path, {"hub.test": hub.url}, otel=otel)) as mirror:
            await get(mirror.address, f"/v2/team/app/blobs/{blob}")
            began = time.monotonic()
        assert time.monotonic() - began < 20
        assert ACTIVE.tracing is None


def test_collector_that_does_not_answer_is_given_up_when_the_mirror_ends(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The batches of a full queue do not time out one by one."""
    monkeypatch.setattr(otel, "EXPORT_SECONDS", 0.5)
    monkeypatch.setattr(otel, "CLOSE_SECONDS", 0.0)
    with create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/v1/traces"
        tracing = otel.OtelTracing(url, "test", 1.0, ())
        for _ in range(2000):
            tracing.request("request", {}).end({})
        before = connections(silent)
        tracing.close()
        after = connections(silent)
        assert len(after) < 3
    for each in before + after:
        each.close()


def connections(server: socket) -> list[socket]:
    """Accept the connections that wait, and hold them."""
    server.setblocking(False)
    found: list[socket] = []
    with suppress(BlockingIOError):
        while True:
            found.append(server.accept()[0])
    return found
