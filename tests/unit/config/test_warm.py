"""Options of `[[warm]]` tables."""

from pathlib import Path

import pytest

from mirror.config.loader import ConfigError, load
from mirror.config.warm import WarmSettings

TABLE = '[[warm]]\nname = "n"\nschedule = "30 3 * * * UTC"\n'


def loaded(folder: Path, text: str) -> tuple[WarmSettings, ...]:
    file = folder / "mirror.toml"
    file.write_text(text)
    return load(file, {}, {}).config.warm


def test_warm_tables_are_read(tmp_path: Path) -> None:
    (found,) = loaded(tmp_path, f'{TABLE}images = ["alpine:3.*"]\nplatforms = ["all"]\njitter = "10m"\n')
    assert (found.images, found.platforms, found.jitter, found.leave) == (
        ("alpine:3.*",),
        ("all",),
        600.0,
        50,
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[[warm]]\nname = "n"\n', "schedule"),
        ('[[warm]]\nname = "n"\nschedule = "30 3 * * *"\n', "warm.n.schedule: must be cron's five fields"),
        (f'{TABLE}platforms = ["amd64"]\n', "warm.n.platforms: 'amd64' is not a platform"),
        (f"{TABLE}{TABLE}", "is named twice"),
    ],
)
def test_warm_tables_that_are_wrong_are_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        loaded(tmp_path, text)
