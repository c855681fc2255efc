"""Bundles of the pages: who is refused, as for a pull, and what becomes of visitors that do not read."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from mirror.access.rules import Action
from mirror.oci.manifest import OCI_MANIFEST
from mirror.web.admin import pages_server
from mirror.web.connections.side_listener import SideBounds
from tests.contract.test_pages_access import token
from tests.fakes.access import TokenAuth
from tests.fakes.content import FakeImage
from tests.fakes.registry import FakeRegistry
from tests.paged import Paged, paged
from tests.running import configured
from tests.wire import Reply, Wire, request_head

OFFICE, STRANGER = "127.0.0.1", "127.0.0.2"
NAME = "quay.io/org/secret:1"
BUNDLE = f"/api/v1/bundle?reference={NAME}"


async def pull(mirror: Paged, image: FakeImage) -> None:
    """Have the office pull an image."""
    paths = ["manifests/1", *(f"blobs/{each}" for each in image.blobs)]
    for path in paths:
        assert (await manifest(mirror, OFFICE, path)).status == 200
    for each in image.blobs:
        await mirror.landed(each)


async def manifest(mirror: Paged, client: str, path: str = "manifests/1") -> Reply:
    async with await Wire.open(mirror.address, client=client) as wire:
        wire.send("GET", f"/v2/quay.io/org/secret/{path}", [f"Accept: {OCI_MANIFEST}"])
        return await wire.reply()


@asynccontextmanager
async def holding(
    folder: Path, rules: Sequence[dict[str, Any]] = (), *, private: bool = False, size: int = 100
) -> AsyncIterator[tuple[Paged, FakeImage]]:
    """A mirror with one image, which the office has pulled."""
    async with FakeRegistry() as quay:
        image = quay.add_image("org/secret", "1", [bytes(size)])
        account = {}
        if private:
            quay.auth = TokenAuth(user="u", password="p", private={"org/secret"})
            account = {"quay.io": {"username": "u", "password": "p"}}
        config = configured(folder, {"quay.io": quay.url}, upstream_of=account, rules=list(rules))
        async with paged(config) as mirror:
            await pull(mirror, image)
            yield mirror, image


OFFICE_MAY = {"name": "office", "effect": "allow", "networks": [OFFICE], "repositories": ["quay.io/org/*"]}
LISTING = {**OFFICE_MAY, "name": "inventory", "networks": [STRANGER], "actions": ["list"]}
NO_PULL = {"name": "no pull", "effect": "deny", "networks": [STRANGER], "actions": ["pull"]}
YOUNG = {"name": "three days", "effect": "deny", "networks": [STRANGER], "min_age": "3d"}


@pytest.mark.parametrize(
    ("rules", "private", "status"),
    [
        ([OFFICE_MAY, LISTING, NO_PULL], False, 404),
        ([OFFICE_MAY, LISTING], True, 403),
        ([OFFICE_MAY], True, 404),
        ([YOUNG], False, 403),
    ],
    ids=["may only list", "may only list what is private", "private", "too young"],
)
async def test_bundle_is_refused_where_a_pull_is(
    tmp_path: Path, rules: list[dict[str, Any]], private: bool, status: int
) -> None:
    """Tag and digest alike; a client that may pull gets it, and an administrator does."""
    async with holding(tmp_path, rules, private=private) as (mirror, image):
        by_digest = f"/api/v1/bundle?reference=quay.io/org/secret@{image.manifest}"
        assert (await manifest(mirror, STRANGER)).status == 403
        for path in (BUNDLE, by_digest):
            for method in ("GET", "HEAD"):
                refused = await mirror.ask(path, client=STRANGER, method=method)
                assert refused.status == status
                assert refused.header("content-type").startswith("application/json")
            allowed = await mirror.ask(path, client=OFFICE)
            assert (allowed.status, allowed.complete) == (200, True)
        admin = await token(mirror, "me", Action.ADMIN)
        assert (await mirror.ask(BUNDLE, admin, client=STRANGER)).status == 200


async def test_token_for_lists_alone_gets_no_bundle(tmp_path: Path) -> None:
    """A token restricts what its bearer could have without it."""
    async with holding(tmp_path) as (mirror, _):
        assert (await mirror.ask(BUNDLE, await token(mirror, "ci", Action.LIST))).status == 404
        assert (await mirror.ask(BUNDLE, await token(mirror, "cd", Action.LIST, Action.PULL))).status == 200


async def slow_reader(mirror: Paged, stack: AsyncExitStack) -> None:
    """Ask for the bundle, and read no more than its head begins with."""
    loop, (host, _, port) = asyncio.get_running_loop(), mirror.admin.rpartition(":")
    client = stack.enter_context(socket.socket())
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.setblocking(False)
    await loop.sock_connect(client, (host, int(port)))
    await loop.sock_sendall(client, request_head("GET", BUNDLE, [f"Host: {mirror.admin}"]))
    assert await loop.sock_recv(client, 12) == b"HTTP/1.1 200"


async def test_visitors_that_do_not_read_give_their_places_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two of them do not shut the others out."""
    monkeypatch.setattr(pages_server, "BOUNDS", SideBounds(64, unread=0.2))
    async with holding(tmp_path, size=16 * 1024 * 1024) as (mirror, _), AsyncExitStack() as stack:
        for _ in range(2):
            await slow_reader(mirror, stack)
        async with asyncio.timeout(60):
            while (await mirror.ask(BUNDLE, method="HEAD")).status != 200:
                pass


async def test_bundles_that_are_asked_for_at_once_are_bounded(tmp_path: Path) -> None:
    """All of them find a free place before the first one takes it."""
    async with holding(tmp_path, size=16 * 1024 * 1024) as (mirror, _), AsyncExitStack() as stack:
        wires = [await stack.enter_async_context(await Wire.open(mirror.admin)) for _ in range(6)]
        for wire in wires:
            wire.writer.transport.pause_reading()  # type: ignore[attr-defined]
            wire.send("GET", BUNDLE, [f"Host: {mirror.admin}"])
        for wire in wires:
            wire.writer.transport.resume_reading()  # type: ignore[attr-defined]
        heads = [await wire.head() for wire in wires]
        refused = [each for each in heads if each.status == 429]
        assert len(refused) == 4
        assert len(heads) - len(refused) == 2
        assert json.loads((await wires[heads.index(refused[0])].reader.read(10_000)).decode())["to_do"]
