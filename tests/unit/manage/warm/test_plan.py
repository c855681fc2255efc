"""Plans of runs."""

import pytest

from mirror.manage.warm.images import WarmImage, parse_image
from mirror.manage.warm.plan import WarmPlan
from mirror.oci.digest import Digest
from mirror.oci.platforms import own_platform

NAMES = {"docker.io": "docker.io"}


def images(*texts: str) -> list[WarmImage]:
    return [parse_image(each, NAMES) for each in texts]


def test_plan_has_platforms_as_people_name_them() -> None:
    assert WarmPlan.of(images("x"), []).platforms == (own_platform(),)
    assert WarmPlan.of(images("x"), ["all"]).platforms == ()
    with pytest.raises(ValueError, match="not a platform"):
        WarmPlan.of(images("x"), ["x"])


def test_plan_pins_patterns_and_single_images() -> None:
    """A pattern of tags is one pin, so that later tags are pinned too; a range is a pin for each tag."""
    digest = Digest.of(b"x")
    wanted = images("x:3.*", "y:>=1", f"z@{digest}", "x:latest")
    plan = WarmPlan.of(wanted, ["linux/amd64"], pin=True)
    found = images("x:3.1", "x:3.2", "y:1.0", f"z@{digest}", "x:latest")
    assert [str(each) for each in plan.pins(found)] == [
        "docker.io/library/x:3.* linux/amd64",
        "docker.io/library/y:1.0 linux/amd64",
        f"docker.io/library/z@{digest} linux/amd64",
        "docker.io/library/x:latest linux/amd64",
    ]
    assert WarmPlan.of(wanted, []).pins(found) == []
