"""Logins: who is recognised by which credentials, where clients are challenged, how long a right lasts."""

import asyncio
import json
from base64 import b64encode
from collections.abc import AsyncIterator
from io import StringIO
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import bcrypt
import pytest

from mirror.config.schema import Config, LogSettings
from mirror.util.log import configure
from tests.fakes.registry import FakeRegistry
from tests.running import Running, configured, serving
from tests.wire import Reply, Wire

PASSWORDS = {"alice": "wonder", "bob": "builder:1"}
LINES = {
    name: f"{name}:{bcrypt.hashpw(password.encode(), bcrypt.gensalt(4)).decode()}\n"
    for name, password in PASSWORDS.items()
}
SECRET, OPEN = "team/secret", "team/open"
LOGIN, MIRROR = "Host: login.lan:5000", "Host: mirror.lan:5000"
RULES = [
    {"name": "not from there", "effect": "deny", "identities": ["user:alice"], "networks": ["127.0.0.2"]},
    {"name": "alice", "effect": "allow", "identities": ["user:alice"]},
    {"name": "open", "effect": "allow", "repositories": ["hub.test/team/open"]},
]
CHALLENGE = 'Bearer realm="http://login.lan:5000/token",service="login.lan:5000"'


def basic(user: str, password: str | None = None) -> str:
    login = f"{user}:{PASSWORDS[user] if password is None else password}"
    return f"Authorization: Basic {b64encode(login.encode()).decode()}"


class Scene:
    """A mirror of one registry with a repository for alice alone, and one for everybody."""

    def __init__(self, mirror: Running, hub: FakeRegistry, users: Path) -> None:
        self.mirror = mirror
        self.users = users
        self.image = hub.add_image(SECRET, "1", [b"secret layer"])
        hub.add_image(OPEN, "1", [b"open layer"])
        self.secret, self.open = f"/v2/hub.test/{SECRET}/manifests/1", f"/v2/hub.test/{OPEN}/manifests/1"
        self.blob = f"/v2/hub.test/{SECRET}/blobs/{self.image.layers[0]}"

    async def ask(self, path: str, *headers: str, method: str = "GET", body: bytes = b"") -> Reply:
        lengths = [f"Content-Length: {len(body)}"] if body else []
        async with await Wire.open(self.mirror.address) as wire:
            wire.send(method, path, [*headers, *lengths])
            wire.writer.write(body)
            return await wire.reply(method)

    async def status(self, path: str, *headers: str) -> int:
        return (await self.ask(path, *headers)).status

    async def token(self, *headers: str) -> str:
        reply = await self.ask("/token?service=login.lan:5000&scope=repository:x:pull", LOGIN, *headers)
        assert reply.status == 200, reply.body
        return str(json.loads(reply.body)["token"])

    async def bearer(self, *headers: str) -> str:
        return f"Authorization: Bearer {await self.token(*headers)}"

    async def post(self, **fields: str) -> Reply:
        kind = "Content-Type: application/x-www-form-urlencoded"
        return await self.ask("/token", LOGIN, kind, method="POST", body=urlencode(fields).encode())


def config_of(folder: Path, hub: FakeRegistry, **access: Any) -> Config:
    users = folder / "users"
    users.write_text("".join(LINES.values()))
    options = {"default": "deny", "htpasswd": users, "login_hosts": ["login.lan:5000"], **access}
    return configured(folder / "cache", {"hub.test": hub.url}, rules=RULES, access=options)


async def made(folder: Path, hub: FakeRegistry, **access: Any) -> Config:
    return await asyncio.to_thread(config_of, folder, hub, **access)


@pytest.fixture
async def scene(tmp_path: Path) -> AsyncIterator[Scene]:
    async with FakeRegistry() as hub, serving(await made(tmp_path, hub)) as mirror:
        yield Scene(mirror, hub, tmp_path / "users")


def error(reply: Reply) -> tuple[int, str]:
    return reply.status, json.loads(reply.body)["errors"][0]["code"]


async def test_pull_starts_with_a_challenge_at_a_login_host(scene: Scene) -> None:
    reply = await scene.ask("/v2/", LOGIN)
    assert error(reply) == (401, "UNAUTHORIZED")
    assert reply.header("www-authenticate") == CHALLENGE
    assert reply.header("docker-distribution-api-version") == "registry/2.0"
    assert reply.header("content-type") == "application/json"


async def test_objects_are_challenged_where_a_login_may_help(scene: Scene) -> None:
    """containerd, oras and regctl ask for no /v2/."""
    for path in (scene.secret, scene.blob):
        for method in ("GET", "HEAD"):
            reply = await scene.ask(path, LOGIN, method=method)
            assert reply.status == 401
            scope = f',scope="repository:hub.test/{SECRET}:pull"'
            assert reply.header("www-authenticate") == CHALLENGE + scope
    assert await scene.status(scene.open, LOGIN) == 200


@pytest.mark.parametrize("credentials", [(), ("Authorization: Basic Og==",), (basic("carol", "x"),)])
async def test_no_challenge_at_another_name(scene: Scene, credentials: tuple[str, ...]) -> None:
    """A Docker daemon would send its Docker Hub password; one that it sends unasked is ignored."""
    for path, status in (("/v2/", 200), (scene.secret, 403), (scene.open, 200), ("/token", 404)):
        reply = await scene.ask(path, MIRROR, *credentials)
        assert reply.status == status
        assert "www-authenticate" not in reply.headers


async def test_credentials_at_another_name_are_taken_if_they_are_right(scene: Scene) -> None:
    """containerd sends what its hosts.toml says with every request, unasked."""
    assert await scene.status(scene.secret, MIRROR, basic("alice")) == 200
    reply = await scene.ask(scene.secret, MIRROR, basic("alice", "wrong"))
    assert error(reply) == (403, "DENIED")
    assert b"wrong user or password for 'alice'" in reply.body


async def test_basic_is_taken_unasked_at_a_login_host(scene: Scene) -> None:
    """crane with a login sends it with every request where /v2/ does not challenge."""
    assert await scene.status("/v2/", LOGIN, basic("alice")) == 200
    assert await scene.status(scene.secret, LOGIN, basic("alice")) == 200
    assert error(await scene.ask(scene.secret, LOGIN, basic("bob"))) == (403, "DENIED")


async def test_login_without_user_and_password_is_nobody(scene: Scene) -> None:
    nobody = "Authorization: Basic Og=="
    assert await scene.status("/v2/", LOGIN, nobody) == 401
    assert await scene.status(scene.open, LOGIN, nobody) == 200
    assert await scene.status("/token", LOGIN, nobody) == 200


@pytest.mark.parametrize(
    "header",
    [
        basic("alice", "wrong"),
        basic("carol", "wonder"),
        basic("alice", "x" * 1000),
        "Authorization: Basic !",
        "Authorization: Bearer x",
        "Authorization: Bearer rmt1.x.y",
        "Authorization: Negotiate x",
    ],
)
async def test_wrong_credentials_are_refused_at_a_login_host(scene: Scene, header: str) -> None:
    """A client learns that its login is wrong also where everybody may have what it asks for."""
    for path in ("/v2/", scene.open, scene.secret):
        reply = await scene.ask(path, LOGIN, header)
        assert error(reply) == (401, "UNAUTHORIZED")
        invalid = ',error="invalid_token"' if "Bearer" in header else ""
        assert reply.header("www-authenticate") == CHALLENGE + invalid
    reply = await scene.ask("/token", LOGIN, header)
    assert error(reply) == (401, "UNAUTHORIZED")
    assert reply.header("www-authenticate").startswith("Basic ")


async def test_token_opens_what_the_rules_open_to_its_holder(scene: Scene) -> None:
    """The scope that the token was asked for does not matter."""
    alice, bob, nobody = (
        await scene.bearer(basic("alice")),
        await scene.bearer(basic("bob")),
        await scene.bearer(),
    )
    for bearer, status in ((alice, 200), (bob, 403), (nobody, 403)):
        assert await scene.status("/v2/", LOGIN, bearer) == 200
        assert await scene.status(scene.open, LOGIN, bearer) == 200
        for path in (scene.secret, scene.blob):
            assert await scene.status(path, LOGIN, bearer) == status


async def test_token_is_answered_as_all_clients_read_it(scene: Scene) -> None:
    """Some read `token`, some `access_token`; a wrong issued_at would make docker ask each time."""
    reply = await scene.ask("/token", LOGIN, basic("alice"))
    answer = json.loads(reply.body)
    assert set(answer) == {"token", "access_token", "expires_in"}
    assert answer["token"] == answer["access_token"]
    assert answer["expires_in"] >= 300
    assert reply.header("cache-control") == "no-store"
    assert "wonder" not in answer["token"]


async def test_password_may_be_posted(scene: Scene) -> None:
    """containerd, BuildKit and dockerd's containerd store do."""
    fields = {
        "grant_type": "password",
        "service": "login.lan:5000",
        "client_id": "containerd-client",
        "scope": f"repository:hub.test/{SECRET}:pull",
        "username": "bob",
        "password": "builder:1",
    }
    reply = await scene.post(**fields)
    assert reply.status == 200
    assert reply.header("connection") == "close"
    bearer = f"Authorization: Bearer {json.loads(reply.body)['access_token']}"
    assert await scene.status("/v2/", LOGIN, bearer) == 200
    assert error(await scene.post(**{**fields, "password": "x"})) == (401, "UNAUTHORIZED")
    assert error(await scene.post(**{**fields, "username": ""})) == (401, "UNAUTHORIZED")


@pytest.mark.parametrize("grant", ["refresh_token", ""])
async def test_other_grants_are_refused_so_that_clients_go_on_with_get(scene: Scene, grant: str) -> None:
    reply = await scene.post(grant_type=grant, refresh_token="x")
    assert error(reply) == (401, "UNAUTHORIZED")


async def test_form_in_pieces_and_form_that_is_none(scene: Scene) -> None:
    head = (
        "POST /token HTTP/1.1\r\nHost: login.lan:5000\r\nContent-Length: {}\r\n"
        "Content-Type: application/x-www-form-urlencoded\r\n\r\n"
    )
    form = urlencode({"grant_type": "password", "username": "alice", "password": "wonder"}).encode()
    async with await Wire.open(scene.mirror.address) as wire:
        wire.writer.write(head.format(len(form)).encode() + form[:5])
        await wire.writer.drain()
        assert await scene.status("/v2/", MIRROR) == 200  # a turn of the mirror's loop
        wire.writer.write(form[5:] + b"GET /v2/ HTTP/1.1\r\nHost: mirror.lan:5000\r\n\r\n")
        assert (await wire.reply()).status == 200
        assert await wire.reader.read() == b""
    for body in (b"\xff" * 100, b"&".join([b"a=b"] * 1000), b"x" * 20_000):
        reply = await scene.ask("/token", LOGIN, method="POST", body=body)
        assert reply.status == 401


async def test_token_service_is_for_get_and_post(scene: Scene) -> None:
    for method in ("HEAD", "PUT", "DELETE"):
        reply = await scene.ask("/token", LOGIN, method=method)
        assert (reply.status, reply.header("allow")) == (405, "GET, POST")


async def test_token_outlives_the_mirror_and_is_taken_by_other_workers(tmp_path: Path) -> None:
    async with FakeRegistry() as hub:
        config = await made(tmp_path, hub)
        async with serving(config) as one, serving(config) as other:
            first = Scene(one, hub, tmp_path / "users")
            bearer = await first.bearer(basic("alice"))
            assert await Scene(other, hub, first.users).status(first.secret, LOGIN, bearer) == 200
        async with serving(config) as later:
            assert await Scene(later, hub, first.users).status(first.secret, LOGIN, bearer) == 200
        mode = (await asyncio.to_thread((tmp_path / "cache" / "token-key").stat)).st_mode
        assert mode & 0o777 == 0o600


async def until(scene: Scene, status: int, path: str, *headers: str) -> None:
    """Wait until the request is answered with this status: a change of the file is seen within a second."""
    async with asyncio.timeout(60), await Wire.open(scene.mirror.address) as wire:
        while True:
            wire.send("GET", path, headers)
            if (await wire.reply()).status == status:
                return


@pytest.mark.parametrize("way", ["basic", "token"])
async def test_removed_user_has_no_right_any_more(scene: Scene, way: str) -> None:
    """An open connection, whose requests were answered from memory, is no exception."""
    header = basic("alice") if way == "basic" else await scene.bearer(basic("alice"))
    async with await Wire.open(scene.mirror.address) as wire:
        for _ in range(5):
            wire.send("GET", scene.secret, [LOGIN, header])
            assert (await wire.reply()).status == 200
        await asyncio.to_thread(scene.users.write_text, LINES["bob"])
        await until(scene, 401, scene.secret, LOGIN, header)
        wire.send("GET", scene.secret, [LOGIN, header])
        assert (await wire.reply()).status == 401
    await asyncio.to_thread(scene.users.write_text, "".join(LINES.values()))
    await until(scene, 200, scene.secret, LOGIN, header)


async def test_remembered_challenge_and_response_are_not_mixed(scene: Scene) -> None:
    """One connection, all clients in turn: each head has its own answer."""
    heads = {
        (LOGIN,): 401,
        (LOGIN, basic("alice")): 200,
        (LOGIN, basic("bob")): 403,
        (MIRROR,): 403,
        (MIRROR, basic("alice")): 200,
        (LOGIN, await scene.bearer()): 403,
        (LOGIN, await scene.bearer(basic("alice"))): 200,
    }
    async with await Wire.open(scene.mirror.address) as wire:
        for _ in range(5):
            for headers, status in heads.items():
                wire.send("GET", scene.secret, headers)
                assert (await wire.reply()).status == status, headers


async def test_remembered_response_is_for_the_network_that_a_rule_couples_with_a_user(scene: Scene) -> None:
    """The same bytes of a request, from two addresses in turn."""
    async with (
        await Wire.open(scene.mirror.address) as here,
        await Wire.open(scene.mirror.address, client="127.0.0.2") as there,
    ):
        for _ in range(5):
            for wire, status in ((here, 200), (there, 403)):
                wire.send("GET", scene.secret, [LOGIN, basic("alice")])
                assert (await wire.reply()).status == status


async def test_login_is_asked_for_everywhere_if_the_operator_insists(tmp_path: Path) -> None:
    async with FakeRegistry() as hub, serving(await made(tmp_path, hub, login_hosts=["*"])) as mirror:
        scene = Scene(mirror, hub, tmp_path / "users")
        reply = await scene.ask("/v2/", MIRROR)
        assert reply.header("www-authenticate").startswith('Bearer realm="http://mirror.lan:5000/token"')


@pytest.mark.usefixtures("own_logging")
async def test_access_line_has_who_and_why_and_no_secret(scene: Scene) -> None:
    log = StringIO()
    configure(LogSettings(format="json", level="debug"), log)
    await scene.ask(scene.secret, LOGIN, basic("alice"))
    await scene.ask(scene.secret, LOGIN, basic("alice", "hunter2"))
    bearer = await scene.bearer(basic("alice"))
    await scene.ask(scene.secret, LOGIN, bearer)
    await scene.ask(scene.secret, LOGIN)
    await scene.post(grant_type="password", username="bob", password="builder:1")
    scene.mirror.service.metrics.requests.flush_pending()
    lines = [json.loads(line) for line in log.getvalue().splitlines()]
    lines = [line for line in lines if "outcome" in line]
    seen = [(line["status"], line["outcome"], line.get("identity")) for line in lines]
    assert seen == [
        (200, "miss", ["user:alice"]),
        (401, "denied", None),
        (200, "hit", ["user:alice"]),
        (200, "hit", ["user:alice"]),
        (401, "challenged", None),
        (200, "hit", ["user:bob"]),
    ]
    assert lines[1]["note"] == "wrong user or password for 'alice'"
    for secret in ("wonder", "hunter2", "builder", bearer[-20:], basic("alice")[-10:], "rmt1."):
        assert secret not in log.getvalue()
