"""The generated reference of options: config/mirror.toml and docs/configuration.md equal the schema."""

import tomllib
from pathlib import Path

import pytest

from mirror.config import reference
from mirror.config.endpoints import SourceSettings, UpstreamSettings
from mirror.config.loader import load
from mirror.config.logins import AccountSettings
from mirror.config.schema import TagRuleSettings
from mirror.config.tables import PRECONFIGURED, SECTIONS
from mirror.config.validation import Settings
from tests.fakes.tls import Authority

ROOT = Path(__file__).parents[3]
MODELS: list[type[Settings]] = [
    *SECTIONS.values(),
    TagRuleSettings,
    UpstreamSettings,
    AccountSettings,
    SourceSettings,
]
COMMAND = "run: .venv/bin/python -m mirror.config.reference"


def test_options_file_equals_the_schema() -> None:
    """The file is as generated."""
    assert (ROOT / "config" / "mirror.toml").read_text() == reference.toml(), COMMAND


def test_configuration_page_equals_the_schema() -> None:
    """The page is as generated."""
    assert (ROOT / "docs" / "configuration.md").read_text() == reference.page(), COMMAND


@pytest.mark.parametrize("model", MODELS)
def test_option_has_a_description(model: type[Settings]) -> None:
    """Each description is a sentence; an option without a default has an example."""
    for key, option in model.options().items():
        assert option.doc.description, key
        assert option.doc.description[0].isupper() or option.doc.description[0] == '"', key
        assert option.doc.description.endswith((".", "...")), key
        assert option.doc.examples or (option.default is not None and not option.required), key


def test_options_file_without_comment_marks_is_valid(tmp_path: Path) -> None:
    """The commented-out options, examples and tables are accepted too."""
    secret = tmp_path / "secret"
    secret.write_text(
        '{"credHelpers": {}}'
    )  # a password, a certificate that is not read, and Docker's config.json
    lines = reference.toml().partition("[server]")[2].splitlines()
    text = "[server]\n" + "\n".join(map(without_mark, lines))
    text = text.replace('peers_secret = "a-long-random-secret"', "")
    for key in ("coordinator_password", "secret_key", "password"):  # files have them
        text = text.replace(f'{key} = "secret"', "")
    text = text.replace('tls_key = "', '# "').replace("tls_cert", '# "')
    for key in ("client_cert", "client_key", "client_ca", "client_crl"):
        text = text.replace(f'{key} = "', '# "')
    text = text.replace('htpasswd = "', '# "').replace('jwks_file = "', '# "')  # jwks_url is there too
    shared = ("secret_key_file", "coordinator_password_file", "peers_secret_file")
    files = dict.fromkeys(("password_file", "docker_config", "secret_file", *shared), secret)
    files["ca_file"] = Authority(tmp_path).ca_file  # that of a store is read at once
    for key, path in files.items():
        text = "\n".join(
            f'{line.partition("=")[0]}= "{path}"' if line.startswith(f"{key} =") else line
            for line in text.splitlines()
        )
    for line in (
        "accounts = [",
        "sources = [",
        "rules = [",
        "retention = [",
        "webhooks = [",
        "mirror_to = [",
    ):  # tables follow
        text = text.replace(f"\n{line}", f"\n# {line}")
    file = tmp_path / "mirror.toml"
    file.write_text(text)
    config = load(file, {"HOME": "/home/me"}, {}).config
    assert config.tags.rules[0].fresh == 3600
    assert config.upstreams[0].sources[0].weight == 2.0
    assert [each.name for each in config.upstreams[0].logins()] == [
        "me",
        "us",
        "docker_config",
        "docker-credential-ecr-login",
    ]


def without_mark(line: str) -> str:
    """Return a line of the file without the mark that makes an option or a table a comment."""
    for mark in ("#   ", "# "):
        rest = line.removeprefix(mark)
        if rest != line and (rest.startswith("[[") or rest.partition(" ")[2].startswith("= ")):
            return rest
    return line


def test_options_file_has_every_key() -> None:
    """Each upstream has its preset, and each section each of its keys."""
    parsed = tomllib.loads(reference.toml())
    assert [each["name"] for each in parsed["upstream"]] == list(PRECONFIGURED)
    for section, model in SECTIONS.items():
        for key in model.options():
            assert key in parsed[section] or f"\n# {key} = " in reference.toml()


def test_reference_is_written_to_the_checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command writes both files."""
    for folder in ("config", "docs"):
        (tmp_path / folder).mkdir()
    monkeypatch.setattr(reference, "CHECKOUT", tmp_path)
    reference.main()
    assert (tmp_path / "config" / "mirror.toml").read_text() == reference.toml()
    assert (tmp_path / "docs" / "configuration.md").read_text() == reference.page()
