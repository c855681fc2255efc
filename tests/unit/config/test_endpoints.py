"""The options of upstreams, accounts and sources: limits, and errors in plain words."""

from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization

from mirror.config.loader import load
from tests.fakes.tls import Authority
from tests.unit.config.refusals import refusal


def upstream(**keys: Any) -> str:
    """Return a [[upstream]] table of the name x.test with these keys."""
    lines = [
        f"{key} = {str(value).lower() if isinstance(value, bool) else repr(value)}"
        for key, value in keys.items()
    ]
    return "\n".join(["[[upstream]]", "name = 'x.test'", *lines])


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (upstream(url="ftp://x.test"), "is not a URL with http:// or https://: 'ftp://x.test'"),
        (upstream(url="ftp://me:hunter2@x.test"), "is not a URL, for instance https://registry-1.docker.io"),
        (upstream(url="http://[x"), "is not a URL"),
        (upstream(url="me:hunter2@x.test"), "is not a URL, for instance https://registry-1.docker.io"),
        (upstream(url="quay.io"), "upstream.x.test.url: is not a URL; did you mean https://quay.io?"),
        (upstream(url="10.0.0.1:5000/v2"), "did you mean https://10.0.0.1:5000/v2?"),
        (upstream(url="http://me:hunter2@x.test"), "set username and password_file instead"),
        (upstream(url="http://x.test?a=b"), "has a query or fragment"),
        (upstream(url="http://x.test/#a"), "has a query or fragment"),
        (upstream(url="https://"), "is not a URL"),
        (upstream(url="https:///v2"), "is not a URL"),
        (upstream(url="https://x y.test"), "is not a URL"),
        (upstream(url="https://x\ty.test"), "is not a URL"),
        (upstream(url="https://x%20y.test"), "is not a URL"),
        (upstream(url="https://x..test"), "is not a URL"),
        (upstream(url="https://."), "is not a URL"),
        (upstream(url="https://x.test\\y"), "is not a URL"),
        (upstream(url="https://x.test/a b"), "is not a URL"),
        (upstream(url=f"https://{'x' * 64}.test"), "is not a URL"),
        (upstream(username="a:b", password="x"), "username: has a colon"),
        (upstream(username="a\r\nX: y", password="x"), "username: has a colon"),
        (upstream(url="http://x.test", realms=["https://x.test?a=b"]), "not an origin"),
        (upstream(url="http://x.test", realms=["https://x y.test"]), "not an origin"),
        (upstream(url="https://x.test:0"), "is not a URL"),
        (
            upstream(url="https://x.test/v2"),
            "ends with /v2, which is added to it: write url = 'https://x.test'",
        ),
        (upstream(url="https://x.test/a/v2/"), "added to it: write url = 'https://x.test/a'"),
        (
            upstream(url="https://x.test/v2/hub-proxy"),
            "has /v2/ in it: write url = 'https://x.test' and prefix = 'hub-proxy'",
        ),
        (upstream(url="https://x.test", prefix="/hub"), "must be the beginning of repository names"),
        (upstream(url="http://x.test", username="me"), "belong together"),
        (upstream(url="http://x.test", realms=["https://x.test/token"]), "not an origin"),
        (upstream(url="http://x.test", hosts=["UPPER"]), "is not a host name in lower case"),
        (
            upstream(url="http://x.test", hosts=["x.test:0"]),
            "has a port that does not exist: give one from 1",
        ),
        (upstream(url="http://x.test", hosts=["x.test:99999"]), "'x.test:99999' has a port that does not"),
        (upstream(url="http://x.test", aliases=["[::1]:99999"]), "has a port that does not exist"),
        (upstream(url="http://x.test", aliases=["a..b"]), "'a..b' is not a host name in lower case"),
        (upstream(url="http://x.test", aliases=["a-.b"]), "'a-.b' is not a host name in lower case"),
        (upstream(url="http://x.test", aliases=["[::1"]), "'[::1' is not a host name in lower case"),
        (upstream(url="http://x.test", prefix="a//b"), "must be the beginning of repository names"),
        (upstream(url="http://x.test", prefix="a/../b"), "must be the beginning of repository names"),
        (upstream(url="http://x.test", prefix="a..b"), "must be the beginning of repository names"),
        (upstream(url="http://x.test", ca_file="/nowhere/ca"), "/nowhere/ca cannot be read: No such file"),
        (upstream(url="http://x.test", password_file="/nowhere/pw"), "/nowhere/pw cannot be read"),
        (upstream(url="https://x.test", client_cert="/dev/null"), "belong together: give both or none"),
        (upstream(url="https://x.test", client_key="/dev/null"), "belong together: give both or none"),
        (upstream(url="https://x.test", client_cert="/nowhere/c"), "/nowhere/c cannot be read"),
        (upstream(url="https://x.test", client_cert="/dev/null", client_key="/dev/null"), "both as PEM"),
        (upstream(url="http://x.test", client_cert="/dev/null", client_key="/dev/null"), "needs TLS"),
        (upstream(url="http://x.test", max_connections=0), "must be at least 1"),
        (upstream(url="http://x.test", connect_timeout=0), "must be more than 0"),
        (upstream(url="http://x.test", connect_timeout="0s"), "must be more than 0"),
        (upstream(url="http://x.test", private_redirects="maybe"), "must be true or false, not 'maybe'"),
        (
            upstream(url="http://x.test", sources=[{"url": "http://y", "prefix": "/a"}]).replace(": ", "="),
            "must be the beginning of repository names",
        ),
        (
            upstream(url="http://x.test", username="a", password="p", accounts=[]).replace(
                "[]", "[{username='a', password='hunter2'}]"
            ),
            "upstream.x.test.accounts: has 'a' twice, with username counted",
        ),
        (
            upstream(url="http://x.test", accounts=[]).replace("[]", "[{password='hunter2'}]"),
            "upstream.x.test.accounts.1.username: is missing",
        ),
        (upstream(), "upstream.x.test.url: is missing"),
        (upstream(url="http://x.test", sources="http://y"), "sources: must be a list of tables"),
        ("[[upstream]]\nname = 'Upper.test'\nurl = 'http://x'", "is not a host name in lower case"),
    ],
)
def test_upstream_option_beyond_its_limits_is_refused(tmp_path: Path, text: str, reason: str) -> None:
    """The error names the key and what would be right, and repeats no password."""
    lines = refusal(tmp_path, text)
    assert reason in lines
    assert "hunter2" not in lines


def test_password_has_one_place(tmp_path: Path) -> None:
    """A password is in the file, or in a file of its own that is text and not empty; no error repeats it."""
    password = tmp_path / "password"
    both = upstream(url="http://x.test", username="me", password="hunter2", password_file=str(password))
    for content, reason in ((b"x", "keep one of them"), (b"", "keep one")):
        password.write_bytes(content)
        text = refusal(tmp_path, both)
        assert reason in text
        assert "hunter2" not in text
    alone = upstream(url="http://x.test", username="me", password_file=str(password))
    for content, reason in ((b"\n", "is empty"), (b"\xff\xfe", "is not text")):
        password.write_bytes(content)
        assert reason in refusal(tmp_path, alone)
    listed = upstream(url="http://x.test", username="me", password=["hunter2"])
    assert "hunter2" not in refusal(tmp_path, listed)


@pytest.mark.parametrize("prefix", ["", "a", "docker.io", "a/b-c"])
def test_source_prefix(tmp_path: Path, prefix: str) -> None:
    """A prefix is empty, a letter, or components of a name."""
    file = tmp_path / "mirror.toml"
    file.write_text(
        f"{upstream(url='http://x.test')}\n[[upstream.sources]]\nurl='http://y'\nprefix='{prefix}'"
    )
    assert load(file, {"HOME": "/home/me"}, {}).config.upstreams[0].sources[0].prefix == prefix


def test_client_certificate_and_key_are_checked_together(tmp_path: Path) -> None:
    """A key of another certificate, and one with a passphrase, are errors of the configuration."""
    authority = Authority(tmp_path)
    certificate, key = authority.issue(tmp_path, "me")
    _, other = authority.issue(tmp_path, "other")
    text = upstream(url="https://x.test", client_cert=str(certificate), client_key=str(other))
    assert "upstream.x.test.client_key" in refusal(tmp_path, text)
    assert f"{other} is not the key of the certificate in {certificate}" in refusal(tmp_path, text)
    secret = tmp_path / "secret.key"
    secret.write_bytes(locked(key))
    text = upstream(url="https://x.test", client_cert=str(certificate), client_key=str(secret))
    assert "has a passphrase" in refusal(tmp_path, text)


def test_source_has_a_certificate_of_its_own(tmp_path: Path) -> None:
    """The certificate of the upstream is not shown to its sources, nor the other way round."""
    authority = Authority(tmp_path)
    pairs = [authority.issue(tmp_path, name) for name in ("me", "other")]
    one, two = ({"client_cert": str(c), "client_key": str(k)} for c, k in pairs)
    tables = [
        upstream(url="https://x.test", **one),
        "[[upstream.sources]]\nurl = 'https://a.test'",
        "[[upstream.sources]]\nurl = 'https://b.test'",
        *(f"{key} = {value!r}" for key, value in two.items()),
    ]
    file = tmp_path / "mirror.toml"
    file.write_text("\n".join(tables))
    found = load(file, {"HOME": "/home/me"}, {}).config.upstreams[0]
    assert (found.client_cert, found.client_key) == pairs[0]
    shown = [(each.endpoint()["client_cert"], each.endpoint()["client_key"]) for each in found.sources]
    assert shown == [(None, None), pairs[1]]


def locked(key: Path) -> bytes:
    """Return the key in `key` with a passphrase."""
    loaded = serialization.load_pem_private_key(key.read_bytes(), None)
    return loaded.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(b"geheim"),
    )
