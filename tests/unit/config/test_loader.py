"""The configuration: who wins, what is refused, and what is said then."""

from collections.abc import Mapping
from pathlib import Path

import pytest

from mirror.config.loader import HUB_ALIASES, PRECONFIGURED, ConfigError, environment, load
from mirror.config.schema import Config

HOME = {"HOME": "/home/me"}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "mirror.toml"


def refused(file: Path | None = None, env: Mapping[str, str] | None = None, **flags: object) -> list[str]:
    """The lines of the error."""
    with pytest.raises(ConfigError) as error:
        load(file, {**HOME, **(env or {})}, flags)
    return str(error.value).splitlines()


def test_the_defaults_serve_the_world() -> None:
    """Docker Hub first, on loopback."""
    config = load(None, HOME, {}).config
    assert [each.name for each in config.upstreams] == list(PRECONFIGURED)
    assert config.server.listen == ("127.0.0.1:5000",)
    names = config.names()
    assert names.default == "docker.io"
    assert {names.find(alias) for alias in (*HUB_ALIASES, "Docker.IO")} == {"docker.io"}
    assert names.find("k8s.gcr.io") == "registry.k8s.io"
    assert names.find("elsewhere.test") is None


def test_flags_over_environment_over_file_over_defaults(file: Path) -> None:
    """And each value knows where it came from."""
    file.write_text(
        '[tags]\nfresh = 1\n[log]\nlevel = "error"\n[cache]\ndir = "/file"\n[fill]\nattempts = 9\n'
    )
    env = {**HOME, "REGISTRY_MIRROR_LOG_LEVEL": "debug", "REGISTRY_MIRROR_CACHE_DIR": "/env"}
    loaded = load(file, env, {"cache_dir": "/flag", "listen": ["[::]:1"]})
    config, origins = loaded.config, loaded.origins
    assert (config.tags.fresh, config.log.level, str(config.cache.dir)) == (1, "debug", "/flag")
    assert config.server.listen == ("[::]:1",)
    assert origins["fill.attempts"] == f"file {file}"
    assert origins["log.level"] == "environment REGISTRY_MIRROR_LOG_LEVEL"
    assert (origins["cache.dir"], origins["server.listen"]) == ("--cache-dir", "--listen")
    assert "tags.fallback_after" not in origins


def test_the_file_may_be_named_by_the_environment(file: Path) -> None:
    """For containers, where flags are awkward; a flag wins."""
    file.write_text("[tags]\nfresh = 7\n")
    env = {**HOME, "REGISTRY_MIRROR_CONFIG": str(file)}
    assert load(None, env, {}).config.tags.fresh == 7


def test_the_environment_has_lists_and_sizes() -> None:
    """Commas part a list, units a size."""
    env = {
        **HOME,
        "REGISTRY_MIRROR_SERVER_LISTEN": "127.0.0.1:1, [::1]:2",
        "REGISTRY_MIRROR_CACHE_MAX_SIZE": "2GiB",
        "REGISTRY_MIRROR_UPSTREAMS": "quay.io=http://q.test, own.test=http://o.test",
    }
    config = load(None, env, {}).config
    assert config.server.listen == ("127.0.0.1:1", "[::1]:2")
    assert config.cache.max_size.of(10**12) == 2 * 1024**3
    assert [each.name for each in config.upstreams][:3] == ["quay.io", "own.test", "docker.io"]


def test_kubernetes_service_links_are_no_options() -> None:
    """Every pod beside a Service called registry-mirror has them."""
    env = {**HOME, "REGISTRY_MIRROR_SERVICE_HOST": "10.0.0.1", "REGISTRY_MIRROR_PORT_5000_TCP_ADDR": "x"}
    assert isinstance(load(None, env, {}).config, Config)


def test_a_named_upstream_comes_first_and_keeps_what_is_known() -> None:
    """`--upstream docker.io=...` is a one-line lab: aliases and all, and the default."""
    config = load(None, HOME, {"upstreams": ["docker.io=http://127.0.0.1:5555"]}).config
    hub = config.upstreams[0]
    assert (hub.name, hub.url, hub.aliases) == ("docker.io", "http://127.0.0.1:5555", HUB_ALIASES)
    assert len(config.upstreams) == len(PRECONFIGURED)
    config = load(
        None, HOME, {"upstreams": ["own.test=http://o.test", "registry-1.docker.io=http://h.test"]}
    ).config
    assert config.names().default == "own.test"
    assert (config.upstreams[1].name, config.upstreams[1].url) == ("docker.io", "http://h.test")


def test_an_upstream_of_the_file_changes_what_it_gives(file: Path, tmp_path: Path) -> None:
    """Credentials for a preconfigured one; the password from its file, without the line's end."""
    (tmp_path / "password").write_text("hunter2\n")
    file.write_text(
        f'[[upstream]]\nname = "quay.io"\nusername = "me"\npassword_file = "{tmp_path}/password"\n'
    )
    loaded = load(file, HOME, {})
    quay = loaded.config.upstreams[0]
    assert (quay.name, quay.url, quay.username) == ("quay.io", "https://quay.io", "me")
    assert quay.password is not None
    assert quay.password.get_secret_value() == "hunter2"
    assert "hunter2" not in repr(loaded)
    assert loaded.origins["upstream.quay.io.password"] == f"file {file}, password_file"


def test_accounts_come_in_their_order(file: Path, tmp_path: Path) -> None:
    """The one that the upstream has without a list is the first; each password from where it is."""
    (tmp_path / "password").write_text("hunter2\n")
    file.write_text(
        "[[upstream]]\nname = 'quay.io'\nusername = 'me'\npassword = 'hunter1'\n"
        f"[[upstream.accounts]]\nusername = 'us'\npassword_file = '{tmp_path}/password'\n"
    )
    loaded = load(file, HOME, {})
    logins = loaded.config.upstreams[0].logins()
    assert [each.username for each in logins] == ["me", "us"]
    assert [each.password and each.password.get_secret_value() for each in logins] == ["hunter1", "hunter2"]
    assert "hunter" not in repr(loaded) + repr(logins)
    assert loaded.origins["upstream.quay.io.accounts.1.password"] == f"file {file}, password_file"
    file.write_text("[[upstream]]\nname = 'quay.io'\naccounts = [{username = 'us', password = 'x'}]\n")
    assert [each.username for each in load(file, HOME, {}).config.upstreams[0].logins()] == ["us"]
    assert load(None, HOME, {}).config.upstreams[0].logins() == ()


@pytest.mark.parametrize(
    ("env", "root", "folder"),
    [
        ({"CACHE_DIRECTORY": "/run/a:/run/b", "HOME": "/h"}, True, "/run/a"),
        ({"HOME": "/h"}, True, "/var/cache/registry-mirror"),
        ({"HOME": "/h"}, False, "/h/.cache/registry-mirror"),
        ({"HOME": "/h", "XDG_CACHE_HOME": "/x"}, False, "/x/registry-mirror"),
        ({"HOME": "/h", "XDG_CACHE_HOME": "relative"}, False, "/h/.cache/registry-mirror"),
    ],
)
def test_the_cache_has_a_sensible_place(
    env: dict[str, str], root: bool, folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Systemd's, the system's, or the user's own."""
    monkeypatch.setattr("os.geteuid", lambda: 0 if root else 1000)
    assert str(load(None, env, {}).config.cache.dir) == folder


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[server]\nlissten = []", "server.lissten: there is no such key; did you mean listen?"),
        ("[servers]\n", "servers: there is no such key; did you mean server?"),
        ("tags = 5", "tags: is a section: write [tags]"),
        ("[upstream]\nname = 'x'", "upstream: write [[upstream]], with two brackets"),
        ("[[upstream]]\nurl = 'http://x'", "upstream: each one needs a name"),
        ("upstream = ['x']", "upstream: each one needs a name"),
        (
            "[[upstream]]\nname='quay.io'\nuser='me'",
            "upstream.quay.io.user: there is no such key; did you mean username?",
        ),
        (
            "[[upstream]]\nname='quay.io'\n[[upstream.sources]]\nurl='http://x'\nprefxi='a'",
            "upstream.quay.io.sources.1.prefxi: there is no such key; did you mean prefix?",
        ),
        (
            "[[upstream]]\nname='quay.io'\nsources=[{url='http://x'}, {url='http://y', weight=-1}]",
            "upstream.quay.io.sources.2.weight: must be more than 0, not -1",
        ),
        (
            "[[upstream]]\nname='quay.io'\n[[upstream.sources]]\nprefix='a'",
            "upstream.quay.io.sources.1.url: is missing",
        ),
        (
            "[[upstream]]\nname='quay.io'\nsources=['http://x']",
            "upstream.quay.io.sources.1: must be a table of options, not 'http://x'",
        ),
        (
            "[[upstream]]\nname='quay.io'\nusername='a'\npassword='x'\n"
            "accounts=[{username='b', password='x'}, {username='c', password='x', user='c'}]",
            "upstream.quay.io.accounts.2.user: there is no such key; did you mean username?",
        ),
        (
            "[[upstream]]\nname='quay.io'\nsources=[{url='http://x', accounts=[{username='a'}]}]",
            "upstream.quay.io.sources.1.accounts.1: username and password (better: password_file) belong",
        ),
        ("[[upstream]]\nname='quay.io'\n[[upstream]]\nname='quay.io'", "upstream.quay.io: is named twice"),
        ("[[upstream]]\nname='x.test'\nurl='http://x'\naliases=['quay.io']", "quay.io is claimed by"),
        ("= 5", "is not TOML"),
    ],
)
def test_what_is_wrong_with_a_file_is_said(file: Path, text: str, said: str) -> None:
    """One line: the file, the key, what would be right."""
    file.write_text(text)
    (line,) = refused(file)
    assert line.startswith(f"file {file}: ")
    assert said in line


def test_everything_wrong_is_said_at_once(file: Path) -> None:
    """Nobody likes to be told one mistake at a time."""
    file.write_text("[tags]\nfresh = -1\nfrish = 2\n[cache]\nmax_size = 'lots'\n")
    lines = refused(file, {"REGISTRY_MIRROR_LOG_LEVEL": "loud", "REGISTRY_MIRROR_LOG_LEVLE": "x"})
    assert len(lines) == 5
    assert any("environment REGISTRY_MIRROR_LOG_LEVEL: log.level: must be" in line for line in lines)
    assert any("did you mean REGISTRY_MIRROR_LOG_LEVEL?" in line for line in lines)
    assert any("cache.max_size: must be a size, for instance 50GiB" in line for line in lines)


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    """Missing, or no text."""
    assert "cannot be read: No such file" in refused(tmp_path / "missing")[0]
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    assert "is not text" in refused(tmp_path / "binary")[0]


def test_pairs_that_are_none() -> None:
    """Not repeated in the message: there may be a password in them."""
    for pair in ("http://me:hunter2@x.test", "=http://x", "x="):
        (line,) = refused(upstreams=[pair])
        assert "--upstream: must be NAME=URL" in line
        assert "hunter2" not in line


def test_the_environment_is_the_process_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """The one place where it is read."""
    monkeypatch.setenv("REGISTRY_MIRROR_TAGS_FRESH", "3")
    assert environment()["REGISTRY_MIRROR_TAGS_FRESH"] == "3"
