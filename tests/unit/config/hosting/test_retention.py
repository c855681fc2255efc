"""Options of retention: a rule that would remove everything is refused."""

import pytest

from mirror.config.hosting.hosted import HostedSettings


def settings(**rule: object) -> HostedSettings:
    return HostedSettings.model_validate({"name": "office", "retention": [rule]})


@pytest.mark.parametrize("rule", [{"keep_last": 1}, {"keep_for": "1d"}, {"keep_pulled": "1d"}])
def test_rule_with_a_condition_is_taken(rule: dict[str, object]) -> None:
    (found,) = settings(**rule).retention
    assert (found.repositories, found.tags) == (("*",), ("*",))


@pytest.mark.parametrize("rule", [{}, {"tags": ["pr-*"]}, {"keep_last": 0, "keep_for": 0}])
def test_rule_without_a_condition_is_refused(rule: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="would remove every tag"):
        settings(**rule)


def test_negative_number_is_refused() -> None:
    with pytest.raises(ValueError, match="keep_last"):
        settings(keep_last=-1)
