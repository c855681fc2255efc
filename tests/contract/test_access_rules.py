"""Access rules: nothing about what a client may not have is told, by whatever way it asks."""

import json
from io import StringIO
from pathlib import Path
from typing import Any

import pytest

from mirror.config.schema import LogSettings
from mirror.oci.manifest import OCI_INDEX, OCI_MANIFEST
from mirror.util.log import configure
from tests.fakes.registry import FakeRegistry
from tests.running import LARGE, Running, configured, serving
from tests.wire import Reply, Wire

# Two clients; the rules know one of them.
OFFICE, STRANGER = "127.0.0.1", "127.0.0.2"
SECRET, OPEN = "team/secret", "team/open"
RULES = [
    {"name": "office", "effect": "allow", "networks": [OFFICE]},
    {"name": "nobody else", "effect": "deny", "repositories": ["hub.test/team/secret"]},
    {"name": "no betas", "effect": "deny", "tags": ["*-rc*"], "actions": ["pull"]},
]
SMALL, BIG = b"small layer", bytes(LARGE)


class Scene:
    """A mirror of one registry that has an open and a secret repository of the same blobs."""

    def __init__(self, mirror: Running, hub: FakeRegistry) -> None:
        self.mirror = mirror
        self.hub = hub
        self.image = hub.add_image(SECRET, "1", [SMALL, BIG])
        hub.add_image(SECRET, "2-rc1", [SMALL])
        hub.add_image(OPEN, "1", [b"open"])
        hub.add_image(OPEN, "2-rc1", [b"beta"])

    async def ask(self, client: str, path: str, *headers: str, method: str = "GET") -> Reply:
        async with await Wire.open(self.mirror.address, client=client) as wire:
            wire.send(method, path, headers)
            return await wire.reply(method)

    async def warm(self) -> None:
        """Have the office pull everything, so that all of it is here."""
        for path in self.paths(SECRET).values():
            assert (await self.ask(OFFICE, path)).status == 200

    def paths(self, repository: str) -> dict[str, str]:
        base = f"/v2/{repository}"
        return {
            "tag": f"{base}/manifests/1",
            "digest": f"{base}/manifests/{self.image.manifest}",
            "small blob": f"{base}/blobs/{self.image.layers[0]}",
            "large blob": f"{base}/blobs/{self.image.layers[1]}",
            "tags": f"{base}/tags/list",
            "referrers": f"{base}/referrers/{self.image.manifest}",
        }


@pytest.fixture
async def scene(tmp_path: Path) -> Any:
    async with FakeRegistry() as hub:
        config = configured(tmp_path / "cache", {"hub.test": hub.url}, rules=RULES)
        async with serving(config) as mirror:
            yield Scene(mirror, hub)


# Ways to name the upstream: the start of the path, the query, a header, and the status of a refusal.
WAYS = {
    "root": ("", "", "Host: mirror.test", 404),
    "prefix": ("/hub.test", "", "Host: mirror.test", 403),
    "ns": ("", "?ns=hub.test", "Host: mirror.test", 404),
    "ns header": ("", "", "OCI-Namespace: hub.test", 404),
    "host": ("", "", "Host: hub.test.mirror.test", 404),
    "name before v2": ("/hub.test", "", "Host: mirror.test", 403),
}


@pytest.mark.parametrize("warm", [False, True], ids=["cold", "warm"])
@pytest.mark.parametrize("way", WAYS)
async def test_denied_client_gets_nothing_by_any_way(scene: Scene, way: str, warm: bool) -> None:
    """Each kind of content, each way to name the upstream, each method; the upstream is not asked."""
    start, query, header, status = WAYS[way]
    if warm:
        await scene.warm()
    asked = len(scene.hub.log)
    for kind, path in scene.paths(SECRET).items():
        rest = path.removeprefix("/v2")
        full = f"{start}/v2{rest}" if way == "name before v2" else f"/v2{start}{rest}"
        for method in ("GET", "HEAD"):
            for extra in ("Accept: */*", "Range: bytes=0-3", f"Accept: {OCI_INDEX}, {OCI_MANIFEST}"):
                reply = await scene.ask(STRANGER, f"{full}{query}", header, extra, method=method)
                assert reply.status == status, (kind, method, extra)
                assert "docker-content-digest" not in reply.headers
                assert str(len(BIG)) != reply.headers["content-length"]
                if method == "GET":
                    assert json.loads(reply.body)["errors"][0]["message"].startswith(
                        "the rules of this mirror"
                    )
    assert len(scene.hub.log) == asked


async def test_denied_client_cannot_reach_blobs_through_an_open_repository(scene: Scene) -> None:
    """A digest that one repository has is a 404 in another: manifest, small and large blob."""
    await scene.warm()
    for name in ("small blob", "large blob", "digest"):
        assert (await scene.ask(STRANGER, scene.paths(OPEN)[name])).status == 404


async def test_catalog_has_what_a_client_may_list(scene: Scene) -> None:
    """No name and no link to a next page tells of a repository that is denied."""
    await scene.warm()
    await scene.ask(OFFICE, f"/v2/{OPEN}/manifests/1")
    scene.hub.add_image("zoo/last", "1", [b"z"])
    await scene.ask(OFFICE, "/v2/zoo/last/manifests/1")
    for path, names in (
        ("/v2/_catalog", ["hub.test/team/open", "hub.test/zoo/last"]),
        ("/v2/hub.test/_catalog", ["team/open", "zoo/last"]),
    ):
        found, query = [], "?n=1"
        while True:
            reply = await scene.ask(STRANGER, f"{path}{query}")
            assert b"secret" not in reply.body
            assert "secret" not in reply.headers.get("link", "")
            found += json.loads(reply.body)["repositories"]
            if "link" not in reply.headers:
                break
            query = "?" + reply.header("link").partition("?")[2].partition(">")[0]
        assert found == names
        everything = json.loads((await scene.ask(OFFICE, path)).body)["repositories"]
        assert len(everything) == 3


async def test_tags_that_a_client_may_not_pull_are_not_listed(scene: Scene) -> None:
    tags = json.loads((await scene.ask(STRANGER, f"/v2/{OPEN}/tags/list")).body)
    assert tags == {"name": OPEN, "tags": ["1"]}
    assert json.loads((await scene.ask(OFFICE, f"/v2/{OPEN}/tags/list")).body)["tags"] == ["1", "2-rc1"]


async def test_rule_about_tags_denies_the_tag_alone(scene: Scene) -> None:
    assert (await scene.ask(STRANGER, f"/v2/{OPEN}/manifests/2-rc1")).status == 404
    assert (await scene.ask(STRANGER, f"/v2/{OPEN}/manifests/1")).status == 200
    assert (await scene.ask(OFFICE, f"/v2/{OPEN}/manifests/2-rc1")).status == 200


async def test_remembered_response_is_for_clients_of_the_same_scope(scene: Scene) -> None:
    """The same bytes of a request, from both clients in turn, on connections that stay open."""
    path = scene.paths(SECRET)["digest"]
    async with (
        await Wire.open(scene.mirror.address, client=OFFICE) as office,
        await Wire.open(scene.mirror.address, client=STRANGER) as stranger,
    ):
        for _ in range(5):
            for wire, status in ((office, 200), (stranger, 404)):
                wire.send("GET", path)
                assert (await wire.reply()).status == status
    scene.mirror.service.metrics.requests.flush_pending()
    assert await scene.mirror.metric('registry_mirror_requests_total{kind="manifest",outcome="denied"}') == 5


async def test_running_fill_is_not_joined_by_a_denied_client(scene: Scene) -> None:
    blob = scene.paths(SECRET)["large blob"]
    await scene.ask(OFFICE, scene.paths(SECRET)["tag"])
    gate = scene.hub.hold(str(scene.image.layers[1]), after=LARGE // 2)
    async with await Wire.open(scene.mirror.address, client=OFFICE) as office:
        office.send("GET", blob)
        await gate.reached.wait()
        assert (await scene.ask(STRANGER, blob)).status == 404
        assert (await scene.ask(STRANGER, blob, method="HEAD")).status == 404
        gate.release()
        assert (await office.reply()).body == BIG


@pytest.mark.usefixtures("own_logging")
async def test_refusal_names_the_client_and_the_log_the_rule(
    scene: Scene,
) -> None:
    log = StringIO()
    configure(LogSettings(format="json"), log)
    reply = await scene.ask(STRANGER, f"/v2/hub.test/{SECRET}/manifests/1")
    error = json.loads(reply.body)["errors"][0]
    assert error == {
        "code": "DENIED",
        "message": f"the rules of this mirror do not let {STRANGER} pull hub.test/{SECRET}: ask its operator",
    }
    line = json.loads(log.getvalue().splitlines()[-1])
    assert (line["outcome"], line["status"], line["client"]) == ("denied", 403, STRANGER)
    assert line["note"] == "denied by rule 2 (nobody else)"


async def test_remembered_refusal_names_the_client_that_gets_it(scene: Scene) -> None:
    """Clients of one scope have the same rights, and no business with each other's addresses."""
    others = ["127.0.0.8", "127.0.0.9"]
    for client in others * 4:
        reply = await scene.ask(client, f"/v2/hub.test/{SECRET}/manifests/1")
        assert reply.status == 403
        assert f" let {client} pull ".encode() in reply.body


async def test_default_deny_lets_in_who_is_named(tmp_path: Path) -> None:
    rules = [{"name": "team", "effect": "allow", "networks": [OFFICE], "repositories": ["hub.test/team/*"]}]
    async with FakeRegistry() as hub:
        config = configured(
            tmp_path / "cache", {"hub.test": hub.url}, rules=rules, access={"default": "deny"}
        )
        async with serving(config) as mirror:
            scene = Scene(mirror, hub)
            hub.add_image("other/app", "1", [b"x"])
            assert (await scene.ask(OFFICE, f"/v2/{OPEN}/manifests/1")).status == 200
            assert (await scene.ask(OFFICE, "/v2/other/app/manifests/1")).status == 404
            assert (await scene.ask(STRANGER, f"/v2/{OPEN}/manifests/1")).status == 404
            assert (await scene.ask(STRANGER, "/v2/")).status == 200
            assert json.loads((await scene.ask(STRANGER, "/v2/_catalog")).body) == {"repositories": []}


async def test_client_behind_a_trusted_proxy_is_judged_by_its_own_address(tmp_path: Path) -> None:
    """The same connection of the proxy carries requests of both clients; each head is remembered apart."""
    rules = [{"name": "one", "effect": "deny", "networks": ["192.0.2.7"]}]
    async with FakeRegistry() as hub:
        config = configured(
            tmp_path / "cache",
            {"hub.test": hub.url},
            rules=rules,
            server={"trusted_proxies": ["127.0.0.1"]},
        )
        async with serving(config) as mirror:
            Scene(mirror, hub)
            path = f"/v2/{OPEN}/manifests/1"
            async with (
                await Wire.open(mirror.address, client="127.0.0.1") as proxy,
                await Wire.open(mirror.address, client="127.0.0.2") as direct,
            ):
                for _ in range(5):
                    for wire, header, status in (
                        (proxy, "X-Forwarded-For: 192.0.2.8", 200),
                        (proxy, "X-Forwarded-For: 192.0.2.7", 404),
                        (proxy, "X-Forwarded-For: 10.0.0.1, 192.0.2.7", 404),
                        (proxy, "Accept: */*", 200),
                        # Not a proxy: the header is a stranger's word.
                        (direct, "X-Forwarded-For: 192.0.2.7", 200),
                    ):
                        wire.send("GET", path, [header])
                        assert (await wire.reply()).status == status, header


@pytest.mark.usefixtures("own_logging")
async def test_access_line_of_a_remembered_response_has_the_client_behind_the_proxy(
    tmp_path: Path,
) -> None:
    log = StringIO()
    async with FakeRegistry() as hub:
        config = configured(
            tmp_path / "cache", {"hub.test": hub.url}, server={"trusted_proxies": ["127.0.0.1"]}
        )
        async with serving(config) as mirror:
            Scene(mirror, hub)
            configure(LogSettings(format="json"), log)
            async with await Wire.open(mirror.address) as proxy:
                for _ in range(4):
                    proxy.send("GET", f"/v2/{OPEN}/manifests/1", ["X-Forwarded-For: 192.0.2.8"])
                    assert (await proxy.reply()).status == 200
            mirror.service.metrics.requests.flush_pending()
    lines = [json.loads(line) for line in log.getvalue().splitlines()]
    assert [each["client"] for each in lines if each["event"] == "request"] == ["192.0.2.8"] * 4
