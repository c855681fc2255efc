"""Ages of images: nothing is served before it is old enough, by tag or by digest, index or child."""

import asyncio
import json
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from mirror.oci.manifest import OCI_INDEX, OCI_MANIFEST
from tests.fakes.content import image_index
from tests.fakes.faults import Fault
from tests.fakes.registry import FakeRegistry
from tests.running import Running, configured, serving
from tests.wire import Reply, ask

DAY = 86400.0
YOUNG = {"name": "three days", "effect": "deny", "min_age": "3d"}


class Clock:
    """Seconds since the epoch, which a test moves."""

    now = 1_700_000_000.0

    def __call__(self) -> float:
        return self.now


class Scene:
    """A registry with an image of one platform, and an index of it; the mirrors on one folder."""

    def __init__(self, folder: Path, hub: FakeRegistry, *rules: dict[str, Any], **access: Any) -> None:
        self.clock = Clock()
        self.hub = hub
        self.numbers = count(1)
        self.image = hub.add_image("org/app", "1", [b"layer"])
        index = image_index([self.image.manifest_data])
        self.index = hub.add_manifest("org/app", index, OCI_INDEX, tag="all")
        self.config = configured(folder, {"hub.test": hub.url}, rules=list(rules), access=access)

    def serving(self) -> Any:
        return serving(self.config, self.clock)

    async def ask(
        self,
        mirror: Running,
        reference: object,
        method: str = "GET",
        start: str = "/hub.test",
        *,
        new: bool = True,
    ) -> Reply:
        """Ask for a manifest. `new`: by a head that came never before, so that no answer is remembered."""
        path = f"/v2{start}/org/app/manifests/{reference}"
        number = next(self.numbers) if new else 0
        return await ask(
            mirror.address, method, path, [f"Accept: {OCI_INDEX}, {OCI_MANIFEST}", f"X-N: {number}"]
        )


@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_image_is_denied_until_its_age_by_tag_and_digest(tmp_path: Path, method: str) -> None:
    """The age counts from the first request of any kind; the message says when the image will be served."""
    async with FakeRegistry() as hub:
        scene = Scene(tmp_path, hub, YOUNG)
        async with scene.serving() as mirror:
            references = ("1", scene.image.manifest)
            for reference in references:
                assert (await scene.ask(mirror, reference, method)).status == 403
            refused = await scene.ask(mirror, "1")
            error = json.loads(refused.body)["errors"][0]
            assert error["code"] == "DENIED"
            assert "before 2023-11-17 22:13 UTC" in error["message"]
            assert (await scene.ask(mirror, "1", start="")).status == 404
            scene.clock.now += 3 * DAY - 1
            for reference in references:
                assert (await scene.ask(mirror, reference, method)).status == 403
            scene.clock.now += 1
            for reference in references:
                assert (await scene.ask(mirror, reference, method)).status == 200


async def test_age_outlives_a_restart_and_the_image(tmp_path: Path) -> None:
    async with FakeRegistry() as hub:
        scene = Scene(tmp_path, hub, YOUNG)
        async with scene.serving() as mirror:
            assert (await scene.ask(mirror, "1")).status == 403
        scene.clock.now += 3 * DAY
        async with scene.serving() as mirror:
            assert (await scene.ask(mirror, "1")).status == 200


async def test_child_of_an_index_is_as_old_as_the_index(tmp_path: Path) -> None:
    """An image of several platforms does not have to wait twice."""
    async with FakeRegistry() as hub:
        scene = Scene(tmp_path, hub, YOUNG)
        async with scene.serving() as mirror:
            assert (await scene.ask(mirror, "all")).status == 403
            scene.clock.now += 3 * DAY
            assert (await scene.ask(mirror, "all")).status == 200
            assert (await scene.ask(mirror, scene.image.manifest)).status == 200


async def test_image_that_moves_is_young_again(tmp_path: Path) -> None:
    """The age is that of the content and not of the tag; the old content stays old."""
    async with FakeRegistry() as hub:
        scene = Scene(tmp_path, hub, YOUNG)
        async with scene.serving() as mirror:
            await scene.ask(mirror, "1")
            scene.clock.now += 3 * DAY
            assert (await scene.ask(mirror, "1")).status == 200
            hub.add_image("org/app", "1", [b"malware"])
            scene.clock.now += DAY
            assert (await scene.ask(mirror, "1")).status == 403
            assert (await scene.ask(mirror, scene.image.manifest)).status == 200


async def test_age_counts_from_before_the_rule(tmp_path: Path) -> None:
    """Images that a mirror without the rule had pulled are not young when the rule comes."""
    async with FakeRegistry() as hub:
        scene = Scene(tmp_path, hub, YOUNG)
        async with serving(configured(tmp_path, {"hub.test": hub.url}), scene.clock) as mirror:
            assert (await scene.ask(mirror, "1")).status == 200
        scene.clock.now += 3 * DAY
        async with scene.serving() as mirror:
            assert (await scene.ask(mirror, "1")).status == 200


async def test_refusal_for_the_age_is_remembered_no_longer_than_it_holds(tmp_path: Path) -> None:
    """Requests that are answered from memory are refused only until the age is reached."""
    async with FakeRegistry() as hub:
        scene = Scene(tmp_path, hub, {**YOUNG, "min_age": "500ms"})
        async with scene.serving() as mirror:
            assert [(await scene.ask(mirror, "1", new=False)).status for _ in range(4)] == [403] * 4
            scene.clock.now += 0.5
            async with asyncio.timeout(60):
                while (await scene.ask(mirror, "1", new=False)).status == 403:
                    pass


async def test_allowing_rule_with_an_age_lets_blobs_pass(tmp_path: Path) -> None:
    """The manifest is judged by its age where nothing is allowed by default, and the blobs are not."""
    rule = {"name": "old", "effect": "allow", "min_age": "1d"}
    async with FakeRegistry() as hub:
        scene = Scene(tmp_path, hub, rule, default="deny")
        async with scene.serving() as mirror:
            assert (await scene.ask(mirror, "1")).status == 403
            scene.clock.now += DAY
            assert (await scene.ask(mirror, "1")).status == 200
            blob = f"/v2/hub.test/org/app/blobs/{scene.image.layers[0]}"
            assert (await ask(mirror.address, "GET", blob)).body == b"layer"


def created(moment: str) -> dict[str, Any]:
    return {"annotations": {"org.opencontainers.image.created": moment}}


@pytest.mark.parametrize(
    ("trusted", "moment", "status"),
    [
        (["hub.test/org/*"], "2023-11-11T00:00:00.123456789Z", 200),
        (["hub.test/org/*"], "2023-11-12T00:00:00Z", 403),  # younger than three days
        (["hub.test/org/*"], "1970-01-01T00:00:00Z", 403),  # of a reproducible build
        (["hub.test/org/*"], "2033-01-01T00:00:00Z", 403),
        (["hub.test/org/*"], "long ago, believe me", 403),
        (["hub.test/other"], "2023-11-11T00:00:00Z", 403),
        ([], "2023-11-11T00:00:00Z", 403),
    ],
)
@pytest.mark.parametrize("place", ["config", "manifest", "index", "descriptor", "child"])
async def test_creation_date_counts_where_the_operator_trusts_it(
    tmp_path: Path, trusted: list[str], moment: str, status: int, place: str
) -> None:
    """A forged date opens nothing elsewhere; what cannot be a date is none."""
    async with FakeRegistry() as hub:
        scene = Scene(tmp_path, hub, YOUNG, trust_created=trusted)
        config = hub.add_blob("org/app", json.dumps({"created": moment}).encode())
        image = json.loads(scene.image.manifest_data)
        if place == "manifest":
            image |= created(moment)
        elif place in ("config", "child"):
            image["config"]["digest"] = str(config)
        data = json.dumps(image).encode()
        hub.add_manifest("org/app", data, OCI_MANIFEST, tag="1")
        index = json.loads(image_index([data]))
        if place == "index":
            index |= created(moment)
        elif place == "descriptor":
            index["manifests"][0] |= created(moment)
        hub.add_manifest("org/app", json.dumps(index).encode(), OCI_INDEX, tag="all")
        async with scene.serving() as mirror:
            reference = "1" if place in ("config", "manifest") else "all"
            for method in ("HEAD", "GET"):
                reply = await scene.ask(mirror, reference, method)
                assert reply.status == status
            if status == 403 and trusted == ["hub.test/org/*"] and moment.startswith("2023"):
                assert b"before 2023-11-15 00:00 UTC: it was created, as its author says, on" in reply.body


async def test_creation_date_that_cannot_be_had_counts_for_nothing(tmp_path: Path) -> None:
    async with FakeRegistry() as hub:
        scene = Scene(tmp_path, hub, YOUNG, trust_created=["*"])
        async with scene.serving() as mirror:
            hub.fault(Fault(status=404), match=scene.image.config, times=10)
            assert (await scene.ask(mirror, "1")).status == 403


async def test_request_that_is_denied_at_any_age_asks_no_upstream(tmp_path: Path) -> None:
    async with FakeRegistry() as hub:
        scene = Scene(tmp_path, hub, YOUNG, {"name": "never", "effect": "deny"})
        async with scene.serving() as mirror:
            assert (await scene.ask(mirror, "1")).status == 403
        assert hub.log == []
