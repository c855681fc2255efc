"""The loader: precedence of the layers, origins of values, errors."""

from collections.abc import Mapping
from pathlib import Path

import pytest

from mirror.config.loader import ConfigError, environment, load
from mirror.config.schema import Config
from mirror.config.tables import HUB_ALIASES, PRECONFIGURED

HOME = {"HOME": "/home/me"}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "mirror.toml"


def refused(file: Path | None = None, env: Mapping[str, str] | None = None, **flags: object) -> list[str]:
    """Return the lines of the error."""
    with pytest.raises(ConfigError) as error:
        load(file, {**HOME, **(env or {})}, flags)
    return str(error.value).splitlines()


def test_defaults_have_the_preconfigured_upstreams() -> None:
    """Docker Hub is the default upstream, and the address is on loopback."""
    config = load(None, HOME, {}).config
    assert [each.name for each in config.upstreams] == list(PRECONFIGURED)
    assert config.server.listen == ("127.0.0.1:5000",)
    names = config.names()
    assert names.default == "docker.io"
    assert {names.find(alias) for alias in (*HUB_ALIASES, "Docker.IO")} == {"docker.io"}
    assert names.find("k8s.gcr.io") == "registry.k8s.io"
    assert names.find("elsewhere.test") is None


def test_precedence_is_flags_environment_file_defaults(file: Path) -> None:
    """Each value has its origin."""
    file.write_text(
        '[tags]\nfresh = 1\n[log]\nlevel = "error"\n[cache]\ndir = "/file"\n[fill]\nattempts = 9\n'
    )
    env = {**HOME, "REGISTRY_MIRROR_LOG_LEVEL": "debug", "REGISTRY_MIRROR_CACHE_DIR": "/env"}
    loaded = load(file, env, {"cache_dir": "/flag", "listen": ["[::]:1"]})
    config, origins = loaded.config, loaded.origins
    assert (config.tags.fresh, config.log.level, str(config.cache.dir)) == (1, "debug", "/flag")
    assert config.server.listen == ("[::]:1",)
    assert origins["fill.attempts"] == f"file {file}:8"
    assert origins["log.level"] == "environment REGISTRY_MIRROR_LOG_LEVEL"
    assert (origins["cache.dir"], origins["server.listen"]) == ("--cache-dir", "--listen")
    assert "tags.fallback_after" not in origins


def test_environment_may_name_the_file(file: Path) -> None:
    """REGISTRY_MIRROR_CONFIG serves containers, where flags are awkward; a flag takes precedence."""
    file.write_text("[tags]\nfresh = 7\n")
    env = {**HOME, "REGISTRY_MIRROR_CONFIG": str(file)}
    assert load(None, env, {}).config.tags.fresh == 7


def test_environment_has_lists_sizes_and_times() -> None:
    """Commas separate the items of a list; sizes and times may have units."""
    env = {
        **HOME,
        "REGISTRY_MIRROR_SERVER_LISTEN": "127.0.0.1:1, [::1]:2",
        "REGISTRY_MIRROR_CACHE_MAX_SIZE": "2GiB",
        "REGISTRY_MIRROR_TAGS_FRESH": "10m",
        "REGISTRY_MIRROR_UPSTREAMS": "quay.io=http://q.test, own.test=http://o.test",
    }
    config = load(None, env, {}).config
    assert config.server.listen == ("127.0.0.1:1", "[::1]:2")
    assert config.cache.max_size.of(10**12) == 2 * 1024**3
    assert config.tags.fresh == 600
    assert [each.name for each in config.upstreams][:3] == ["quay.io", "own.test", "docker.io"]


def test_kubernetes_service_links_are_ignored() -> None:
    """Every pod beside a Service called registry-mirror has these variables."""
    env = {**HOME, "REGISTRY_MIRROR_SERVICE_HOST": "10.0.0.1", "REGISTRY_MIRROR_PORT_5000_TCP_ADDR": "x"}
    assert isinstance(load(None, env, {}).config, Config)


def test_upstream_of_a_flag_comes_first_and_keeps_its_preset() -> None:
    """`--upstream docker.io=...` is a lab in one line: with all aliases, and as the default."""
    config = load(None, HOME, {"upstreams": ["docker.io=http://127.0.0.1:5555"]}).config
    hub = config.upstreams[0]
    assert (hub.name, hub.url, hub.aliases) == ("docker.io", "http://127.0.0.1:5555", HUB_ALIASES)
    assert len(config.upstreams) == len(PRECONFIGURED)
    config = load(
        None, HOME, {"upstreams": ["own.test=http://o.test", "registry-1.docker.io=http://h.test"]}
    ).config
    assert config.names().default == "own.test"
    assert (config.upstreams[1].name, config.upstreams[1].url) == ("docker.io", "http://h.test")


def test_upstream_of_the_file_changes_only_its_keys(file: Path, tmp_path: Path) -> None:
    """A preconfigured upstream gets credentials; its password comes from a file, without the line's end."""
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
    assert loaded.origins["upstream.quay.io.password"] == f"file {file}:4, password_file"


def test_accounts_are_in_order(file: Path, tmp_path: Path) -> None:
    """The upstream's own username is the first account; each password has its own origin."""
    (tmp_path / "password").write_text("hunter2\n")
    file.write_text(
        "[[upstream]]\nname = 'quay.io'\nusername = 'me'\npassword = 'hunter1'\n"
        f"[[upstream.accounts]]\nusername = 'us'\npassword_file = '{tmp_path}/password'\n"
    )
    loaded = load(file, HOME, {})
    logins = loaded.config.upstreams[0].logins()
    assert [each.name for each in logins] == ["me", "us"]
    held = [each.initial and each.initial.credential for each in logins]
    assert [each and each.secret for each in held] == ["hunter1", "hunter2"]
    assert "hunter" not in repr(loaded) + repr(logins)
    assert loaded.origins["upstream.quay.io.accounts.1.password"] == f"file {file}:7, password_file"
    file.write_text("[[upstream]]\nname = 'quay.io'\naccounts = [{username = 'us', password = 'x'}]\n")
    assert [each.name for each in load(file, HOME, {}).config.upstreams[0].logins()] == ["us"]
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
def test_cache_dir_has_a_sensible_default(
    env: dict[str, str], root: bool, folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The folder is systemd's, the system's, or the user's own."""
    monkeypatch.setattr("os.geteuid", lambda: 0 if root else 1000)
    assert str(load(None, env, {}).config.cache.dir) == folder


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[server]\nlissten = []", "server.lissten: there is no such key; did you mean listen?"),
        ("[servers]\n", "servers: there is no such key; did you mean server?"),
        ("tags = 5", "tags: is a section: write [tags]"),
        ("[upstream]\nname = 'x'", "upstream: write [[upstream]], with two brackets"),
        (
            "[[tags.rules]]\nrepositories = 'x'\nfersh = 5",
            "tags.rules.1.fersh: there is no such key; did you",
        ),
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
def test_file_error_names_file_key_and_remedy(file: Path, text: str, said: str) -> None:
    """The error is one line: the file, the key, what would be right."""
    file.write_text(text)
    (line,) = refused(file)
    assert line.startswith(f"file {file}: ")
    assert said in line


def test_all_errors_are_reported_together(file: Path) -> None:
    """Mistakes of the file and of the environment are in one error."""
    file.write_text("[tags]\nfresh = -1\nfrish = 2\n[cache]\nmax_size = 'lots'\n")
    lines = refused(file, {"REGISTRY_MIRROR_LOG_LEVEL": "loud", "REGISTRY_MIRROR_LOG_LEVLE": "x"})
    assert len(lines) == 5
    assert any("environment REGISTRY_MIRROR_LOG_LEVEL: log.level: must be" in line for line in lines)
    assert any("did you mean REGISTRY_MIRROR_LOG_LEVEL?" in line for line in lines)
    assert any("cache.max_size: must be a size, for instance 50GiB" in line for line in lines)


def test_unreadable_file_is_refused(tmp_path: Path) -> None:
    """The file is missing, or is not text."""
    assert "cannot be read: No such file" in refused(tmp_path / "missing")[0]
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    assert "is not text" in refused(tmp_path / "binary")[0]


def test_value_of_a_flag_is_refused_under_the_name_of_the_flag() -> None:
    """The flag is the key; an empty folder does not mean the default one."""
    assert refused(listen=["x"]) == [
        "--listen: 'x' is not HOST:PORT, for instance 127.0.0.1:5000, [::1]:5000, or :5000 for every address "
        "of this machine"
    ]
    assert refused(cache_dir="") == ["--cache-dir: is empty: give a path, for instance /srv/mirror"]


def test_unclosed_bracket_is_named(file: Path) -> None:
    """The parser's own words name no cause at the end of a file."""
    file.write_text("server = [")
    (line,) = refused(file)
    assert line.endswith("(at end of document); a bracket or a quote is not closed")


def test_malformed_upstream_flag_is_refused() -> None:
    """The error does not repeat the value, which may have a password in it."""
    for pair in ("http://me:hunter2@x.test", "=http://x", "x="):
        (line,) = refused(upstreams=[pair])
        assert "--upstream: must be NAME=URL" in line
        assert "hunter2" not in line


def test_environment_is_that_of_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """The loader is the one module that reads the environment."""
    monkeypatch.setenv("REGISTRY_MIRROR_TAGS_FRESH", "3")
    assert environment()["REGISTRY_MIRROR_TAGS_FRESH"] == "3"
