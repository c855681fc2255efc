"""`[[hosted.mirror_to]]`: where, which repositories, and wrong values."""

import pytest

from mirror.config.hosting.replicas import ReplicaSettings
from mirror.config.validation import Invalid


def test_target_takes_everything_and_deletes_nothing() -> None:
    found = ReplicaSettings.model_validate({"url": "https://backup.lan/"})
    assert (found.url, found.prefix, found.repositories) == ("https://backup.lan", "", ("*",))
    assert not found.deletes


@pytest.mark.parametrize(
    "values",
    [{}, {"url": "backup"}, {"url": "https://us:secret@backup.lan"}, {"url": "https://a.lan", "prefix": "A"}],
)
def test_wrong_targets_are_refused(values: dict[str, str]) -> None:
    with pytest.raises(Invalid):
        ReplicaSettings.model_validate(values)
