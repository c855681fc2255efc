"""`config check` and `config show` as processes."""

import json
import re
from pathlib import Path

import pytest

from tests.unit.cli.test_app import run


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("[server]\nlissten = []\n", "server.lissten: there is no such key; did you mean listen?"),
        ("[tags]\nfresh = -1\n", "tags.fresh: must be at least 0"),
        ("[[upstream]]\nname = 'x.test'\n", "upstream.x.test.url: is missing"),
        ("not toml", "is not TOML"),
    ],
)
def test_a_wrong_configuration_is_refused(tmp_path: Path, content: str, said: str) -> None:
    """Exit 2 from `check` and from `serve`, with file, key and what would be right."""
    file = tmp_path / "mirror.toml"
    file.write_text(content)
    for arguments in (["config", "check", str(file)], ["serve", "--config", str(file)]):
        done = run(*arguments)
        assert done.returncode == 2
        assert str(file) in done.stderr
        assert said in done.stderr


def test_a_right_configuration_is_ok(tmp_path: Path) -> None:
    """`check` says so, on standard output."""
    file = tmp_path / "mirror.toml"
    file.write_text("[tags]\nfresh = 5\n")
    done = run("config", "check", str(file))
    assert (done.returncode, done.stdout) == (0, f"{file}: ok\n")


def test_show_says_where_values_come_from(tmp_path: Path) -> None:
    """Flags over environment over file over defaults, and no secret."""
    file = tmp_path / "mirror.toml"
    file.write_text(
        '[tags]\nfresh = 5\n[log]\nlevel = "error"\n'
        '[[upstream]]\nname = "quay.io"\nusername = "me"\npassword = "hunter2"\n'
        '[[upstream.sources]]\nurl = "http://s.test"\nusername = "me"\npassword = "hunter2"\n'
    )
    arguments = ["config", "show", "--config", str(file), "--cache-dir", "/srv/cache"]
    env = {"REGISTRY_MIRROR_LOG_LEVEL": "debug"}
    done = run(*arguments, env=env)
    assert done.returncode == 0
    assert "hunter2" not in done.stdout
    lines = {line.split()[0]: line for line in done.stdout.splitlines() if line.strip()}
    assert f"file {file}" in lines["tags.fresh"]
    assert "environment REGISTRY_MIRROR_LOG_LEVEL" in lines["log.level"]
    assert "--cache-dir" in lines["cache.dir"]
    assert "default" in lines["tags.fallback_after"]
    assert lines["fill.verify_first"].split() == ["fill.verify_first", "false", "default"]
    assert lines["upstream.quay.io.sources.1.url"].split()[1] == "http://s.test"
    assert f"file {file}" in lines["upstream.quay.io.sources.1.url"]
    assert lines["upstream.quay.io.sources.1.weight"].split()[1:] == ["1.0", "default"]
    assert lines["upstream.quay.io.sources.1.password"].split()[1] == "**********"
    shown = json.loads(run(*arguments, "--json", env=env).stdout)
    assert shown["tags.fresh"] == {"value": "5.0", "from": f"file {file}"}
    assert shown["upstream.quay.io.password"]["value"] == "**********"


def test_offline_is_a_flag(tmp_path: Path) -> None:
    """It wins over the file, and says so."""
    file = tmp_path / "mirror.toml"
    file.write_text("[server]\noffline = false\n")
    shown = run("config", "show", "--config", str(file), "--offline").stdout
    assert re.search(r"^server.offline +true +--offline$", shown, re.MULTILINE)
    assert re.search(r"^tags.stale_if_error +forever +default$", shown, re.MULTILINE)
