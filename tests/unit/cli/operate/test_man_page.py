"""The man page: every command and option, in troff that groff takes without a warning."""

import shutil
import subprocess

import pytest

from mirror.cli.commands import PLACES
from mirror.cli.operate.man_page import page
from tests.unit.cli.test_app import run


def test_man_page_has_every_command() -> None:
    """Commands of groups too; an option and its text."""
    text = page()
    for name in ("serve", *(each for each in PLACES if each not in ("config", "access", "shared"))):
        assert f".SS {name.replace('-', chr(92) + '-')}" in text, name
    assert ".SS config check\n" in text
    assert ".B \\-\\-cache\\-dir DIR\n" in text
    assert "registry\\-mirror backup \\-o /srv/backup/mirror.tar" in text


def test_man_page_is_what_help_says() -> None:
    """The words of a help text are on the page in their order."""
    said = " ".join(run("healthcheck", "--help").stdout.split())
    assert "The address is that of the configuration; the operators' listener, where there is one." in said
    shown = " ".join(page().split())
    assert "The address is that of the configuration; the operators' listener, where there is one." in shown


@pytest.mark.skipif(shutil.which("groff") is None, reason="needs groff")
def test_man_page_is_right_troff() -> None:
    """Nothing is lost: a line that begins with a dot would be a command."""
    found = subprocess.run(
        ["groff", "-man", "-ww", "-Tutf8", "-Kutf8"], input=page(), capture_output=True, text=True, check=True
    )
    assert found.stderr == ""
    assert "registry-mirror top --once" in found.stdout.replace("\N{HYPHEN}", "-").replace(
        "\N{MINUS SIGN}", "-"
    )
