"""`config check` and `config show` as processes."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fakes.cached import X, open_folder, put_image
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
def test_config_check_refuses_a_wrong_configuration(tmp_path: Path, content: str, said: str) -> None:
    """Exit 2 from `check` and from `serve`, with file, key and what would be right."""
    file = tmp_path / "mirror.toml"
    file.write_text(content)
    for arguments in (["config", "check", str(file)], ["serve", "--config", str(file)]):
        done = run(*arguments)
        assert done.returncode == 2
        assert str(file) in done.stderr
        assert said in done.stderr


def test_config_check_accepts_a_right_configuration(tmp_path: Path) -> None:
    """The answer is on standard output."""
    file = tmp_path / "mirror.toml"
    file.write_text("[tags]\nfresh = 5\n")
    done = run("config", "check", str(file))
    assert (done.returncode, done.stdout) == (0, f"{file}: ok\n")


def test_config_show_has_the_origins_of_values(tmp_path: Path) -> None:
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
    assert f"file {file}:2" in lines["tags.fresh"]
    assert "environment REGISTRY_MIRROR_LOG_LEVEL" in lines["log.level"]
    assert "--cache-dir" in lines["cache.dir"]
    assert "default" in lines["tags.fallback_after"]
    assert lines["fill.verify_first"].split() == ["fill.verify_first", "false", "default"]
    assert lines["upstream.quay.io.sources.1.url"].split()[1] == "http://s.test"
    assert f"file {file}:10" in lines["upstream.quay.io.sources.1.url"]
    assert lines["upstream.quay.io.sources.1.weight"].split()[1:] == ["1.0", "default"]
    assert lines["upstream.quay.io.sources.1.password"].split()[1] == "**********"
    shown = json.loads(run(*arguments, "--json", env=env).stdout)
    assert shown["tags.fresh"] == {"value": "5.0", "from": f"file {file}:2"}
    assert shown["upstream.quay.io.password"]["value"] == "**********"


def test_config_show_with_the_offline_flag(tmp_path: Path) -> None:
    """The flag wins over the file, and is named as the origin."""
    file = tmp_path / "mirror.toml"
    file.write_text("[server]\noffline = false\n")
    shown = run("config", "show", "--config", str(file), "--offline").stdout
    assert re.search(r"^server.offline +true +--offline$", shown, re.MULTILINE)
    assert re.search(r"^tags.stale_if_error +forever +default$", shown, re.MULTILINE)


def with_system_file(file: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """Run a command on a machine whose /etc/registry-mirror/mirror.toml is `file`."""
    script = (
        "import sys; from pathlib import Path; from mirror.config import loader; "
        "from mirror.cli.app import main; loader.SYSTEM_FILE = Path(sys.argv.pop(1)); main()"
    )
    command = [sys.executable, "-c", script, str(file), *arguments]
    env = {name: value for name, value in os.environ.items() if name != "REGISTRY_MIRROR_CONFIG"}
    return subprocess.run(command, capture_output=True, text=True, timeout=30, check=False, env=env)


def test_system_file_is_what_commands_read(tmp_path: Path) -> None:
    """Commands beside a service go by its folder and its quota; --config names another file, or none."""
    file, other = tmp_path / "mirror.toml", tmp_path / "other.toml"
    folder = open_folder(tmp_path / "cache")
    put_image(folder, X, "1", [b"a" * 2000])
    folder.close()
    file.write_text(f'[cache]\ndir = "{tmp_path / "cache"}"\nmax_size = "1000"\n')
    other.write_text(f'[cache]\ndir = "{tmp_path / "cache"}"\n')
    assert with_system_file(file, "config", "check").stdout == f"{file}: ok\n"
    shown = with_system_file(file, "config", "show")
    assert re.search(rf"^cache.max_size +1000 +file {file}:3$", shown.stdout, re.MULTILINE)
    assert f"Configuration file: {file}" in shown.stderr
    assert json.loads(with_system_file(file, "du", "--json").stdout)["allowed"] == 1000
    assert with_system_file(file, "pin", "x:1").returncode == 1
    assert with_system_file(file, "pin", "x:1", "--config", str(other)).returncode == 0
    shown = with_system_file(file, "config", "show", "--config", "")
    assert "Configuration file: none" in shown.stderr
    assert re.search(r"^cache.max_size +0 \(no limit\) +default$", shown.stdout, re.MULTILINE)


def test_system_file_with_an_error_can_be_left_out(tmp_path: Path) -> None:
    """Another user may not be able to read a password file that the service reads."""
    file = tmp_path / "mirror.toml"
    file.write_text("[tags]\nfresh = -1\n")
    done = with_system_file(file, "ls", "--cache-dir", str(tmp_path))
    assert done.returncode == 2
    assert f'{file} is read because it exists; --config "" goes without it' in done.stderr
    named = with_system_file(tmp_path / "none.toml", "ls", "--config", str(file))
    assert "goes without it" not in named.stderr


def test_system_file_that_does_not_exist_is_no_error(tmp_path: Path) -> None:
    """Defaults and environment are checked then."""
    done = with_system_file(tmp_path / "none.toml", "config", "check")
    assert (done.returncode, done.stdout) == (0, "defaults and environment: ok\n")


def test_config_show_prints_sizes_in_units(tmp_path: Path) -> None:
    """Sizes are as the file may have them; JSON has bytes, and a value that is not set is a dash."""
    lines = run("config", "show", "--config", "").stdout.splitlines()
    values = {line.split()[0]: line.split()[1] for line in lines}
    assert (values["cache.min_free"], values["cache.memory"], values["fill.chunk_size"]) == (
        "1GiB",
        "64MiB",
        "4MiB",
    )
    assert (values["cache.pins"], values["server.tls_key"]) == ("-", "-")
    shown = json.loads(run("config", "show", "--config", "", "--json").stdout)
    assert (shown["cache.min_free"]["value"], shown["cache.pins"]["value"]) == (str(1024**3), "")


@pytest.mark.parametrize("command", ["check", "show"])
def test_config_file_as_an_argument_or_as_an_option(tmp_path: Path, command: str) -> None:
    """Both forms read the same file; two files are refused."""
    file = tmp_path / "mirror.toml"
    file.write_text("[tags]\nfresh = 5\n")
    argument, option = (run("config", command, *form) for form in ([str(file)], ["--config", str(file)]))
    assert (argument.returncode, argument.stdout) == (option.returncode, option.stdout)
    assert argument.returncode == 0
    assert str(file) in argument.stdout
    done = run("config", command, str(file), "--config", str(file))
    assert (done.returncode, "give one of them" in done.stderr) == (2, True)


def test_config_without_any_file_is_checked(tmp_path: Path) -> None:
    """The file "" is no file, whatever the environment names."""
    done = run("config", "check", "", env={"REGISTRY_MIRROR_CONFIG": str(tmp_path / "none")})
    assert (done.returncode, done.stdout) == (0, "defaults and environment: ok\n")
