"""Pushes over the wire: uploads, refusals before the body, connections, mounts."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from mirror.oci.digest import Digest
from mirror.store.partial import upload_claims
from tests.contract.hosting import ANYBODY, hosting
from tests.fakes.pusher import Pusher, chunked, error, manifest_of
from tests.fakes.registry import FakeRegistry
from tests.running import Running, serving
from tests.wire import Wire

DATA = bytes(range(256)) * 5000  # more than one buffer


@pytest.fixture
async def hub() -> AsyncIterator[FakeRegistry]:
    async with FakeRegistry() as registry:
        yield registry


@pytest.fixture
async def mirror(tmp_path: Path, hub: FakeRegistry) -> AsyncIterator[Running]:
    async with serving(await hosting(tmp_path, hub.url)) as running:
        yield running


@pytest.fixture
async def pusher(mirror: Running) -> AsyncIterator[Pusher]:
    async with await Pusher.open(mirror.address) as client:
        yield client


async def test_push_over_one_connection_is_pulled_back_byte_identical(pusher: Pusher) -> None:
    """POST, PATCH in chunks, PUT, manifest, and reads in between, as Docker sends them."""
    location = await pusher.session()
    pusher.wire.send("PATCH", location, ["Transfer-Encoding: chunked"])
    pusher.wire.writer.write(chunked(DATA[:1000], DATA[1000:700_000], DATA[700_000:]))
    patched = await pusher.wire.reply("PATCH")
    assert (patched.status, patched.header("range")) == (202, f"0-{len(DATA) - 1}")
    assert (await pusher.finish(patched.header("location"), Digest.of(DATA))).status == 201
    digest = await pusher.image("1", b"small layer")
    assert (await pusher.ask("GET", f"blobs/{Digest.of(DATA)}")).body == DATA
    for reference in ("1", digest):
        assert (await pusher.ask("GET", f"manifests/{reference}")).body == manifest_of([b"small layer"])


async def test_push_goes_on_over_other_connections_and_restarts(tmp_path: Path, hub: FakeRegistry) -> None:
    config = await hosting(tmp_path, hub.url)
    async with serving(config) as mirror, await Pusher.open(mirror.address) as pusher:
        location = await pusher.session()
        assert (await pusher.ask("PATCH", location, body=DATA[:500])).status == 202
    async with serving(config) as mirror, await Pusher.open(mirror.address) as pusher:
        status = await pusher.ask("GET", location)
        assert (status.status, status.header("range")) == (204, "0-499")
        assert (await pusher.ask("PATCH", location, body=DATA[500:])).status == 202
        assert (await pusher.finish(location, Digest.of(DATA))).status == 201


async def test_push_of_a_client_that_left_keeps_what_came(mirror: Running) -> None:
    async with await Pusher.open(mirror.address) as pusher:
        location = await pusher.session()
        pusher.wire.send("PATCH", location, [f"Content-Length: {len(DATA)}"])
        pusher.wire.writer.write(DATA[:-1])
        await pusher.wire.writer.drain()
        pusher.wire.reset()
    async with await Pusher.open(mirror.address) as pusher:
        status = await pusher.ask("GET", location)
        offset = int(status.header("range").removeprefix("0-")) + 1
        offset = 0 if offset == 1 else offset
        rest = await pusher.ask("PATCH", location, body=DATA[offset:])
        assert (rest.status, rest.header("range")) == (202, f"0-{len(DATA) - 1}")
        assert (await pusher.finish(location, Digest.of(DATA))).status == 201


@pytest.mark.parametrize("expects", [True, False])
async def test_push_without_a_right_is_refused_before_its_body(
    tmp_path: Path, hub: FakeRegistry, expects: bool
) -> None:
    """No 100 Continue goes out, nothing is read, and the connection ends."""
    async with (
        serving(await hosting(tmp_path, hub.url, rules=[])) as mirror,
        await Wire.open(mirror.address) as wire,
    ):
        wire.send(
            "PATCH",
            f"/v2/office/app/blobs/uploads/{'a' * 32}",
            ["Content-Length: 1000000000", *(["Expect: 100-continue"] if expects else [])],
        )
        reply = await wire.reply("PATCH")
        assert error(reply) == (403, "DENIED")
        assert b"do not let" in reply.body
        assert reply.header("connection") == "close"
        assert await wire.reader.read() == b""
        assert await asyncio.to_thread(lambda: not (tmp_path / "cache" / "uploads").exists())


async def test_push_with_expect_gets_continue_once_it_may_push(pusher: Pusher) -> None:
    location = await pusher.session()
    pusher.wire.send("PATCH", location, ["Content-Length: 5", "Expect: 100-continue"])
    assert (await pusher.wire.head()).status == 100
    pusher.wire.writer.write(b"hello")
    assert (await pusher.wire.reply("PATCH")).status == 202
    assert (await pusher.finish(location, Digest.of(b"hello"))).status == 201


async def test_push_to_a_mirrored_name_is_refused_as_before(pusher: Pusher) -> None:
    for method, path in (("POST", "blobs/uploads/"), ("PUT", "manifests/1"), ("DELETE", "manifests/1")):
        pusher.base = "/v2/hub.test/app"
        reply = await pusher.ask(method, path)
        assert error(reply) == (405, "UNSUPPORTED")
        assert b"this is a pull-through mirror" in reply.body


async def test_requests_behind_a_body_are_answered_in_order(pusher: Pusher) -> None:
    location = await pusher.session()
    pusher.wire.send("PATCH", location, ["Content-Length: 5"])
    pusher.wire.writer.write(b"hello")
    pusher.wire.send("GET", location)
    pusher.wire.send("PATCH", location, ["Transfer-Encoding: chunked"])
    pusher.wire.writer.write(chunked(b" world"))
    pusher.wire.send("GET", "/v2/")
    replies = [await pusher.wire.reply(each) for each in ("PATCH", "GET", "PATCH", "GET")]
    assert [each.status for each in replies] == [202, 204, 202, 200]
    assert replies[1].header("range") == "0-4"
    assert replies[2].header("range") == "0-10"


async def test_wrong_chunks_end_the_connection_and_nothing_behind_them_is_a_request(pusher: Pusher) -> None:
    location = await pusher.session()
    pusher.wire.send("PATCH", location, ["Transfer-Encoding: chunked"])
    pusher.wire.writer.write(b"5\nhello\r\n0\r\n\r\nGET /v2/ HTTP/1.1\r\nHost: x\r\n\r\n")
    reply = await pusher.wire.reply("PATCH")
    assert error(reply) == (400, "BLOB_UPLOAD_INVALID")
    assert reply.header("connection") == "close"
    assert await pusher.wire.reader.read() == b""


async def test_mount_needs_the_right_to_read_the_source(tmp_path: Path, hub: FakeRegistry) -> None:
    rules = [
        {"name": "secret", "effect": "deny", "repositories": ["office/secret"], "actions": ["pull"]},
        ANYBODY,
    ]
    async with serving(await hosting(tmp_path, hub.url, rules=rules)) as mirror:
        layers = {name: f"layer of {name}".encode() for name in ("secret", "open")}
        for name, layer in layers.items():
            async with await Pusher.open(mirror.address, f"office/{name}") as pusher:
                await pusher.blob(layer)
        async with await Pusher.open(mirror.address) as pusher:
            for source, named, status in (
                ("secret", "&from=office/secret", 202),
                ("secret", "", 202),
                ("open", "&from=office/open", 201),
                ("open", "", 201),
                ("open", "&from=../x", 202),
                ("open", "&from=office/nothing", 202),
            ):
                digest = Digest.of(layers[source])
                async with await Pusher.open(mirror.address, f"office/{source}-{status}") as target:
                    reply = await target.begin(f"?mount={digest}{named}")
                    assert reply.status == status, (source, named)
                    there = await target.ask("HEAD", f"blobs/{digest}")
                    assert there.status == (200 if status == 201 else 404)
                    if status == 201:
                        assert reply.header("docker-content-digest") == str(digest)
            assert (await pusher.begin("?mount=sha256:nonsense&from=office/open")).status == 202


async def test_mount_of_what_the_mirror_has_costs_no_upload(mirror: Running, hub: FakeRegistry) -> None:
    image = hub.add_image("team/base", "1", [b"the base"])
    async with await Pusher.open(mirror.address) as pusher:
        pulled = await pusher.ask("GET", f"/v2/hub.test/team/base/blobs/{image.layers[0]}")
        assert pulled.status == 200
        await mirror.landed(image.layers[0])
        assert (await pusher.ask("HEAD", f"blobs/{image.layers[0]}")).status == 404
        mounted = await pusher.begin(f"?mount={image.layers[0]}&from=hub.test/team/base")
        assert mounted.status == 201
        assert (await pusher.ask("GET", f"blobs/{image.layers[0]}")).body == b"the base"


async def test_push_by_host_and_ns_stays_in_its_name(mirror: Running) -> None:
    for headers, query in (("Host: office.lan",), ""), ((), "?ns=office"), (("OCI-Namespace: office",), ""):
        async with await Pusher.open(mirror.address, "team/app", *headers) as pusher:
            begun = await pusher.begin(query)
            assert begun.status == 202, begun.body
            location = begun.header("location")
            assert location.startswith("/v2/office/team/app/blobs/uploads/")
            done = await pusher.finish(location, Digest.of(b"x"), body=b"x")
            assert done.status == 201
            assert (await pusher.ask("GET", done.header("location"))).body == b"x"
        async with await Pusher.open(mirror.address, "office/team/app") as pusher:
            assert (await pusher.ask("HEAD", f"blobs/{Digest.of(b'x')}")).status == 200


async def test_push_of_the_same_blob_at_once_is_kept_once(mirror: Running, tmp_path: Path) -> None:
    async def push(number: int) -> None:
        async with await Pusher.open(mirror.address, f"office/app{number}") as pusher:
            await pusher.image("1", DATA)

    await asyncio.gather(*(push(number) for number in range(20)))
    stored = await asyncio.to_thread(
        lambda: [
            each for each in (tmp_path / "cache" / "blobs").rglob("*.*") if each.stat().st_size == len(DATA)
        ]
    )
    assert len(stored) == 1
    assert await asyncio.to_thread(lambda: list((tmp_path / "cache" / "uploads").iterdir())) == []
    assert await mirror.service._store.upkeep.check() == []


async def test_push_beyond_the_limits_is_refused_with_its_own_words(
    tmp_path: Path, hub: FakeRegistry
) -> None:
    """Before the body where its length is known; in its middle where it comes in chunks."""
    hosted = [{"name": "office", "max_blob": "1MiB", "max_uploads": 2}]
    async with serving(await hosting(tmp_path, hub.url, hosted=hosted)) as mirror:
        async with await Pusher.open(mirror.address) as pusher:
            location = await pusher.session()
            pusher.wire.send("PATCH", location, ["Expect: 100-continue", "Content-Length: 2000000"])
            assert error(await pusher.wire.reply("PATCH")) == (413, "DENIED")
        async with await Pusher.open(mirror.address) as pusher:
            pusher.wire.send("PATCH", location, ["Transfer-Encoding: chunked"])
            pusher.wire.writer.write(chunked(*[b"x" * 200_000] * 10))
            assert error(await pusher.wire.reply("PATCH")) == (413, "DENIED")
        async with await Pusher.open(mirror.address) as pusher:
            await pusher.session()
            refused = await pusher.begin()
            assert error(refused) == (429, "TOOMANYREQUESTS")
            assert int(refused.header("retry-after")) > 0


async def test_open_uploads_of_one_client_leave_room_for_others(
    tmp_path: Path, hub: FakeRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client that begins one in each of many repositories is refused, and another one is not."""
    monkeypatch.setattr(upload_claims, "LEAST_SHARE", 2)
    hosted = [{"name": "office", "max_uploads": 8}]
    rules = [{**ANYBODY, "networks": ["127.0.0.0/8"]}]
    async with serving(await hosting(tmp_path, hub.url, hosted=hosted, rules=rules)) as mirror:
        answers = []
        for number in range(4):
            async with await Pusher.open(mirror.address, f"office/app{number}") as pusher:
                answers.append((await pusher.begin()).status)
        assert answers == [202, 202, 429, 429]
        async with Pusher(await Wire.open(mirror.address, client="127.0.0.2"), "office/app3") as pusher:
            await pusher.blob(DATA)


async def test_push_of_an_image_with_127_layers(pusher: Pusher) -> None:
    layers = [f"layer {number}".encode() for number in range(127)]
    digest = await pusher.image("many", *layers)
    assert (await pusher.ask("GET", f"manifests/{digest}")).body == manifest_of(layers)
    for layer in (layers[0], layers[63], layers[126]):
        assert (await pusher.ask("GET", f"blobs/{Digest.of(layer)}")).body == layer
