"""Guests: clients whose own credentials open a private repository at its upstream, and nobody else's do."""

import asyncio
import base64
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from io import StringIO
from pathlib import Path
from typing import Any

import bcrypt
import pytest

from mirror.cache.private.attempts import FOR_USER, OF_NETWORK
from mirror.cache.private.guest_rights import GRANTED_SECONDS, REFUSED_SECONDS
from mirror.config.schema import LogSettings
from mirror.util.log import configure
from tests.fakes.access import BasicAuth, TokenAuth, basic_login
from tests.fakes.content import FakeImage
from tests.fakes.faults import Fault
from tests.fakes.registry import FakeRegistry
from tests.running import LARGE, LARGE_DATA, NEVER, Running, configured, serving
from tests.wire import Reply, Wire

SECRET, OPEN, OTHER = "org/secret", "org/open", "org/other"
SMALL, BIG = b"a private layer", LARGE_DATA
START, DAY = 1_700_000_000.0, 24 * 3600.0
PASSWORDS = {"alice": "alice-canary", "bob": "bob-canary"}


def basic(user: str, password: str | None = None) -> str:
    login = f"{user}:{PASSWORDS[user] if password is None else password}"
    return f"Authorization: Basic {base64.b64encode(login.encode()).decode()}"


class Scene:
    """A mirror that asks quay.io with its clients' credentials; alice may read the private repository."""

    def __init__(self, quay: FakeRegistry, folder: Path, *, account: bool) -> None:
        self.quay = quay
        self.folder = folder
        self.account = account
        self.now = START
        self.asked = 0
        self.image = quay.add_image(SECRET, "1", [SMALL, BIG])
        self.open = quay.add_image(OPEN, "1", [b"public"])
        self.auth = TokenAuth(
            user="u",
            password="p",
            private={SECRET, OTHER},
            users=dict(PASSWORDS),
            readers={SECRET: {"alice"}, OTHER: {"alice", "bob", "u"}},
        )
        quay.auth = self.auth
        self.mirror: Running

    @asynccontextmanager
    async def running(self, **changes: Any) -> AsyncIterator["Scene"]:
        login = {"username": "u", "password": "p"} if self.account else {}
        quay = {"private": "as-upstream", "recheck_access": DAY, **login}
        sections = {"tags": {"fresh": 60, "fallback_after": NEVER, "missing": 0}, **changes}
        config = await asyncio.to_thread(
            configured, self.folder, {"quay.io": self.quay.url}, upstream_of={"quay.io": quay}, **sections
        )
        async with serving(config, lambda: self.now) as self.mirror:
            yield self

    async def ask(self, path: str, *headers: str, method: str = "GET", client: str = "127.0.0.1") -> Reply:
        """Ask with a head that no request had before, past the response cache."""
        self.asked += 1
        async with await Wire.open(self.mirror.address, client=client) as wire:
            wire.send(method, path, [f"X-Asked: {self.asked}", *headers])
            return await wire.reply(method)

    async def pull(self, *headers: str) -> set[int]:
        """Pull the private image by all kinds of requests; return the statuses."""
        found = {(await self.ask(path, *headers)).status for path in paths(self.image)}
        for digest in self.image.blobs:
            await self.mirror.landed(digest)
        return found

    def passwords(self, user: str) -> int:
        """Return how many requests the upstream has got with a password of the user."""
        logins = (basic_login(each.headers.get("Authorization")) for each in self.quay.log)
        return sum(login is not None and login[0] == user for login in logins)


def content_of(folder: Path) -> bytes:
    return b"".join(each.read_bytes() for each in folder.rglob("*") if each.is_file())


def paths(image: FakeImage) -> list[str]:
    base = f"/v2/{image.repository}"
    return [
        f"{base}/manifests/1",
        f"{base}/manifests/{image.manifest}",
        *(f"{base}/blobs/{digest}" for digest in image.blobs),
        f"{base}/tags/list",
        f"{base}/referrers/{image.manifest}",
    ]


@pytest.fixture
async def quay() -> AsyncIterator[FakeRegistry]:
    async with FakeRegistry() as fake:
        yield fake


@pytest.fixture(params=[False, True], ids=["without account", "account without the right"])
async def scene(quay: FakeRegistry, tmp_path: Path, request: Any) -> AsyncIterator[Scene]:
    async with Scene(quay, tmp_path / "cache", account=request.param).running() as scene:
        yield scene


OTHERS = [(), (basic("bob"),), (basic("alice", "wrong"),), ("Authorization: Basic Og==",)]


async def test_private_content_is_for_who_may_read_it_upstream(scene: Scene) -> None:
    """Cold and warm: alice gets it, by her own credentials, and no other client gets anything."""
    for _ in range(2):
        for headers in OTHERS:
            assert await scene.pull(*headers) == {404}, headers
        assert await scene.pull(basic("alice")) == {200}
    for headers in OTHERS:
        for path in paths(scene.image):
            for method in ("GET", "HEAD"):
                reply = await scene.ask(path, "Range: bytes=0-3", *headers, method=method)
                assert (reply.status, SMALL in reply.body) == (404, False)


async def test_public_content_needs_no_credentials(scene: Scene) -> None:
    for headers in [*OTHERS, (basic("alice"),)]:
        assert {(await scene.ask(path, *headers)).status for path in paths(scene.open)} == {200}
    assert scene.passwords("alice") == 0


async def test_warm_content_costs_a_guest_one_question(scene: Scene) -> None:
    await scene.pull(basic("alice"))
    asked = len(scene.quay.log)
    await scene.pull(basic("alice"))
    assert len(scene.quay.log) == asked


async def test_right_that_was_withdrawn_ends_within_its_term(scene: Scene) -> None:
    assert await scene.pull(basic("alice")) == {200}
    scene.auth.readers[SECRET].clear()
    scene.auth.issued.clear()
    scene.now += GRANTED_SECONDS
    assert await scene.pull(basic("alice")) == {404}


async def test_right_that_was_given_begins_within_its_term(scene: Scene) -> None:
    assert await scene.pull(basic("bob")) == {404}
    scene.auth.readers[SECRET].add("bob")
    scene.now += REFUSED_SECONDS
    assert await scene.pull(basic("bob")) == {200}


async def test_last_yes_holds_in_an_outage_until_recheck_access(scene: Scene) -> None:
    """Nobody else is let in by it, and no new guest."""
    assert await scene.pull(basic("alice")) == {200}
    scene.now += GRANTED_SECONDS
    scene.quay.fault(Fault(status=503), times=10_000)
    blob = paths(scene.image)[2]
    assert (await scene.ask(blob, basic("alice"))).status == 200
    for headers in OTHERS:
        assert (await scene.ask(blob, *headers)).status == 404
    scene.now += DAY
    assert (await scene.ask(blob, basic("alice"))).status == 404


async def test_remembered_response_is_for_the_same_credentials(scene: Scene) -> None:
    """The same request but for the header, in turn, on one connection."""
    path = paths(scene.image)[1]
    async with await Wire.open(scene.mirror.address) as wire:
        for _ in range(5):
            for headers, status in (([basic("alice")], 200), ([basic("bob")], 404), ([], 404)):
                wire.send("GET", path, headers)
                assert (await wire.reply()).status == status


async def test_growing_download_of_a_guest_is_not_joined_by_others(scene: Scene) -> None:
    blob = f"/v2/{SECRET}/blobs/{scene.image.layers[1]}"
    await scene.ask(paths(scene.image)[0], basic("alice"))
    gate = scene.quay.hold(scene.image.layers[1], after=LARGE // 2)
    first = asyncio.ensure_future(scene.ask(blob, basic("alice")))
    await gate.reached.wait()
    for headers in OTHERS:
        assert (await scene.ask(blob, *headers)).status == 404
    gate.release()
    assert (await first).body == BIG


async def test_credentials_of_one_request_are_not_for_the_next_on_its_connection(scene: Scene) -> None:
    """Alice may read both repositories, and the second request, without her login, gets nothing."""
    other = scene.quay.add_image(OTHER, "1", [b"other"])
    async with await Wire.open(scene.mirror.address) as wire:
        for headers, status in (([basic("alice")], 200), ([], 404), ([basic("bob")], 404)):
            wire.send("GET", f"/v2/{SECRET}/manifests/{scene.image.manifest}", headers)
            assert (await wire.reply()).status == status
        wire.send("GET", f"/v2/{OTHER}/manifests/{other.manifest}")
        assert (await wire.reply()).status == 404


async def test_wrong_passwords_for_a_user_are_passed_on_a_few_times(scene: Scene) -> None:
    """Guesses come from many addresses at the same time."""
    path = paths(scene.image)[0]
    await asyncio.gather(
        *(
            scene.ask(path, basic("alice", f"guess {number}"), client=f"127.0.1.{number}")
            for number in range(1, 30)
        )
    )
    assert 0 < scene.passwords("alice") <= FOR_USER


async def test_wrong_passwords_of_an_address_are_passed_on_a_few_times(scene: Scene) -> None:
    path = paths(scene.image)[0]
    for number in range(40):
        await scene.ask(path, basic(f"user{number}", "x"))
    tokens = sum(scene.passwords(f"user{number}") for number in range(40))
    assert tokens <= OF_NETWORK
    # Who was let in before, or comes from elsewhere, is let in.
    assert (await scene.ask(path, basic("alice"), client="127.0.0.9")).status == 200


async def test_guesses_do_not_end_a_right(scene: Scene) -> None:
    path = paths(scene.image)[0]
    assert (await scene.ask(path, basic("alice"))).status == 200
    for number in range(FOR_USER + 1):
        assert (await scene.ask(path, basic("alice", f"guess {number}"))).status == 404
    scene.now += GRANTED_SECONDS
    assert (await scene.ask(path, basic("alice"))).status == 200


async def test_guesses_do_not_keep_a_guest_from_another_repository(scene: Scene) -> None:
    """Alice was let in to one; a stranger who guesses her password must not decide what else she may have."""
    other = scene.quay.add_image(OTHER, "1", [b"other"])
    assert (await scene.ask(paths(scene.image)[0], basic("alice"))).status == 200
    for number in range(FOR_USER + 1):
        await scene.ask(paths(scene.image)[0], basic("alice", f"guess {number}"), client="127.0.0.9")
    assert (await scene.ask(paths(other)[0], basic("alice"))).status == 200


async def test_password_goes_to_the_upstream_and_to_no_source(quay: FakeRegistry, tmp_path: Path) -> None:
    async with FakeRegistry() as nearby:
        source = {"url": nearby.url, "prefix": "quay.io", "tags": True}
        scene = Scene(quay, tmp_path / "cache", account=False)
        config = configured(
            scene.folder,
            {"quay.io": quay.url},
            upstream_of={"quay.io": {"private": "as-upstream", "sources": [source]}},
        )
        nearby.auth = TokenAuth(private={f"quay.io/{SECRET}"})
        async with serving(config) as scene.mirror:
            assert 200 in await scene.pull(basic("alice"))
        assert all(basic_login(each.headers.get("Authorization")) is None for each in nearby.log)


@pytest.mark.usefixtures("own_logging")
async def test_credentials_are_in_no_log_and_no_file(scene: Scene) -> None:
    log = StringIO()
    configure(LogSettings(format="json", level="debug"), log)
    await scene.pull(basic("alice"))
    await scene.pull(basic("alice", "wrong-canary"))
    echo = b'{"errors":[{"code":"DENIED","message":"no alice-canary here"}]}'
    scene.quay.fault(Fault(status=403, body=echo), f"/v2/{SECRET}", times=10)
    for path in paths(scene.image)[:3]:
        assert b"canary" not in (await scene.ask(path.replace("/1", "/2"), basic("alice"))).body
    kept = await asyncio.to_thread(content_of, scene.folder)
    for secret in ("alice-canary", "wrong-canary", base64.b64encode(b"alice:alice-canary").decode()):
        assert secret not in log.getvalue()
        assert secret.encode() not in kept


async def test_guest_at_a_registry_with_basic_authentication(quay: FakeRegistry, tmp_path: Path) -> None:
    """Nexus and ECR have no token server."""
    scene = Scene(quay, tmp_path / "cache", account=False)
    quay.auth = BasicAuth("alice", PASSWORDS["alice"])
    async with scene.running():
        assert await scene.pull(basic("alice")) == {200}
        for headers in OTHERS:
            assert await scene.pull(*headers) == {404}


async def test_guest_with_a_token_of_the_upstream(scene: Scene) -> None:
    """A token that its token server has issued opens the repository that it is for."""
    scene.auth.issued["a-token"] = f"repository:{SECRET}:pull"
    assert await scene.pull("Authorization: Bearer a-token") == {200}
    for headers in (["Authorization: Bearer another-token"], ["Authorization: Bearer"]):
        assert await scene.pull(*headers) == {404}


LOGIN_HOST, OTHER_HOST = "Host: mirror.login:5000", "Host: mirror.test"


async def test_guest_is_asked_to_log_in_by_basic_at_login_hosts(quay: FakeRegistry, tmp_path: Path) -> None:
    """A token of the mirror cannot stand for credentials that are kept nowhere. Elsewhere nobody is asked."""
    scene = Scene(quay, tmp_path / "cache", account=False)
    async with scene.running(access={"login_hosts": ["mirror.login"]}):
        for path in ("/v2/", paths(scene.image)[0]):
            reply = await scene.ask(path, LOGIN_HOST)
            assert (reply.status, reply.header("www-authenticate")) == (401, 'Basic realm="registry-mirror"')
            assert "www-authenticate" not in (await scene.ask(path, OTHER_HOST)).headers
        for host in (LOGIN_HOST, OTHER_HOST):
            for path in ("/v2/", *paths(scene.image)):
                assert (await scene.ask(path, host, basic("alice"))).status == 200
            assert (await scene.ask(paths(scene.image)[0], host, basic("bob"))).status == 404
        assert (await scene.ask(paths(scene.open)[0], LOGIN_HOST, "Authorization: Basic Og==")).status == 200


async def test_login_of_this_mirror_goes_to_no_upstream(quay: FakeRegistry, tmp_path: Path) -> None:
    """A user of the htpasswd file, with the right and a wrong password, where logins are asked for or not."""
    scene = Scene(quay, tmp_path / "cache", account=False)
    users = tmp_path / "users"
    hashed = await asyncio.to_thread(bcrypt.hashpw, b"geheim", bcrypt.gensalt(4))
    await asyncio.to_thread(users.write_text, f"carol:{hashed.decode()}\n")
    rules = [
        {"name": "carol", "effect": "allow", "identities": ["user:carol"], "repositories": ["quay.io/c/*"]}
    ]
    access = {"login_hosts": ["mirror.login"], "htpasswd": users}
    async with scene.running(access=access, rules=rules):
        for host, wrong in ((LOGIN_HOST, 401), (OTHER_HOST, 404)):
            for path in paths(scene.image):
                assert (await scene.ask(path, host, basic("carol", "wrong"))).status == wrong
                assert (await scene.ask(path, host, basic("carol", "geheim"))).status == 404  # no right there
                assert (await scene.ask(path, host, basic("alice"))).status == 200
        assert scene.passwords("carol") == 0


async def test_identity_that_a_rule_names_gets_private_content(quay: FakeRegistry, tmp_path: Path) -> None:
    """A user of this mirror is named, the upstream's account reads, and others get nothing."""
    scene = Scene(quay, tmp_path / "cache", account=True)
    scene.auth.readers[SECRET].add("u")
    users = tmp_path / "users"
    hashed = await asyncio.to_thread(bcrypt.hashpw, b"geheim", bcrypt.gensalt(4))
    await asyncio.to_thread(users.write_text, f"carol:{hashed.decode()}\n")
    rules = [{"name": "carol", "effect": "allow", "identities": ["user:carol"]}]
    async with scene.running(access={"htpasswd": users}, rules=rules):
        for _ in range(2):
            assert await scene.pull() == {404}
            assert await scene.pull(basic("carol", "geheim")) == {200}
