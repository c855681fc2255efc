"""Private content: what needs an account at its upstream goes to clients that a rule names, to no others."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from io import StringIO
from pathlib import Path
from typing import Any

import pytest

from mirror.config.schema import LogSettings
from mirror.oci.manifest import OCI_INDEX, OCI_MANIFEST
from mirror.oci.reference import Repository
from mirror.util.log import configure
from tests.fakes.access import TokenAuth
from tests.fakes.content import FakeImage, image_index
from tests.fakes.faults import Fault
from tests.fakes.registry import FakeRegistry
from tests.running import LARGE, LARGE_DATA, NEVER, Running, configured, serving
from tests.wire import Reply, Wire

# A client that a rule names, and one that none names.
NAMED, STRANGER = "127.0.0.1", "127.0.0.2"
SECRET, OPEN = "org/secret", "org/open"
RULES = [{"name": "team", "effect": "allow", "networks": [NAMED], "repositories": ["quay.io/org/*"]}]
SMALL, BIG = b"a private layer", LARGE_DATA
START, HOUR = 1_700_000_000.0, 3600.0


class Scene:
    """A mirror with an account at quay.io, which has a private and a public repository."""

    def __init__(self, quay: FakeRegistry, folder: Path) -> None:
        self.quay = quay
        self.folder = folder
        self.now = START
        self.asked = 0
        self.image = quay.add_image(SECRET, "1", [SMALL, BIG])
        self.open = quay.add_image(OPEN, "1", [b"public"])
        self.auth = TokenAuth(user="u", password="p", private={SECRET})
        quay.auth = self.auth
        self.mirror: Running

    @asynccontextmanager
    async def running(self, **changes: Any) -> AsyncIterator["Scene"]:
        quay = {"username": "u", "password": "p", **changes.pop("quay", {})}
        sections = {"rules": RULES, "tags": {"fresh": 60, "fallback_after": NEVER, "missing": 0}, **changes}
        config = configured(
            self.folder, {"quay.io": self.quay.url}, upstream_of={"quay.io": quay}, **sections
        )
        async with serving(config, lambda: self.now) as self.mirror:
            yield self

    async def ask(self, client: str, path: str, *headers: str, method: str = "GET") -> Reply:
        """Ask with a head that no request had before, past the response cache."""
        self.asked += 1
        async with await Wire.open(self.mirror.address, client=client) as wire:
            wire.send(method, path, [f"X-Asked: {self.asked}", *headers])
            return await wire.reply(method)

    async def warm(self, image: FakeImage) -> None:
        for path in paths(image).values():
            assert (await self.ask(NAMED, f"/v2{path}")).status == 200
        for digest in image.blobs:
            await self.mirror.landed(digest)

    def anonymous(self) -> int:
        """Return how many tokens were given to nobody."""
        return list(self.auth.owners.values()).count("")


def paths(image: FakeImage) -> dict[str, str]:
    base = f"/{image.repository}"
    return {
        "tag": f"{base}/manifests/{image.tag}",
        "digest": f"{base}/manifests/{image.manifest}",
        "config": f"{base}/blobs/{image.config}",
        **{f"layer {number}": f"{base}/blobs/{digest}" for number, digest in enumerate(image.layers)},
        "tags": f"{base}/tags/list",
        "referrers": f"{base}/referrers/{image.manifest}",
    }


@pytest.fixture
async def quay() -> AsyncIterator[FakeRegistry]:
    async with FakeRegistry() as fake:
        yield fake


@pytest.fixture
async def scene(quay: FakeRegistry, tmp_path: Path) -> AsyncIterator[Scene]:
    async with Scene(quay, tmp_path / "cache").running() as scene:
        yield scene


# Ways to name the upstream: the start of the path, the query, a header, and the status of a refusal.
WAYS = {
    "root": ("/v2", "", "Host: mirror.test", 404),
    "prefix": ("/v2/quay.io", "", "Host: mirror.test", 403),
    "name before v2": ("/quay.io/v2", "", "Host: mirror.test", 403),
    "ns": ("/v2", "?ns=quay.io", "Host: mirror.test", 404),
    "ns header": ("/v2", "", "OCI-Namespace: quay.io", 404),
    "host": ("/v2", "", "Host: quay.io.mirror.test", 404),
}
ACCEPTS = ("Accept: */*", "Range: bytes=0-3", "If-None-Match: *", f"Accept: {OCI_INDEX}, {OCI_MANIFEST}")


@pytest.mark.parametrize("warm", [False, True], ids=["cold", "warm"])
@pytest.mark.parametrize("way", WAYS)
async def test_stranger_gets_nothing_private_by_any_way(scene: Scene, way: str, warm: bool) -> None:
    """Each kind of content, each way to name the upstream, each method; nothing tells what is here."""
    start, query, header, status = WAYS[way]
    if warm:
        await scene.warm(scene.image)
    for kind, path in paths(scene.image).items():
        for method in ("GET", "HEAD"):
            for extra in ACCEPTS:
                reply = await scene.ask(STRANGER, f"{start}{path}{query}", header, extra, method=method)
                assert reply.status == status, (kind, method, extra)
                assert "docker-content-digest" not in reply.headers
                assert SMALL not in reply.body
                assert str(len(BIG)) != reply.headers["content-length"]


@pytest.mark.parametrize("way", WAYS)
async def test_named_client_gets_what_the_account_can_read(scene: Scene, way: str) -> None:
    start, query, header, _ = WAYS[way]
    for path in paths(scene.image).values():
        assert (await scene.ask(NAMED, f"{start}{path}{query}", header)).status == 200
    assert scene.anonymous() == 0


async def test_public_repository_goes_to_everybody_and_is_asked_about_once(scene: Scene) -> None:
    """One request without the account, for the hour; all else goes as with the account alone."""
    for _ in range(3):
        for path in paths(scene.open).values():
            assert (await scene.ask(STRANGER, f"/v2{path}")).status == 200
    nobody = [each for each in scene.quay.log if each.path.startswith(f"/v2/{OPEN}/")]
    owners = [scene.auth.owner(each.headers.get("Authorization")) for each in nobody]
    # A challenge, and the answer to the anonymous token.
    assert owners.count("") <= 3
    scene.now += HOUR
    asked = len(scene.quay.log)
    assert (await scene.ask(STRANGER, f"/v2{paths(scene.open)['config']}")).status == 200
    assert len(scene.quay.log) > asked


async def test_public_verdict_is_shared_and_survives_a_restart(quay: FakeRegistry, tmp_path: Path) -> None:
    scene = Scene(quay, tmp_path / "cache")
    path = f"/v2{paths(scene.open)['digest']}"
    async with scene.running():
        assert (await scene.ask(STRANGER, path)).status == 200
        other = Scene(quay, tmp_path / "cache")
        asked = len(quay.log)
        async with other.running():
            assert (await other.ask(STRANGER, path)).status == 200
    async with scene.running():
        assert (await scene.ask(STRANGER, path)).status == 200
    assert len(quay.log) == asked


async def test_public_verdict_holds_in_an_outage_and_nothing_else_does(scene: Scene) -> None:
    await scene.warm(scene.image)
    assert (await scene.ask(STRANGER, f"/v2{paths(scene.open)['digest']}")).status == 200
    scene.now += 2 * HOUR
    scene.quay.fault(Fault(status=503), times=10_000)
    assert (await scene.ask(STRANGER, f"/v2{paths(scene.open)['digest']}")).status == 200
    for path in paths(scene.image).values():
        assert (await scene.ask(STRANGER, f"/v2{path}")).status == 404
        reply = await scene.ask(STRANGER, f"/v2/quay.io{path}")
        assert reply.status in (424, 502, 503)
        assert b"it is not known to be public" in reply.body
        assert b"[[rule]] effect" in reply.body


@pytest.mark.parametrize("hidden", [False, True], ids=["refused", "hidden"])
async def test_repository_that_becomes_private_ends_for_strangers(
    scene: Scene, hidden: bool, tmp_path: Path
) -> None:
    """Access ends in all workers within the hour, also at a registry that answers 404 for what is private."""
    async with Scene(scene.quay, tmp_path / "cache").running() as other:
        scene.quay.auth = scene.auth
        for worker in (scene, other):
            for path in paths(scene.open).values():
                assert (await worker.ask(STRANGER, f"/v2{path}")).status == 200
        if hidden:
            scene.quay.fault(Fault(status=404, body=b""), f"/v2/{OPEN}/", times=10_000)
        scene.auth.private.add(OPEN)
        scene.auth.issued.clear()
        for worker in (scene, other):
            worker.now += HOUR
        for path in paths(scene.open).values():
            for worker in (scene, other):
                assert (await worker.ask(STRANGER, f"/v2{path}")).status == 404, path


async def test_missing_tag_says_nothing_about_the_repository(scene: Scene) -> None:
    """A stranger that asks for what does not exist keeps nobody from a public repository."""
    scene.quay.fault(Fault(status=405), "tags/list", times=10_000)
    assert (await scene.ask(STRANGER, f"/v2/{OPEN}/manifests/none")).status == 404
    assert (await scene.ask(STRANGER, f"/v2{paths(scene.open)['tag']}")).status == 200


async def test_rate_limit_of_nobody_hides_no_public_repository(scene: Scene) -> None:
    """The address of the mirror has no pulls left without its account: the list of tags tells."""
    for _ in range(2):
        scene.quay.fault(Fault(status=429), f"/v2/{OPEN}/manifests", "HEAD")
    assert (await scene.ask(STRANGER, f"/v2{paths(scene.open)['tag']}")).status == 200


async def test_catalog_has_private_names_for_who_may_list_them(scene: Scene) -> None:
    await scene.warm(scene.image)
    await scene.ask(STRANGER, f"/v2{paths(scene.open)['tag']}")
    for path, names in (("/v2/_catalog", [f"quay.io/{OPEN}"]), ("/v2/quay.io/_catalog", [OPEN])):
        reply = await scene.ask(STRANGER, f"{path}?n=1")
        assert json.loads(reply.body) == {"repositories": names}
        assert "link" not in reply.headers
        assert len(json.loads((await scene.ask(NAMED, path)).body)["repositories"]) == 2


async def test_remembered_response_of_a_named_client_is_not_for_a_stranger(scene: Scene) -> None:
    """The same bytes, in turn, on connections that stay open: the response cache tells them apart."""
    path = f"/v2{paths(scene.image)['digest']}"
    async with (
        await Wire.open(scene.mirror.address, client=NAMED) as named,
        await Wire.open(scene.mirror.address, client=STRANGER) as stranger,
    ):
        for _ in range(5):
            for wire, status in ((named, 200), (stranger, 404)):
                wire.send("GET", path)
                assert (await wire.reply()).status == status


async def test_running_download_is_not_joined_by_a_stranger(scene: Scene) -> None:
    path = f"/v2{paths(scene.image)['layer 1']}"
    await scene.ask(NAMED, f"/v2{paths(scene.image)['tag']}")
    gate = scene.quay.hold(scene.image.layers[1], after=LARGE // 2)
    async with await Wire.open(scene.mirror.address, client=NAMED) as named:
        named.send("GET", path)
        await gate.reached.wait()
        for method in ("GET", "HEAD"):
            assert (await scene.ask(STRANGER, path, method=method)).status == 404
        gate.release()
        assert (await named.reply()).body == BIG


async def test_public_repository_that_names_private_blobs_opens_none(scene: Scene) -> None:
    """An author of a public repository names a private manifest and its blobs: they stay private."""
    await scene.warm(scene.image)
    config, *layers = scene.image.blobs_data
    naming = scene.quay.add_image(OPEN, "naming", [config, *layers])
    for digest in scene.image.blobs:
        del scene.quay.repository(OPEN).blobs[str(digest)]
    index = scene.quay.add_manifest(OPEN, image_index([scene.image.manifest_data]), OCI_INDEX)
    for digest in (naming.manifest, index):
        assert (await scene.ask(STRANGER, f"/v2/{OPEN}/manifests/{digest}")).status == 200
    for digest in scene.image.blobs:
        assert (await scene.ask(STRANGER, f"/v2/{OPEN}/blobs/{digest}")).status == 404
    assert (await scene.ask(STRANGER, f"/v2/{OPEN}/manifests/{scene.image.manifest}")).status == 404


async def test_everybody_is_served_where_the_operator_says_so(quay: FakeRegistry, tmp_path: Path) -> None:
    scene = Scene(quay, tmp_path / "cache")
    async with scene.running(quay={"private": "everybody"}, rules=[]):
        for path in paths(scene.image).values():
            assert (await scene.ask(STRANGER, f"/v2{path}")).status == 200
        assert scene.anonymous() == 0


async def test_first_rule_that_denies_ends_the_naming(quay: FakeRegistry, tmp_path: Path) -> None:
    """A rule that allows everybody names nobody; a rule that denies before the naming one holds."""
    rules = [
        {"name": "all", "effect": "allow"},
        {"name": "not this", "effect": "deny", "networks": [STRANGER]},
        {"name": "all of the network", "effect": "allow", "networks": ["127.0.0.0/8"]},
    ]
    scene = Scene(quay, tmp_path / "cache")
    async with scene.running(rules=rules):
        path = f"/v2{paths(scene.image)['tag']}"
        assert (await scene.ask(NAMED, path)).status == 200
        assert (await scene.ask(STRANGER, path)).status == 404


@pytest.mark.usefixtures("own_logging")
async def test_refusal_says_what_lets_the_client_in(scene: Scene) -> None:
    log = StringIO()
    configure(LogSettings(format="json"), log)
    reply = await scene.ask(STRANGER, f"/v2/quay.io{paths(scene.image)['tag']}")
    error = json.loads(reply.body)["errors"][0]
    rule = f'[[rule]] effect = "allow", networks = ["{STRANGER}"], repositories = ["quay.io/{SECRET}"]'
    assert error["code"] == "DENIED"
    assert rule in error["message"]
    line = json.loads(log.getvalue().splitlines()[-1])
    assert (line["outcome"], line["status"]) == ("denied", 403)
    assert rule in line["note"]


async def test_refusals_cost_the_upstream_one_question(scene: Scene) -> None:
    """containerd asks a mirror that refuses again for each object."""
    for path in paths(scene.image).values():
        await scene.ask(STRANGER, f"/v2{path}")
    asked = len(scene.quay.log)
    await asyncio.gather(
        *(scene.ask(STRANGER, f"/v2{path}") for path in paths(scene.image).values() for _ in range(3))
    )
    assert len(scene.quay.log) == asked


async def test_repository_is_private_until_its_upstream_says_that_it_is_public(scene: Scene) -> None:
    """Nothing is known to be public before its upstream has said so."""
    found = await scene.mirror.service.cache.private.public_among([f"quay.io/{SECRET}", f"quay.io/{OPEN}"])
    assert found == set()
    await scene.mirror.service.cache.private.visibility(Repository("quay.io", OPEN), "1")
    found = await scene.mirror.service.cache.private.public_among([f"quay.io/{SECRET}", f"quay.io/{OPEN}"])
    assert found == {f"quay.io/{OPEN}"}
