"""A flood of names that a client makes up: every container of a running mirror is known and bounded."""

import asyncio
import collections
import json
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path
from types import MethodType
from typing import Any

import pytest
from aiohttp import web

from mirror.oci.digest import Digest
from mirror.oci.manifest import OCI_MANIFEST
from mirror.util.lru import LRUCache
from mirror.util.ttl_cache import TTLCache
from tests.fakes.access import TokenAuth
from tests.fakes.registry import FakeRegistry
from tests.fakes.site import Seen, Site
from tests.running import NEVER, Running, configured, mirror_of, serving
from tests.wire import Wire

pytestmark = pytest.mark.slow

NAMES = 200
SECURITY = Path(__file__).parents[2] / "docs" / "security.md"

# Containers that a client's names reach. Each has its limit in the code and in docs/security.md.
BOUNDED = {
    "Activity._ended",
    "Accounts._claims",
    "Accounts._visibility",
    "Authorizer._tokens",
    "BlobCache._sizes",
    "Completeness._counts",
    "Completeness._offered",
    "GuestAccounts._accounts",
    "GuestAccounts._alone",
    "GuestRights._answers",
    "GuestRights._wrong",
    "HTTPClient._too_long",
    "HostedOrigin._next_reads",
    "ListingCache._lists",
    "ListingCache._made",
    "ListingCache._pages",
    "ListingCache._texts",
    "ListingCache._without_api",
    "LogTail._lines",
    "ManifestReader._manifests",
    "MemoryCache._absent",
    "MemoryCache._contents",
    "UnwrittenLinks._links",
    "MemoryCache._tags",
    "NegativeCache._known",
    "Prefetch._examined",
    "Prefetch._images",
    "ResponseCache._responses",
    "SavingsCounter._amounts",
    "SeenOnce._marks",
    "SharedResponses._verdicts",
    "SharedResponses.heads",
    "LastUse.used",
    "UploadClaims._coming",
    "UploadClaims._sizes",
    "UploadStore._hashes",
    "Visibility._private",
    "Visibility._public",
    "Visibility._unanswered",
    "WindowCounts._cells",
}


def contents(thing: object) -> list[tuple[str, object]]:
    """Return what an object of ours or of a library refers to, with the way there."""
    if isinstance(thing, dict):
        return [("", value) for value in list(thing.values())]
    if isinstance(thing, list | tuple | set | frozenset | collections.deque):
        return [("", each) for each in list(thing)]
    if isinstance(thing, MethodType):
        return [("", thing.__self__)]
    if not is_walked(thing):
        return []
    slots = [name for kind in type(thing).__mro__ for name in getattr(kind, "__slots__", ())]
    names = {*getattr(thing, "__dict__", {}), *slots}
    return [(name, getattr(thing, name, None)) for name in sorted(names)]


def is_walked(thing: object) -> bool:
    return type(thing).__module__.startswith(("mirror.", "aiohttp.", "prometheus_client."))


def containers(root: object) -> Iterator[tuple[str, int]]:
    """Yield class and attribute of the owner of each container below `root`, and its length."""
    seen: set[int] = set()
    pending: list[tuple[str, object]] = [("", root)]
    while pending:
        place, thing = pending.pop()
        if id(thing) in seen:
            continue
        seen.add(id(thing))
        if isinstance(thing, dict | list | set | collections.deque):
            yield place, len(thing)
        named = is_walked(thing) and not isinstance(thing, LRUCache | TTLCache)
        for name, each in contents(thing):
            pending.append((f"{type(thing).__name__}.{name}" if named else place, each))


def blob(number: int) -> bytes:
    return f"blob {number}".encode()


def manifest(number: int) -> bytes:
    fields = {"schemaVersion": 2, "config": {}, "layers": [], "annotations": {"n": f"{number}"}}
    return json.dumps(fields).encode()


async def flood(mirror: Running) -> None:
    """Ask twice for a tag, a manifest, a blob, the tags and the referrers of each name."""
    async with await Wire.open(mirror.address) as wire:
        for number in range(NAMES):
            held = Digest.of(manifest(number))
            references = ("manifests/t", f"manifests/{held}", f"blobs/{Digest.of(blob(number))}")
            for what in (*references, "tags/list", f"referrers/{held}"):
                for method in ("HEAD", "GET", "GET", "GET"):
                    wire.send(method, f"/v2/made/up{number}/{what}")
                    await wire.reply(method)


async def everything(request: web.BaseRequest, seen: Seen) -> web.StreamResponse:
    """Answer as a registry that has each name that anybody makes up."""
    _, _, rest = seen.path.partition("/up")
    number, _, what = rest.partition("/")
    if what.startswith("blobs"):
        return web.Response(body=blob(int(number)))
    if what.startswith("manifests"):
        body = manifest(int(number))
        headers = {"Content-Type": OCI_MANIFEST, "Docker-Content-Digest": str(Digest.of(body))}
        return web.Response(body=body, headers=headers)
    if what.startswith("tags"):
        return web.Response(body=b'{"name":"x","tags":["t"]}', headers={"Content-Type": "application/json"})
    return web.Response(status=404)


async def nothing(request: web.BaseRequest, seen: Seen) -> web.StreamResponse:
    """Answer as a registry that lets nobody read anything."""
    return web.Response(status=403)


def grown(mirror: Running) -> set[str]:
    return {place for place, length in containers(mirror.service) if length >= NAMES // 2}


async def test_names_that_do_not_exist_fill_known_containers_only(tmp_path: Path) -> None:
    """A container that grows with the names of clients has a bound."""
    logins = [{"username": "a", "password": "x"}, {"username": "b", "password": "y"}]
    # Nothing that is remembered expires while the names come.
    sections: dict[str, Any] = {"upstream": {"accounts": logins}, "tags": {"missing": NEVER}}
    sections["rules"] = [{"name": "this machine", "effect": "allow", "networks": ["127.0.0.1"]}]
    async with FakeRegistry() as fake, mirror_of(fake, tmp_path, **sections) as mirror:
        fake.auth = TokenAuth(users={"a": "x", "b": "y"})
        await flood(mirror)
        assert grown(mirror) <= BOUNDED
        assert grown(mirror) >= {"Authorizer._tokens", "Accounts._claims", "NegativeCache._known"}


async def test_names_that_exist_fill_known_containers_only(tmp_path: Path) -> None:
    """An upstream that has each name makes nothing grow that has no bound."""
    async with Site(everything) as site, serving(configured(tmp_path, {"u.test": site.url})) as mirror:
        await flood(mirror)
        assert grown(mirror) <= BOUNDED
        assert grown(mirror) >= {"MemoryCache._contents"}


@pytest.mark.parametrize("private", [True, False], ids=["private", "public"])
async def test_names_of_strangers_fill_known_containers_only(tmp_path: Path, private: bool) -> None:
    """Clients that no rule names ask for repositories and with credentials without end."""
    async with Site(nothing if private else everything) as site:
        config = configured(tmp_path, {"u.test": site.url}, upstream={"private": "as-upstream"})
        async with serving(config) as mirror, await Wire.open(mirror.address) as wire:
            for number in range(NAMES):
                login = b64encode(f"user{number}:x".encode()).decode()
                wire.send("GET", f"/v2/made/up{number}/manifests/t", [f"Authorization: Basic {login}"])
                assert (await wire.reply()).status == (404 if private else 200)
            assert grown(mirror) <= BOUNDED
            assert grown(mirror) >= {"Visibility._private" if private else "Visibility._public"}


async def test_bounded_containers_are_in_the_threat_model() -> None:
    """Each container that names reach is in the table of docs/security.md, with its bound."""
    text = await asyncio.to_thread(SECURITY.read_text)
    assert [place for place in sorted(BOUNDED) if f"`{place}`" not in text] == []
