"""Values of options as people write them."""

import pytest

from mirror.config.display import shown, unit_of
from mirror.config.endpoints import SourceSettings, UpstreamSettings
from mirror.config.schema import CacheSettings, FillSettings, TagRuleSettings, TagSettings
from mirror.config.server import ServerSettings
from mirror.config.types import FOREVER, Amount
from mirror.config.validation import Settings


@pytest.mark.parametrize(
    ("model", "key", "value", "text"),
    [
        (TagSettings, "fresh", 60, "1m"),
        (TagSettings, "fresh", 0.0, "0s"),
        (TagSettings, "stale_if_error", FOREVER, "forever"),
        (TagRuleSettings, "fresh", 5400.0, "1h30m"),
        (TagRuleSettings, "fresh", None, "-"),
        (CacheSettings, "max_size", Amount(), "0 (no limit)"),
        (CacheSettings, "max_size", Amount(1000), "1000"),
        (CacheSettings, "min_free", Amount(percent=5), "5%"),
        (CacheSettings, "memory", 64 * 1024**2, "64MiB"),
        (CacheSettings, "scrub", 0, "0 (no scrubbing)"),
        (CacheSettings, "pins", (), "-"),
        (CacheSettings, "pins", ("a", "b linux/amd64"), "a, b linux/amd64"),
        (FillSettings, "prefetch", 0, '0 ("off")'),
        (FillSettings, "prefetch", 3, "3"),
        (ServerSettings, "offline", False, "false"),
        (ServerSettings, "workers", "auto", "auto"),
        (SourceSettings, "weight", 1.0, "1.0"),
        (UpstreamSettings, "read_timeout", 30, "30s"),
    ],
)
def test_option_is_shown_as_people_write_it(
    model: type[Settings], key: str, value: object, text: str
) -> None:
    """Times and sizes have units, 0 has its meaning, and a missing value is a dash."""
    assert shown(value, model.options()[key]) == text


def test_unit_and_zero_of_an_option() -> None:
    """Optional values have the unit too; most options have no special 0."""
    unit = unit_of(TagRuleSettings.options()["fresh"])
    assert unit is not None
    assert unit.name == 'time or "forever"'
    assert unit_of(FillSettings.options()["attempts"]) is None
    assert FillSettings.options()["attempts"].doc.zero is None
