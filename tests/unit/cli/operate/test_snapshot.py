"""A moment of a mirror, from the answers of its API."""

import pytest

from mirror.cli.operate.snapshot import understood
from mirror.cli.remote.admin_client import NoAnswer

ABOUT = {"version": "9.9", "address": "127.0.0.1", "operator": False, "names": [], "new": "field"}
ACTIVITY: dict[str, object] = {"workers": 1, "requests": [], "downloads": [], "recent": [], "later": 1}


def test_snapshot_of_a_newer_mirror_is_understood() -> None:
    """Fields that this version does not know are left out."""
    found = understood({"about": ABOUT, "activity": ACTIVITY})
    assert (found.about.version, found.activity.workers, found.disk) == ("9.9", 1, None)


@pytest.mark.parametrize(
    "answers",
    [
        {},
        {"about": [], "activity": ACTIVITY},
        {"about": ABOUT, "activity": {**ACTIVITY, "requests": [{"id": 7}]}},
        {"about": ABOUT, "activity": {**ACTIVITY, "workers": float("inf")}},
        {"about": ABOUT, "activity": ACTIVITY, "disk": {"cached": -1, "allowed": -1}},
    ],
)
def test_snapshot_of_another_program_is_an_error(answers: dict[str, object]) -> None:
    with pytest.raises(NoAnswer, match="as this version knows"):
        understood(answers)
