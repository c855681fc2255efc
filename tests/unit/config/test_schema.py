"""The options: limits, and a reason in plain words for what is beyond them."""

import os
from pathlib import Path
from typing import Any

import pytest

from mirror.config.loader import ConfigError, load


def said(tmp_path: Path, text: str) -> str:
    """The error of a file."""
    file = tmp_path / "mirror.toml"
    file.write_text(text)
    with pytest.raises(ConfigError) as error:
        load(file, {"HOME": "/home/me"}, {})
    return str(error.value)


def upstream(**keys: Any) -> str:
    lines = [
        f"{key} = {str(value).lower() if isinstance(value, bool) else repr(value)}"
        for key, value in keys.items()
    ]
    return "\n".join(["[[upstream]]", "name = 'x.test'", *lines])


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[server]\nlisten = ['5000']", "'5000' is not HOST:PORT, for instance 127.0.0.1:5000"),
        ("[server]\nlisten = ['a:99999']", "is not HOST:PORT"),
        ("[server]\nlisten = ['::1:5000']", "is not HOST:PORT"),
        ("[server]\nlisten = []", "needs at least one"),
        ("[server]\nlisten = 5", "must be a list of texts in quotes, not 5"),
        ("[server]\nworkers = 0", 'must be "auto" or a whole number from 1 to 64, not 0'),
        ("[server]\nworkers = 65", 'must be "auto" or a whole number from 1 to 64, not 65'),
        ("[server]\nworkers = true", 'must be "auto" or a whole number from 1 to 64, not True'),
        ("[server]\nworkers = 'many'", "whole number from 1 to 64, not 'many'"),
        ("[server]\nheader_timeout = 'soon'", "must be a number, not 'soon'"),
        ("[server]\nheader_timeout = true", "must be a number, not true or false"),
        ("[server]\nheader_timeout = 0", "must be more than 0"),
        ("[server]\nheader_timeout = inf", "must be a finite number"),
        ("[server]\ntls_certificate = '/dev/null'", "tls_certificate belong together: give both or none"),
        ("[server]\ntls_key = '/dev/null'", "tls_certificate belong together: give both or none"),
        ("[server]\ntls_key = '/nowhere/key'", "/nowhere/key cannot be read: No such file"),
        ("[server]\ntls_certificate = '/dev/null'\ntls_key = '/dev/null'", "both as PEM"),
        ("[server]\nwhen_unavailable = 'x'", "must be 'auto', 'next' or 'honest', not 'x'"),
        ("[cache]\ndir = 5", "must be a path in quotes"),
        ("[cache]\ndir = '~nobody-of-that-name/x'", "cache.dir: ~nobody-of-that-name/x"),
        ("[fill]\nchunk_size = '1KiB'", "must be between 64KiB and 1GiB, not 1.0KiB"),
        ("[fill]\nattempts = 1.5", "must be a whole number"),
        ("[fill]\nattempts = 101", "must be at most 100"),
        (upstream(url="ftp://x.test"), "is not a URL"),
        (upstream(url="http://[x"), "is not a URL"),
        (upstream(url="http://me:hunter2@x.test"), "set username and password_file instead"),
        (upstream(url="http://x.test?a=b"), "has a query or fragment"),
        (upstream(url="http://x.test", username="me"), "belong together"),
        (upstream(url="http://x.test", realms=["https://x.test/token"]), "not an origin"),
        (upstream(url="http://x.test", hosts=["UPPER"]), "is not a host name in lower case"),
        (upstream(url="http://x.test", ca_file="/nowhere/ca"), "/nowhere/ca cannot be read: No such file"),
        (upstream(url="http://x.test", password_file="/nowhere/pw"), "/nowhere/pw cannot be read"),
        (upstream(url="http://x.test", max_connections=0), "must be at least 1"),
        (upstream(url="http://x.test", connect_timeout=0), "must be more than 0"),
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
        ("[[upstream]]\nname = 'Upper.test'\nurl = 'http://x'", "is not a host name in lower case"),
    ],
)
def test_what_is_beyond_the_limits(tmp_path: Path, text: str, reason: str) -> None:
    """The reason says what would be right."""
    lines = said(tmp_path, text)
    assert reason in lines
    assert "hunter2" not in lines


def test_a_password_has_one_place(tmp_path: Path) -> None:
    """In the file or in a file of its own, which is text and not empty; never in the message."""
    password = tmp_path / "password"
    both = upstream(url="http://x.test", username="me", password="hunter2", password_file=str(password))
    for content, reason in ((b"x", "keep one of them"), (b"", "keep one")):
        password.write_bytes(content)
        text = said(tmp_path, both)
        assert reason in text
        assert "hunter2" not in text
    alone = upstream(url="http://x.test", username="me", password_file=str(password))
    for content, reason in ((b"\n", "is empty"), (b"\xff\xfe", "is not text")):
        password.write_bytes(content)
        assert reason in said(tmp_path, alone)
    assert "hunter2" not in said(tmp_path, upstream(url="http://x.test", username="me", password=["hunter2"]))


@pytest.mark.parametrize("prefix", ["", "a", "docker.io", "a/b-c"])
def test_a_prefix_of_a_source(tmp_path: Path, prefix: str) -> None:
    """Nothing, a letter, or components of a name."""
    file = tmp_path / "mirror.toml"
    file.write_text(
        f"{upstream(url='http://x.test')}\n[[upstream.sources]]\nurl='http://y'\nprefix='{prefix}'"
    )
    assert load(file, {"HOME": "/home/me"}, {}).config.upstreams[0].sources[0].prefix == prefix


def test_values_are_frozen() -> None:
    """Nobody changes the configuration on the way."""
    config = load(None, {"HOME": "/home/me"}, {}).config
    with pytest.raises(ValueError, match="frozen"):
        config.tags.fresh = 5


@pytest.mark.parametrize(("given", "processes"), [("3", 3), ("64", 64), ("auto", None), ("", 1)])
def test_workers_are_as_many_as_said(given: str, processes: int | None) -> None:
    """A number, as the environment has it too; or one for each processor that we may use."""
    config = load(None, {"HOME": "/home/me", "REGISTRY_MIRROR_SERVER_WORKERS": given}, {}).config
    assert config.server.processes() == (processes or min(len(os.sched_getaffinity(0)), 64))
