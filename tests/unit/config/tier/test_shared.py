"""The options of the shared tier: refused values, secrets, and the extra that it needs."""

from pathlib import Path

import pytest

from mirror.config.loader import ConfigError, load
from mirror.config.tier.shared import SharedSettings
from mirror.config.validation import Invalid

SECRET = "secret-that-no-error-has"


@pytest.mark.parametrize(
    ("url", "name", "prefix"),
    [("s3://b-1", "b-1", ""), ("s3://bucket/", "bucket", ""), ("s3://bucket/a/b.c_d/", "bucket", "a/b.c_d")],
)
def test_shared_bucket_and_prefix(url: str, name: str, prefix: str) -> None:
    """A prefix has no slash at its ends."""
    bucket = SharedSettings.model_validate({"url": url}).bucket
    assert bucket is not None
    assert (bucket.name, bucket.prefix) == (name, prefix)


def test_shared_nothing_by_default() -> None:
    """No bucket means no tier."""
    assert SharedSettings().bucket is None


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"url": "https://bucket"}, "is not a bucket"),
        ({"url": "s3://B"}, "is not a bucket"),
        ({"url": "s3://bucket/../other"}, "is not a bucket"),
        ({"url": "s3://bucket/a b"}, "is not a bucket"),
        ({"endpoint": "s3.lan:8333"}, "is not the URL of an object store"),
        ({"endpoint": f"http://me:{SECRET}@s3.lan"}, "set access_key"),
        ({"coordinator": "memcached://x"}, 'must be "bucket"'),
        ({"coordinator": "redis://x/0?ssl_cert_reqs=none"}, 'must be "bucket"'),
        ({"coordinator": f"redis://:{SECRET}@x"}, "set coordinator_password_file"),
        ({"access_key": "a"}, "belong together"),
        ({"secret_key": SECRET}, "belong together"),
        ({"timeout": "0s"}, "more than"),
        ({"peers_listen": "10.0.0.3"}, "HOST:PORT"),
        ({"peers_listen": "10.0.0.3:5002"}, "needs peers_secret_file"),
        ({"peers_listen": ":5002", "peers_secret": SECRET}, "is needed"),
        ({"peers_listen": "10.0.0.3:5002", "peers_secret": "short"}, "less than 16"),
        ({"peers_url": "https://10.0.0.3:5002"}, "must be the URL of peers_listen"),
        ({"peers_url": f"http://me:{SECRET}@10.0.0.3:5002"}, "must be the URL of peers_listen"),
        ({"secret_key_file": "/nowhere"}, "cannot be read"),
    ],
)
def test_shared_options_that_are_refused(values: dict[str, object], words: str) -> None:
    """The error says what is wrong, and repeats no secret."""
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        SharedSettings.model_validate(values)
    assert words in str(caught.value)
    assert SECRET not in str(caught.value)


def test_shared_options_that_contradict_each_other_are_named(tmp_path: Path) -> None:
    """The error of a file has the section, and what belongs together."""
    file = tmp_path / "mirror.toml"
    file.write_text('[shared]\nurl = "s3://bucket"\naccess_key = "a"\n')
    with pytest.raises(ConfigError, match=r"mirror\.toml: shared: access_key and secret_key_file belong"):
        load(file, {"HOME": "/home/me"}, {})


def test_shared_secrets_come_from_files(tmp_path: Path) -> None:
    """A file for each secret, whose last line break does not count; no text shows them."""
    file = tmp_path / "secret"
    file.write_text(f"{SECRET}\n")
    settings = SharedSettings.model_validate(
        {
            "url": "s3://bucket",
            "access_key": "a",
            "secret_key_file": str(file),
            "coordinator_password_file": file,
        }
    )
    for each in (settings.secret_key, settings.coordinator_password):
        assert each is not None
        assert each.get_secret_value() == SECRET
    assert SECRET not in repr(settings)


def test_shared_secret_twice_is_refused(tmp_path: Path) -> None:
    """A file and a value: one of them is meant."""
    file = tmp_path / "secret"
    file.write_text("x")
    with pytest.raises(Invalid, match="keep one of them"):
        SharedSettings.model_validate({"access_key": "a", "secret_key": "b", "secret_key_file": str(file)})
    file.write_text("")
    with pytest.raises(Invalid, match="is empty"):
        SharedSettings.model_validate({"access_key": "a", "secret_key_file": str(file)})


def test_shared_needs_its_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    """A configuration without the extra is refused with the command that installs it."""
    monkeypatch.setattr(
        "mirror.config.tier.shared.LIBRARIES", {"url": "absent_one", "coordinator": "absent_two"}
    )
    with pytest.raises(Invalid, match=r"registry-mirror\[shared\]"):
        SharedSettings.model_validate({"url": "s3://bucket"})
    with pytest.raises(Invalid, match=r"registry-mirror\[shared\]"):
        SharedSettings.model_validate({"coordinator": "redis://x"})
    assert SharedSettings().bucket is None


def test_shared_ca_file_is_pem(tmp_path: Path) -> None:
    """The certificates are read with the configuration, and again with the next one."""
    file = tmp_path / "ca.pem"
    file.write_text("no certificate")
    with pytest.raises(ValueError, match="no certificate in the form of PEM"):
        SharedSettings.model_validate({"url": "s3://bucket", "ca_file": str(file)})
    for text in ("-----BEGIN CERTIFICATE-----\none", "-----BEGIN CERTIFICATE-----\ntwo"):
        file.write_text(text)
        settings = SharedSettings.model_validate({"url": "s3://bucket", "ca_file": str(file)})
        assert settings.certificates == text.encode()
    assert SharedSettings().certificates is None
