"""Options of webhooks: addresses, secrets and events that cannot be meant are refused."""

from pathlib import Path
from typing import Any

import pytest

from mirror.config.hosting.hosted import HostedSettings


def settings(folder: Path, **values: Any) -> HostedSettings:
    secret = folder / "secret"
    secret.write_text(values.pop("secret", "x" * 16))
    hook = {"url": "https://ci.lan/hook?a=b", "secret_file": str(secret), **values}
    return HostedSettings.model_validate({"name": "office", "webhooks": [hook]})


def test_webhook_is_told_everything_unless_it_says_otherwise(tmp_path: Path) -> None:
    (found,) = settings(tmp_path).webhooks
    assert (found.events, found.repositories) == (("push", "delete", "pull"), ("*",))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"url": "ci.lan/hook"}, "is not a URL"),
        ({"url": "https://user:word@ci.lan/hook"}, "has a user"),
        ({"secret": "short"}, "less than 16 bytes"),
        ({"events": ["pushed"]}, "is no event"),
        ({"events": []}, "is no event"),
    ],
)
def test_wrong_webhook_is_refused(tmp_path: Path, values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message) as refused:
        settings(tmp_path, **values)
    assert "word" not in str(refused.value)
