"""Words for what an export lacks."""

import pytest

from mirror.cli.carry.missing import advice, line_of
from mirror.manage.carry.contents import Missing

IMAGE, DIGEST = "quay.io/org/y:1", "sha256:0"


@pytest.mark.parametrize(
    ("missing", "line"),
    [
        (Missing(IMAGE, "image"), "nothing of it is here"),
        (Missing(IMAGE, "platform", DIGEST), "each platform is not here"),
        (Missing(IMAGE, "platform", DIGEST, platform="linux/arm"), "linux/arm is not here"),
        (Missing(IMAGE, "blob", DIGEST, 2048), "sha256:0 (2 KiB) is not here"),
        (Missing(IMAGE, "referrer", DIGEST), "sha256:0, which refers to it, is not here"),
        (Missing(IMAGE, "blob", DIGEST, unconfirmed=True), "came with an account; pull it"),
    ],
)
def test_missing_is_a_clause(missing: Missing, line: str) -> None:
    """The clause follows the name of the image."""
    assert line in line_of(missing)


def test_advice_about_what_is_missing() -> None:
    """Signatures alone can be left out."""
    referrer, blob = Missing(IMAGE, "referrer", DIGEST), Missing(IMAGE, "blob", DIGEST)
    assert "--no-referrers" in advice((referrer,))
    assert "1 thing is missing, nothing is exported" in advice((referrer,))
    assert "--fetch" in advice((referrer, blob))
    assert "2 things are missing" in advice((referrer, blob))
