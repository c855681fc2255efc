"""The operation about savings."""

from pathlib import Path

from mirror.oci.manifest import OCI_MANIFEST
from tests.fakes.registry import FakeRegistry
from tests.paged import paged
from tests.running import configured
from tests.wire import Wire


async def test_savings_count_what_was_served_and_survive_a_restart(tmp_path: Path) -> None:
    """The first pull is fetched, the others are saved; a second mirror on the folder goes on."""
    async with FakeRegistry() as hub:
        image = hub.add_image("team/app", "1", [b"layer"])
        size = len(image.manifest_data)
        config = configured(tmp_path, {"hub.test": hub.url})
        for round_, saved in ((1, 2 * size), (2, 5 * size)):
            async with paged(config) as mirror:
                async with await Wire.open(mirror.address) as wire:
                    for _ in range(3):
                        wire.send(
                            "GET", f"/v2/team/app/manifests/{image.manifest}", [f"Accept: {OCI_MANIFEST}"]
                        )
                        assert (await wire.reply()).status == 200
                found = await mirror.api("savings?days=7")
                assert found["total"]["saved"] == saved
                assert found["total"]["requests"] == 3 * round_
                assert [each["name"] for each in found["upstreams"]] == ["hub.test"]
                assert [each["name"] for each in found["repositories"]] == ["hub.test/team/app"]
                assert len(found["days"]) in (1, 2)
