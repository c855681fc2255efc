"""Limits of single repositories in the configuration."""

from pathlib import Path

import pytest

from mirror.config.cache_rules import CacheRuleSettings
from mirror.config.loader import load
from mirror.config.types import Amount
from tests.unit.config.refusals import refusal

HEAD = '[[cache.rules]]\nrepositories = "ghcr.io/models/*"\n'


def test_cache_rules_of_a_file(tmp_path: Path) -> None:
    """Sizes, and a share as a percentage; their order is kept."""
    file = tmp_path / "mirror.toml"
    second = '[[cache.rules]]\nrepositories = "*"\nmax_share = "1GiB"\n'
    file.write_text(f'{HEAD}max_blob = "10GiB"\nmax_share = "20%"\n{second}')
    rules = load(file, {"HOME": "/home/me"}, {}).config.cache.rules
    assert [each.repositories for each in rules] == ["ghcr.io/models/*", "*"]
    assert (rules[0].max_blob, rules[0].max_share) == (10 * 1024**3, Amount(percent=20))
    assert (rules[1].max_blob, rules[1].max_share) == (None, Amount(1024**3))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "max_share: or max_blob is needed"),
        ('max_blob = "10KiB"\n', "max_blob: must be at least 1MiB, not 10KiB"),
        ('max_share = "0"\n', "max_share: must be at least 1MiB, or a percentage"),
        ('max_share = "200%"\n', "max_share"),
        ('max_blob = "ten"\n', "max_blob"),
        ('max_blobs = "1GiB"\n', "max_blobs"),
    ],
)
def test_cache_rules_refuse_what_limits_nothing(tmp_path: Path, text: str, reason: str) -> None:
    """The message names the rule, the option and the remedy."""
    message = refusal(tmp_path, HEAD + text)
    assert "cache.rules" in message
    assert reason in message


def test_cache_rule_needs_repositories(tmp_path: Path) -> None:
    """A rule for all of them says so."""
    assert "repositories" in refusal(tmp_path, '[[cache.rules]]\nmax_blob = "1GiB"\n')
    assert CacheRuleSettings.model_validate({"repositories": "*", "max_blob": 2**20}).max_share is None
