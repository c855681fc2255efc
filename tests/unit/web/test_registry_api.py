"""The registry API: four ways to name the upstream, and the errors when the upstream fails."""

import asyncio
import json
from pathlib import Path

import pytest

from mirror.upstream.errors import Failure, UpstreamError
from mirror.upstream.health import FAILURES
from tests.fakes.access import TokenAuth
from tests.fakes.content import FakeImage
from tests.fakes.faults import Fault
from tests.fakes.registry import FakeRegistry
from tests.running import Running, configured, serving
from tests.wire import Reply, Wire, ask, get, head


def error(reply: Reply) -> tuple[int, str]:
    assert reply.header("content-type") == "application/json"
    return reply.status, json.loads(reply.body)["errors"][0]["code"]


@pytest.mark.parametrize("path", ["/v2", "/v2/", "/quay.io/v2/", "/v2/quay.io/", "/v2/?ns=quay.io"])
async def test_base_answers_on_every_path(mirror: Running, path: str) -> None:
    """The base is 200, JSON, with the version header that Docker looks for, and never a challenge."""
    reply = await get(mirror.address, path)
    assert (reply.status, reply.body) == (200, b"{}")
    assert reply.header("docker-distribution-api-version") == "registry/2.0"
    assert "www-authenticate" not in reply.headers


@pytest.mark.parametrize(
    ("path", "header"),
    [
        ("/v2/x/manifests/t", "X: root"),
        ("/v2/library/x/manifests/t?ns=index.docker.io", "X: ns"),
        ("/v2/docker.io/x/manifests/t", "X: prefix"),
        ("/docker.io/v2/library/x/manifests/t", "X: prefix first"),
        ("/v2/library/x/manifests/t", "Host: docker.io.mirror.test:5000"),
        ("/v2/library/x/manifests/t?ns=docker.io&other=ignored", "X: ns and more"),
        ("http://mirror.test/v2/library/x/manifests/t", "X: absolute form"),
        ("http://docker.io.mirror.test:5000/v2/library/x/manifests/t", "Host: quay.io.mirror.test"),
        ("HTTP://mirror.test/v2/docker.io/x/manifests/t?a=b", "X: absolute form and prefix"),
        ("/v2/library/x/manifests/t", "Host: docker.io"),
        ("/v2/library/x/manifests/t", "Host: registry-1.docker.io:443"),
        ("/v2/library/x/manifests/t", "Host: cache.lan:5000"),
        ("/v2/library/x/manifests/t", "OCI-Namespace: docker.io"),
        ("/v2/docker.io/x/manifests/t?ns=docker.io", "OCI-Namespace: index.docker.io"),
        ("/v2/library%2Fx/manifests/t", "X: encoded"),
    ],
)
async def test_upstream_names_lead_to_one_cache_entry(
    mirror: Running, hub: FakeRegistry, image: FakeImage, path: str, header: str
) -> None:
    """Each way to name the upstream leads to the same repository and the same cache entry."""
    await get(mirror.address, "/v2/library/x/manifests/t")
    reply = await get(mirror.address, path, header)
    assert reply.body == image.manifest_data
    assert hub.requests("GET") == 1


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/v2/x/manifests/t?ns=evil.test", (404, "NAME_UNKNOWN")),
        ("/evil.test/v2/x/manifests/t", (404, "NAME_UNKNOWN")),
        ("/v2/evil.test/x/manifests/t", (404, "NAME_UNKNOWN")),
        ("/v2/x/../../manifests/t", (400, "NAME_INVALID")),
        ("/v2/x%252fy/manifests/t", (400, "NAME_INVALID")),
        ("/v2/x/..%2Fy/manifests/t", (400, "NAME_INVALID")),
        ("/v2/x/manifests/t%2Fu", (404, "NAME_UNKNOWN")),
        ("/v2/docker.io/x/manifests/t?ns=evil.test", (404, "NAME_UNKNOWN")),
        ("/v2/docker.io/x/manifests/t?ns=", (404, "NAME_UNKNOWN")),
        ("/v2/x/manifests/t?ns=docker.io&ns=quay.io", (400, "NAME_INVALID")),
        ("http://nvcr.io/v2/x/manifests/t", (404, "NAME_UNKNOWN")),
        ("/v2//x/manifests/t", (400, "NAME_INVALID")),
        ("/v2/X/manifests/t", (400, "NAME_INVALID")),
        ("/v2/x/manifests/sha256:short", (400, "DIGEST_INVALID")),
        ("/v2/x/blobs/latest", (400, "DIGEST_INVALID")),
        ("/v2/x/manifests/-t", (400, "TAG_INVALID")),
        ("/v2/x/nothing/t", (404, "NAME_UNKNOWN")),
        ("/", (404, "NAME_UNKNOWN")),
        ("/v1/_ping", (404, "NAME_UNKNOWN")),
    ],
)
async def test_invalid_request_is_refused_without_dialling(
    mirror: Running, hub: FakeRegistry, path: str, expected: tuple[int, str]
) -> None:
    """The client gets an OCI error with the right code, and no request goes out (invariant 7)."""
    assert error(await get(mirror.address, path)) == expected
    assert hub.log == []


async def test_head_error_has_no_body(mirror: Running, image: FakeImage) -> None:
    """The response to HEAD has no body, but the Content-Length of the GET's."""
    reply = await head(mirror.address, "/v2/library/x/manifests/nothing")
    assert reply.status == 404
    assert int(reply.header("content-length")) > 20


@pytest.mark.parametrize("path", ["/v2/x/manifests/t", "/v2/x/blobs/sha256:" + "0" * 64, "/v2/x/tags/list"])
@pytest.mark.parametrize(
    ("status", "by_prefix"), [(401, 404), (403, 404), (404, 404), (429, 429), (500, 424), (418, 502)]
)
async def test_failing_upstream_by_root_and_by_prefix(
    mirror: Running, hub: FakeRegistry, path: str, status: int, by_prefix: int
) -> None:
    """The root path gives 404, at which every client moves on, the prefix the status. Never a challenge."""
    hub.fault(Fault(status=status, headers={"WWW-Authenticate": 'Basic realm="x"'}), times=4)
    by_root = await get(mirror.address, path)
    prefixed = await get(mirror.address, path.replace("/v2/", "/v2/docker.io/"))
    assert (by_root.status, prefixed.status) == (404, by_prefix)
    for reply in (by_root, prefixed):
        error(reply)
        assert "www-authenticate" not in reply.headers


@pytest.mark.parametrize(("when", "root", "prefix"), [("next", 404, 404), ("honest", 502, 502)])
async def test_when_unavailable_overrides(
    hub: FakeRegistry, tmp_path: Path, when: str, root: int, prefix: int
) -> None:
    """The option applies one rule to every request."""
    config = configured(tmp_path, {"docker.io": hub.url}, server={"when_unavailable": when})
    async with serving(config) as mirror:
        hub.fault(Fault(status=500), times=4)
        for path, expected in (("/v2/x/manifests/t", root), ("/v2/docker.io/x/manifests/t", prefix)):
            assert (await get(mirror.address, path)).status == expected


async def test_header_timeout_of_a_fill(hub: FakeRegistry, tmp_path: Path) -> None:
    """An upstream that hangs costs the client `header_timeout`; the fill goes on."""
    config = configured(tmp_path, {"docker.io": hub.url}, server={"header_timeout": 0.05})
    async with serving(config) as mirror:
        image = hub.add_image("library/x", "t", [b"0123456789"])
        gate = hub.hold(image.layers[0], after=-1)
        path = f"/v2/docker.io/library/x/blobs/{image.layers[0]}"
        assert (await get(mirror.address, path)).status == 504
        gate.release()
        await mirror.landed(image.layers[0])
        assert (await get(mirror.address, path)).body == b"0123456789"
        assert hub.requests("GET", image.layers[0]) == 1


async def test_silent_upstream_is_waited_for_once(
    hub: FakeRegistry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next request fails at once, for the same tag or another, by HEAD or GET."""
    monkeypatch.setattr("mirror.upstream.health.FIRST_PAUSE", 60.0)
    config = configured(tmp_path, {"docker.io": hub.url}, server={"header_timeout": 0.4})
    async with serving(config) as mirror:
        image = hub.add_image("library/x", "t", [])
        gates = [hub.hold("manifests", after=-1, method=method) for method in ("HEAD", "GET")]
        path = "/v2/docker.io/library/x/manifests"
        assert (await ask(mirror.address, "HEAD", f"{path}/t")).status == 504
        for method, reference in (("HEAD", "t"), ("GET", "t"), ("GET", "u"), ("GET", image.manifest)):
            reply = await ask(mirror.address, method, f"{path}/{reference}")
            assert (reply.status, hub.requests()) == (424, 1)
        for gate in gates:
            gate.release()
        while (await get(mirror.address, f"{path}/t")).status != 200:
            pass


async def test_silent_upstream_gets_a_short_probe(
    hub: FakeRegistry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An upstream that gave no answer has `fallback_after` to answer the probing request."""
    monkeypatch.setattr("mirror.upstream.health.FIRST_PAUSE", 0.0)
    config = configured(
        tmp_path, {"docker.io": hub.url}, server={"header_timeout": 3600}, tags={"fallback_after": 0.1}
    )
    async with serving(config) as mirror:
        hub.add_image("library/x", "t", [])
        silence = UpstreamError(Failure.TIMEOUT, "no answer")
        silence.unanswered = True
        mirror.service._upstreams["docker.io"].own.record_failure(silence, FAILURES)
        gate = hub.hold("manifests", after=-1)
        assert (await get(mirror.address, "/v2/docker.io/library/x/manifests/t")).status == 504
        gate.release()
        while (await get(mirror.address, "/v2/docker.io/library/x/manifests/t")).status != 200:
            pass


async def test_header_timeout_includes_the_token(hub: FakeRegistry, tmp_path: Path) -> None:
    """The time for a token counts: the head is still sent within the limit."""
    hub.auth = TokenAuth()
    config = configured(tmp_path, {"docker.io": hub.url}, server={"header_timeout": 1.2})
    async with serving(config) as mirror:
        image = hub.add_image("library/x", "t", [b"0123456789"])
        token = hub.hold("/token", after=-1)
        hub.fault(Fault(), image.layers[0])  # the challenge is complete
        body = hub.hold(image.layers[0], after=5)
        loop = asyncio.get_running_loop()
        started = loop.time()
        async with await Wire.open(mirror.address) as wire:
            wire.send("GET", f"/v2/library/x/blobs/{image.layers[0]}")
            await token.reached.wait()
            loop.call_at(started + 0.7, token.release)
            assert (await wire.head()).status == 200
            assert loop.time() - started < 1.8
            body.release()


async def test_slow_body_is_not_an_error(hub: FakeRegistry, tmp_path: Path) -> None:
    """A fill that has begun but is slow gets its head in time, and its body as it arrives."""
    config = configured(tmp_path, {"docker.io": hub.url}, server={"header_timeout": 0.5})
    async with serving(config) as mirror:
        image = hub.add_image("library/x", "t", [b"0123456789"])
        gate = hub.hold(image.layers[0], after=5)
        async with await Wire.open(mirror.address) as wire:
            wire.send("GET", f"/v2/library/x/blobs/{image.layers[0]}")
            assert (await wire.head()).status == 200
            gate.release()
            assert await wire.reader.readexactly(10) == b"0123456789"


async def test_unusable_cache_passes_blobs_through(
    mirror: Running, hub: FakeRegistry, image: FakeImage
) -> None:
    """The mirror passes the blob through without its folder (invariant 12), and reports the trouble."""
    partial = mirror.config.cache.dir / "partial"

    def replace() -> None:
        partial.rmdir()
        partial.write_text("a file where the folder was")

    await asyncio.to_thread(replace)
    path = f"library/x/blobs/{image.layers[0]}"
    for _ in range(2):
        assert (await get(mirror.address, f"/v2/{path}")).body == image.layers_data[0]
    assert await mirror.metric('registry_mirror_fill_failures_total{reason="disk"}') == 1
    assert await mirror.metric("registry_mirror_passed_through_total") == 2
    (trouble,) = json.loads((await get(mirror.address, "/readyz")).body)["cache"]["trouble"]
    assert trouble["what"] == "writing"


async def test_other_methods_are_unsupported(mirror: Running) -> None:
    """Every method but GET and HEAD gets 405."""
    assert error(await ask(mirror.address, "OPTIONS", "/v2/")) == (405, "UNSUPPORTED")
