"""Documents that are true: every option with its default, every snippet well-formed, every command real."""

import json
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

from mirror.config.loader import PRECONFIGURED, SECTIONS, load
from mirror.config.schema import UpstreamSettings
from mirror.metrics.metrics import Metrics

ROOT = Path(__file__).parent.parent.parent
OPTIONS = (ROOT / "config" / "mirror.toml").read_text()
README = (ROOT / "README.md").read_text()


def test_the_file_of_options_is_the_defaults() -> None:
    """Loading config/mirror.toml changes nothing."""
    env = {"HOME": "/home/me"}
    assert load(ROOT / "config" / "mirror.toml", env, {}).config == load(None, env, {}).config


def sections() -> dict[str, str]:
    """The text of each section of the file, the first [[upstream]] as `upstream`."""
    parts = re.split(r"^\[+(\w+)\]+$", OPTIONS, flags=re.MULTILINE)
    found: dict[str, str] = {}
    for name, text in zip(parts[1::2], parts[2::2], strict=True):
        found.setdefault(name, text)
    return found


@pytest.mark.parametrize("section", [*SECTIONS, "upstream"])
def test_every_option_has_its_line(section: str) -> None:
    """With a value and a comment; commented out where there is no default to show."""
    model = UpstreamSettings if section == "upstream" else SECTIONS[section]
    lines = sections()[section].splitlines()
    for key in model.model_fields:
        (line,) = (each for each in lines if re.match(rf"(# )?{key} = ", each))
        assert re.search(r"# \S.*\S", line.removeprefix("# ")), f"no comment: {line}"


def test_every_preconfigured_upstream_is_in_the_file() -> None:
    """In the same order."""
    listed = [each["name"] for each in tomllib.loads(OPTIONS)["upstream"]]
    assert listed == list(PRECONFIGURED)


def test_the_readme_has_the_two_commands() -> None:
    """Word for word, as CI runs the second one too."""
    for command in (
        "python3 -m venv .venv && .venv/bin/pip install . && .venv/bin/registry-mirror serve",
        "python3 -m venv .venv && .venv/bin/pip install -e '.[test]' && .venv/bin/pytest",
    ):
        assert f"    {command}\n" in README
    ci = (ROOT / ".ci" / "run").read_text()
    assert "python3 -m venv .venv && .venv/bin/pip install -e '.[test]' && .venv/bin/pytest" in ci


def test_the_readme_names_every_metric() -> None:
    """And none that does not exist."""
    body = Metrics().render()[0].decode()
    real = set(re.findall(r"^# TYPE (registry_mirror_\w+) ", body, re.MULTILINE))
    real = {name for name in real if not name.endswith(("_created", "_info"))}
    assert set(re.findall(r"`(registry_mirror_\w+)`", README)) == real


def parsed(text: str, kind: str) -> Any:
    return json.loads(text) if kind == "json" else tomllib.loads(text)


@pytest.mark.parametrize(("kind", "text"), re.findall(r"```(json|toml)\n(.*?)```", README, re.DOTALL))
def test_snippets_of_the_readme_parse(kind: str, text: str) -> None:
    """Whoever pastes them gets no syntax error."""
    assert parsed(text, kind)


@pytest.mark.parametrize("path", sorted((ROOT / "config" / "clients").iterdir()), ids=lambda path: path.name)
def test_client_snippets_are_those_of_the_readme(path: Path) -> None:
    """Well-formed, and the mirror is called the same in both."""
    text = path.read_text()
    if path.suffix in (".json", ".toml", ".conf"):
        assert parsed(text, path.suffix.removeprefix(".").replace("conf", "toml"))
    assert "mirror.lan:5000" in text
