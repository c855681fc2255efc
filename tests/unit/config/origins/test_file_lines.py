"""Origins of values have the line of the file."""

from pathlib import Path

from mirror.config.loader import load

TEXT = """\
[log]
level = "debug"

[[upstream]]
name = "docker.io"
accounts = [{ username = "me", password = "inline" }]

[[upstream]]
name = "quay.io"
username = "me"
password_file = "%s"

[[upstream.sources]]
url = "https://other.test"
"""


def test_origins_name_the_line(tmp_path: Path) -> None:
    """Keys of sections, of named tables and of tables in them; values from elsewhere have no line."""
    file, password = tmp_path / "mirror.toml", tmp_path / "password"
    password.write_text("a password")
    file.write_text(TEXT % password)
    env = {"REGISTRY_MIRROR_TAGS_FRESH": "5s", "HOME": str(tmp_path)}
    config = load(file, env, {"cache_dir": str(tmp_path)}).config
    assert config.origins["log.level"] == f"file {file}:2"
    assert config.origins["upstream.docker.io.accounts.1.username"] == f"file {file}:6"
    assert config.origins["upstream.quay.io.username"] == f"file {file}:10"
    assert config.origins["upstream.quay.io.password"] == f"file {file}:11, password_file"
    assert config.origins["upstream.quay.io.sources.1.url"] == f"file {file}:14"
    assert config.origins["tags.fresh"] == "environment REGISTRY_MIRROR_TAGS_FRESH"
    assert config.origins["cache.dir"] == "--cache-dir"
    assert "fill.attempts" not in config.origins
