"""Logins for pushes by the book: Bearer with scopes, beside pulls that are free; who is refused, and how."""

import asyncio
import json
from base64 import b64encode
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import bcrypt
import pytest

from mirror.oci.digest import Digest
from tests.contract.hosting import hosting
from tests.fakes.pusher import Pusher, error
from tests.running import Running, serving
from tests.wire import Reply

LOGIN, MIRROR = "Host: login.lan:5000", "Host: mirror.lan:5000"
RULES: list[dict[str, Any]] = [
    {
        "name": "alice pushes",
        "effect": "allow",
        "identities": ["user:alice"],
        "repositories": ["office/*"],
        "actions": ["push"],
    },
    {"name": "users pull", "effect": "allow", "identities": ["user:*"]},
]


def basic(user: str) -> str:
    return f"Authorization: Basic {b64encode(f'{user}:wonder'.encode()).decode()}"


@pytest.fixture
async def mirror(tmp_path: Path) -> AsyncIterator[Running]:
    users = tmp_path / "users"
    hashed = bcrypt.hashpw(b"wonder", bcrypt.gensalt(4)).decode()
    await asyncio.to_thread(users.write_text, f"alice:{hashed}\nbob:{hashed}\n")
    access = {"htpasswd": users, "login_hosts": ["login.lan:5000"]}
    async with serving(await hosting(tmp_path, rules=RULES, access=access)) as running:
        yield running


async def ask(mirror: Running, method: str, path: str, *headers: str) -> Reply:
    async with await Pusher.open(mirror.address) as pusher:
        return await pusher.ask(method, path, *headers)


async def token(mirror: Running, *headers: str) -> str:
    path = "/token?service=login.lan:5000&scope=repository:office/app:pull,push"
    reply = await ask(mirror, "GET", path, LOGIN, *headers)
    return f"Authorization: Bearer {json.loads(reply.body)['token']}"


async def test_push_by_the_book(mirror: Running) -> None:
    """Docker: /v2/ challenges, a token for the login, then everything with it; others pull with none."""
    challenged = await ask(mirror, "GET", "/v2/", LOGIN)
    assert challenged.status == 401
    assert challenged.header("www-authenticate").startswith('Bearer realm="http://login.lan:5000/token"')
    bearer = await token(mirror, basic("alice"))
    assert (await ask(mirror, "GET", "/v2/", LOGIN, bearer)).status == 200
    async with await Pusher.open(mirror.address, "office/app", LOGIN, bearer) as pusher:
        digest = await pusher.image("1", b"layer")
    nobody = await token(mirror)
    for headers in ((LOGIN, nobody), (LOGIN,), (MIRROR,), (LOGIN, "Authorization: Basic Og==")):
        assert (await ask(mirror, "GET", f"manifests/{digest}", *headers)).status == 200


@pytest.mark.parametrize(
    ("method", "path", "scope"),
    [
        ("POST", "blobs/uploads/", "repository:office/app:pull,push"),
        ("PUT", "manifests/1", "repository:office/app:pull,push"),
        ("PATCH", f"blobs/uploads/{'a' * 32}", "repository:office/app:pull,push"),
        ("DELETE", f"manifests/{Digest.of(b'')}", "repository:office/app:delete"),
    ],
)
async def test_push_without_a_login_is_challenged_for_its_scope(
    mirror: Running, method: str, path: str, scope: str
) -> None:
    """containerd, oras and crane look for the challenge there; a token for nobody is answered the same."""
    nobody = await token(mirror)
    for headers, more in (((LOGIN,), ""), ((LOGIN, nobody), ',error="insufficient_scope"')):
        reply = await ask(mirror, method, path, *headers)
        assert error(reply) == (401, "UNAUTHORIZED")
        assert reply.header("www-authenticate").endswith(f'scope="{scope}"{more}')
        assert b"log in at login.lan:5000" in reply.body


async def test_push_of_who_may_not_is_denied(mirror: Running) -> None:
    """Words of its own stop Docker, which tries for 50 seconds otherwise. A rule for pulls opens nothing."""
    bob = await token(mirror, basic("bob"))
    for headers in ((LOGIN, bob), (LOGIN, basic("bob")), (MIRROR,), (MIRROR, "Authorization: Basic Og==")):
        for method, path in (("POST", "blobs/uploads/"), ("PUT", "manifests/1"), ("DELETE", "manifests/1")):
            reply = await ask(mirror, method, path, *headers)
            assert error(reply) == (403, "DENIED")
            assert b"the rules of this mirror do not let" in reply.body
            assert "www-authenticate" not in reply.headers
    alice = await token(mirror, basic("alice"))
    assert error(await ask(mirror, "DELETE", "manifests/1", LOGIN, alice)) == (403, "DENIED")


async def test_session_of_another_repository_is_unknown(mirror: Running) -> None:
    bearer = await token(mirror, basic("alice"))
    async with await Pusher.open(mirror.address, "office/app", LOGIN, bearer) as pusher:
        location = await pusher.session()
        elsewhere = location.replace("office/app", "office/other")
        assert error(await pusher.ask("GET", elsewhere)) == (404, "BLOB_UPLOAD_UNKNOWN")
        assert (await pusher.ask("GET", location)).status == 204


async def test_name_of_a_hosted_registry_is_a_name_for_logins(mirror: Running) -> None:
    """No client has it as a mirror of another registry, whose password it would send."""
    assert (await ask(mirror, "GET", "/v2/", "Host: office.lan")).status == 401
    reply = await ask(mirror, "POST", "/v2/app/blobs/uploads/", "Host: office.lan")
    assert reply.header("www-authenticate").endswith('scope="repository:app:pull,push"')
