"""The program with its commands: help, version, words that people try."""

from mirror import __version__
from tests.unit.cli.test_app import run


def test_help_of_serve_has_options_and_examples() -> None:
    """The program lists its commands; --version prints the version."""
    assert "serve" in run("--help").stdout
    text = run("serve", "--help").stdout
    for each in (
        "--config",
        "--listen",
        "--cache-dir",
        "--upstream",
        "registry-mirror serve --upstream",
        "SIGTERM",
    ):
        assert each in text
    assert run("--version").stdout == f"registry-mirror {__version__}\n"


def test_help_version_and_status_are_words_that_people_try() -> None:
    """`help` and `version` answer; `status` says where to look."""
    assert run("help").stdout == run("--help").stdout
    assert run("version").stdout == f"registry-mirror {__version__}\n"
    done = run("status")
    assert (done.returncode, "readyz" in done.stderr) == (2, True)
