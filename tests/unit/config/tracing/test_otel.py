"""The options of traces."""

import pytest

from mirror.config.tracing import otel
from mirror.config.tracing.otel import OtelSettings
from mirror.config.validation import Invalid


@pytest.mark.parametrize("url", [None, "http://127.0.0.1:4318/v1/traces", "https://collector.lan/v1/traces"])
def test_otel_endpoint_is_a_url(url: str | None) -> None:
    assert OtelSettings.model_validate({"endpoint": url}).endpoint == url


@pytest.mark.parametrize(
    "url", ["", "collector:4318", "ftp://x/", "http://me:secret@x/", "http://x/?key=secret"]
)
def test_otel_endpoint_without_a_secret_in_it(url: str) -> None:
    """An endpoint that is no URL, or has a secret, is refused without being shown."""
    with pytest.raises(Invalid, match="OTLP over HTTP") as caught:
        OtelSettings.model_validate({"endpoint": url})
    assert "secret" not in str(caught.value)


def test_otel_without_its_packages_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(otel, "LIBRARY", "no_such_package.exporter")
    with pytest.raises(Invalid, match=r"registry-mirror\[otel\]"):
        OtelSettings.model_validate({"endpoint": "http://127.0.0.1:4318/v1/traces"})


@pytest.mark.parametrize("share", [-0.1, 1.1])
def test_otel_share_is_one(share: float) -> None:
    with pytest.raises(Invalid):
        OtelSettings.model_validate({"sample": share})
