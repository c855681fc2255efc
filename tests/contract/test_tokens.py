"""Tokens at a running mirror: each way to show one opens the same, and nothing after its revocation."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from io import StringIO
from pathlib import Path

import pytest

from mirror.access.rules import Action
from mirror.access.tokens import new_secret
from mirror.config.schema import Config, LogSettings
from mirror.manage.tokens import WantedToken, create_token, tokens_of
from mirror.oci.manifest import OCI_INDEX, OCI_MANIFEST
from mirror.util.log import configure
from tests.fakes.access import BasicAuth
from tests.fakes.issuer import AUDIENCE, GITLAB, FakeIssuer
from tests.fakes.registry import FakeRegistry
from tests.running import LARGE, Running, configured, serving
from tests.wire import Reply, Wire

TEAM, OTHER = "team/app", "other/app"
RULES = [
    {
        "name": "team",
        "effect": "allow",
        "identities": ["token:ci*", "jwt:ci:project_path=org/*"],
        "repositories": ["hub.test/team/*"],
    }
]


class Scene:
    """A mirror that opens one repository to tokens called `ci...`, and nothing to anybody else."""

    def __init__(self, mirror: Running, hub: FakeRegistry) -> None:
        self.mirror = mirror
        self.folder = mirror.service.folder
        self.image = hub.add_image(TEAM, "1", [b"layer"])
        hub.add_image(TEAM, "2", [b"layer"])
        hub.add_image(OTHER, "1", [b"other"])
        self.hub = hub

    async def create(self, name: str, **limits: tuple[str, ...]) -> str:
        actions = tuple(map(Action, limits.pop("actions", ())))
        wanted = WantedToken(name, None, limits.get("repositories", ()), actions)
        secret, _ = await asyncio.to_thread(create_token, self.folder, wanted)
        return secret

    async def revoke(self, name: str) -> None:
        assert await asyncio.to_thread(tokens_of(self.folder).remove, name)

    async def ask(self, path: str, *headers: str, method: str = "GET") -> Reply:
        async with await Wire.open(self.mirror.address) as wire:
            wire.send(method, path, headers)
            return await wire.reply(method)


def config_of(folder: Path, hub: FakeRegistry, default: str = "deny", **sections: object) -> Config:
    upstreams = {"hub.test": hub.url, "second.test": hub.url}
    return configured(folder / "cache", upstreams, access={"default": default}, rules=RULES, **sections)


@pytest.fixture
async def scene(tmp_path: Path) -> AsyncIterator[Scene]:
    async with FakeRegistry() as hub:
        config = await asyncio.to_thread(config_of, tmp_path, hub)
        async with serving(config) as mirror:
            yield Scene(mirror, hub)


def bearer(secret: str) -> str:
    return f"Authorization: Bearer {secret}"


def basic(secret: str, user: str = "me") -> str:
    return f"Authorization: Basic {base64.b64encode(f'{user}:{secret}'.encode()).decode()}"


# Ways to show a secret: a pattern of the path, and a header.
WAYS = {
    "bearer": ("/v2/{rest}", bearer),
    "basic": ("/v2/{rest}", basic),
    "path": ("/t/{secret}/v2/{rest}", None),
    "path and prefix": ("/t/{secret}/v2/hub.test/{rest}", None),
    "path and name": ("/t/{secret}/hub.test/v2/{rest}", None),
    "path and ns": ("/t/{secret}/v2/{rest}?ns=hub.test", None),
    "path inside": ("/v2/t/{secret}/hub.test/{rest}", None),
}


@pytest.mark.parametrize("way", WAYS)
async def test_token_opens_what_its_rule_allows_until_it_is_revoked(scene: Scene, way: str) -> None:
    """Each kind of content by each way; other repositories stay closed; an unknown secret opens nothing."""
    pattern, header = WAYS[way]
    secret, unknown = await scene.create("ci"), new_secret()
    rests = [
        f"{TEAM}/manifests/1",
        f"{TEAM}/manifests/{scene.image.manifest}",
        f"{TEAM}/blobs/{scene.image.layers[0]}",
        f"{TEAM}/tags/list",
        f"{TEAM}/referrers/{scene.image.manifest}",
    ]

    async def status(rest: str, shown: str, method: str = "GET") -> int:
        headers = [] if header is None else [header(shown)]
        path = pattern.format(secret=shown, rest=rest)
        return (await scene.ask(path, f"Accept: {OCI_INDEX}, {OCI_MANIFEST}", *headers, method=method)).status

    for method in ("HEAD", "GET"):
        for rest in rests:
            assert await status(rest, secret, method) == 200, (rest, method)
    assert await status(f"{OTHER}/manifests/1", secret) in (403, 404)
    asked = len(scene.hub.log)
    wrong = 404 if header is None else 401
    for rest in rests:
        assert await status(rest, unknown) == wrong
    await scene.revoke("ci")
    for rest in rests:
        assert await status(rest, secret) == wrong
    assert len(scene.hub.log) == asked


@pytest.mark.parametrize("form", ["header", "path"])
async def test_remembered_response_ends_with_its_token(scene: Scene, form: str) -> None:
    """The same bytes again and again on one connection: the first one after the revocation is refused."""
    secret = await scene.create("ci")
    path = f"/v2/{TEAM}/manifests/{scene.image.manifest}"
    headers = [bearer(secret)] if form == "header" else []
    if form == "path":
        path = f"/t/{secret}{path}"
    async with await Wire.open(scene.mirror.address) as wire:
        for _ in range(5):
            wire.send("GET", path, headers)
            assert (await wire.reply()).status == 200
        await scene.revoke("ci")
        for _ in range(3):
            wire.send("GET", path, headers)
            assert (await wire.reply()).status == (401 if headers else 404)


async def test_short_ranges_end_with_their_token(scene: Scene) -> None:
    """A lazy client's ranges are answered from an open file, which is no way around a revocation."""
    layer = bytes(LARGE)
    image = scene.hub.add_image(TEAM, "lazy", [layer])
    secret = await scene.create("ci")
    path = f"/v2/{TEAM}/blobs/{image.layers[0]}"
    assert (await scene.ask(path, bearer(secret))).status == 200
    await scene.mirror.landed(image.layers[0])
    async with await Wire.open(scene.mirror.address) as wire:

        async def status(first: int) -> int:
            wire.send("GET", path, [bearer(secret), f"Range: bytes={first}-{first + 999}"])
            return (await wire.reply()).status

        assert {await status(first) for first in range(0, 20_000, 1000)} == {206}
        await scene.revoke("ci")
        assert {await status(first) for first in range(0, 20_000, 1000)} == {401}


async def test_token_made_while_the_mirror_runs_is_taken_at_once(scene: Scene) -> None:
    """The name may be that of a token that was revoked; its secret stays revoked."""
    first = await scene.create("ci")
    path = f"/v2/{TEAM}/manifests/1"
    assert (await scene.ask(path, bearer(first))).status == 200
    await scene.revoke("ci")
    second = await scene.create("ci")
    assert (await scene.ask(path, bearer(second))).status == 200
    assert (await scene.ask(path, bearer(first))).status == 401


async def test_token_limits_hold_beyond_the_rules(scene: Scene) -> None:
    """Everything that they leave out is denied and not listed, though a rule allows it."""
    secret = await scene.create("ci", repositories=("hub.test/team/none",))
    pulls = await scene.create("ci2", actions=("pull",))
    free = await scene.create("ci3")
    manifest, tags = f"/v2/hub.test/{TEAM}/manifests/1", f"/v2/hub.test/{TEAM}/tags/list"
    reply = await scene.ask(manifest, bearer(secret))
    assert (reply.status, json.loads(reply.body)["errors"][0]["code"]) == (403, "DENIED")
    assert (await scene.ask(manifest, bearer(pulls))).status == 200
    assert (await scene.ask(tags, bearer(pulls))).status == 403
    assert (await scene.ask(tags, bearer(free))).status == 200
    names = {
        each: json.loads((await scene.ask("/v2/_catalog", bearer(each))).body)["repositories"]
        for each in (secret, pulls, free)
    }
    assert names == {secret: [], pulls: [], free: [f"hub.test/{TEAM}"]}


async def test_token_logs_in_by_the_book(tmp_path: Path) -> None:
    """Challenge, token service by GET and by POST, and the end of what it gave with the token itself."""
    async with FakeRegistry() as hub, FakeIssuer() as issuer:
        table = {"name": "ci", "issuer": issuer.url, "audience": [AUDIENCE], "claims": ["project_path"]}
        access = {"default": "deny", "login_hosts": ["mirror.test"]}
        upstreams = {"hub.test": hub.url}
        config = await asyncio.to_thread(
            configured, tmp_path / "cache", upstreams, access=access, rules=RULES, issuers=[table]
        )
        async with serving(config) as mirror:
            here = Scene(mirror, hub)
            secret, path = (
                await here.create("ci", repositories=("hub.test/team/app",)),
                f"/v2/{TEAM}/manifests/1",
            )
            challenged = await here.ask("/v2/")
            assert challenged.status == 401
            assert challenged.header("www-authenticate").startswith("Bearer realm=")
            for shown in (secret, issuer.token()):
                assert (await here.ask(path, basic(shown))).status == 200
                given = json.loads((await here.ask("/token?service=x", basic(shown))).body)["token"]
                assert (await here.ask(path, bearer(given))).status == 200
                assert (await here.ask(f"/v2/{OTHER}/manifests/1", bearer(given))).status == 404
                form = f"grant_type=password&username=me&password={shown}"
                async with await Wire.open(mirror.address) as wire:
                    kind = "Content-Type: application/x-www-form-urlencoded"
                    wire.send("POST", "/token", [kind, f"Content-Length: {len(form)}"])
                    wire.writer.write(form.encode())
                    posted = json.loads((await wire.reply()).body)["access_token"]
                assert (await here.ask(path, bearer(posted))).status == 200
            given = json.loads((await here.ask("/token", basic(secret))).body)["token"]
            await here.revoke("ci")
            for wrong in (given, secret, new_secret()):
                refused = await here.ask(path, bearer(wrong))
                assert refused.status == 401
                assert 'error="invalid_token"' in refused.header("www-authenticate")
            assert (await here.ask("/token", basic(secret))).status == 401


NOBODY = "the token service's, for nobody"


@pytest.mark.parametrize(
    ("host", "headers"),
    [
        ("login.test", [NOBODY]),
        ("mirror.test", [NOBODY]),
        ("mirror.test", ["Authorization: Bearer rmt1.x.y"]),
        ("mirror.test", ["Authorization: Basic YTph", "Authorization: Basic YTph"]),
        ("mirror.test", [f"Authorization: Bearer {'x' * 20_000}"]),
    ],
    ids=["login", "token elsewhere", "wrong token", "two headers", "long header"],
)
async def test_secret_path_is_read_whatever_the_header_has(
    own_logging: None, tmp_path: Path, host: str, headers: list[str]
) -> None:
    """Podman has a token for nobody when it asks a mirror in a path of a login name.

    Else the secret would be a part of a repository's name: for the log, and for the upstream.
    """
    async with FakeRegistry() as hub:
        access = {"default": "allow", "login_hosts": ["login.test"]}
        upstreams = {"hub.test": hub.url}
        config = await asyncio.to_thread(configured, tmp_path / "cache", upstreams, access=access)
        async with serving(config) as mirror:
            here = Scene(mirror, hub)
            secret, written = await here.create("ci"), StringIO()
            configure(LogSettings(level="debug", format="json"), written)
            given = json.loads((await here.ask("/token", "Host: login.test")).body)["token"]
            shown = [bearer(given) if each is NOBODY else each for each in headers]
            for front in (f"/v2/t/{secret}/hub.test", f"/t/{secret}/v2/hub.test"):
                reply = await here.ask(f"{front}/{TEAM}/manifests/1", f"Host: {host}", *shown)
                assert reply.status == 200
            wrong = await here.ask(
                f"/v2/t/{new_secret()}/hub.test/{TEAM}/manifests/1", f"Host: {host}", *shown
            )
            assert wrong.status == 404
            assert "token:ci" in written.getvalue()
            assert secret not in written.getvalue() + "".join(each.path for each in hub.log)


async def test_links_to_next_pages_keep_the_secret_path(scene: Scene) -> None:
    secret = await scene.create("ci")
    prefix = f"/t/{secret}"
    for rest in ("/v2/_catalog?n=1", f"/v2/{TEAM}/tags/list?n=1"):
        await scene.ask(f"{prefix}/v2/{TEAM}/manifests/1")
        reply = await scene.ask(prefix + rest)
        if "link" in reply.headers:
            assert reply.header("link").startswith(f"<{prefix}/v2/")
    assert "link" in reply.headers


@pytest.mark.parametrize(("private", "default"), [("named", "deny"), ("as-upstream", "allow")])
async def test_secret_is_in_no_log_metric_error_or_upstream(
    own_logging: None, tmp_path: Path, private: str, default: str
) -> None:
    """Credentials that are not this mirror's are the upstream's to judge, where clients may have such."""
    async with FakeRegistry() as hub:
        if private == "as-upstream":
            hub.auth = BasicAuth("me", "password of another registry")
        config = await asyncio.to_thread(config_of, tmp_path, hub, default, upstream={"private": private})
        async with serving(config) as mirror:
            await show_secrets_everywhere(Scene(mirror, hub))


async def show_secrets_everywhere(scene: Scene) -> None:
    """Right, wrong, mistyped, misplaced ones; the access line has the token's name, or why none is taken."""
    secret, unknown = await scene.create("ci"), new_secret()
    written = StringIO()
    configure(LogSettings(level="debug", format="json"), written)
    bodies = []
    for each in (secret, unknown, secret[:-1], secret.upper()):
        for path in (
            f"/t/{each}/v2/{TEAM}/manifests/1",
            f"/t/{each}/v2/",
            f"/t/{each}",
            f"/t/{each}/",
            f"/t/{each}/metrics",
            f"/{each}/v2/{TEAM}/manifests/1",
            f"/v2/{each}/app/manifests/1",
            f"/v2/t/{each}/hub.test/{TEAM}/manifests/1",
            f"/v2/{TEAM}/manifests/{each}",
            f"/t/{each.replace('_', '%5F')}/v2/",
            f"/%74/{each}/v2/",
            f"http://mirror.test/t/{each}/v2/",
        ):
            bodies.append((await scene.ask(path)).body)
        for header in (
            bearer(each),
            basic(each),
            basic(f" {each}"),
            basic("password", user=each),
            f"Authorization: {each}",
            f"Referer: http://m/t/{each}/v2/",
        ):
            bodies.append((await scene.ask(f"/v2/{TEAM}/manifests/1", header)).body)
            bodies.append((await scene.ask(f"/v2/{TEAM}/manifests/1", header, "Wrong Header: x")).body)
    for page in ("/metrics", "/readyz", "/", "/setup/docker.sh"):
        bodies.append((await scene.ask(page)).body)
    text = written.getvalue()
    everything = text.encode() + b"".join(bodies)
    for seen in scene.hub.log:
        everything += f"{seen.path}{seen.query}{seen.headers}".encode()
        everything += base64.b64decode(seen.headers.get("Authorization", "").removeprefix("Basic "))
    for each in (secret, unknown):
        assert each[4:40].encode() not in everything
    lines = [json.loads(line) for line in text.splitlines() if line.startswith("{")]
    assert any(line.get("identity") == ["token:ci"] for line in lines)
    notes = {str(line.get("note")) for line in lines}
    assert any("was revoked" in note for note in notes)
    assert any("mistyped" in note for note in notes)


async def test_token_path_without_rules_is_a_way_in(tmp_path: Path) -> None:
    """A wrong secret is refused where nothing else is: its owner would never notice."""
    async with FakeRegistry() as hub:
        hub.add_image(TEAM, "1", [b"layer"])
        config = await asyncio.to_thread(configured, tmp_path / "cache", {"hub.test": hub.url})
        async with serving(config) as mirror:
            open_scene = Scene(mirror, hub)
            secret = await open_scene.create("any")
            assert (await open_scene.ask(f"/t/{secret}/v2/")).status == 200
            assert (await open_scene.ask(f"/t/{new_secret()}/v2/")).status == 404
            assert (await open_scene.ask(f"/v2/{TEAM}/manifests/1")).status == 200


async def test_token_of_an_issuer_opens_what_its_claims_allow(tmp_path: Path) -> None:
    """A token works as Bearer and as a password; by another project, expired, forged: nothing."""
    async with FakeRegistry() as hub, FakeIssuer() as issuer:
        table = {"name": "ci", "issuer": issuer.url, "audience": [AUDIENCE], "claims": ["project_path"]}
        config = await asyncio.to_thread(config_of, tmp_path, hub, issuers=[table])
        async with serving(config) as mirror:
            here = Scene(mirror, hub)
            path = f"/v2/{TEAM}/manifests/1"
            good = issuer.token()
            for header in (bearer(good), basic(good)):
                for _ in range(3):
                    assert (await here.ask(path, header)).status == 200
            other = issuer.token({**GITLAB, "project_path": "elsewhere/app"})
            assert (await here.ask(path, bearer(other))).status == 404
            for wrong in (issuer.token(exp=1), issuer.token(aud="x"), f"{good[:-4]}AAAA"):
                assert (await here.ask(path, bearer(wrong))).status == 401
                assert (await here.ask(path, basic(wrong))).status == 401
            assert (await here.ask(path)).status == 404
            assert issuer.asked.count("/keys") == 1
