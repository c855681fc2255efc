"""The options of all sections: limits, and errors in plain words."""

import subprocess
import sys
from pathlib import Path

import pytest

from mirror.config.loader import load
from tests.unit.config.refusals import refusal


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[cache]\ndir = 5", "must be a path in quotes"),
        ("[cache]\ndir = '~nobody-of-that-name/x'", "cache.dir: ~nobody-of-that-name/x"),
        ("[cache]\nmax_age = 'long'", "or 2d (a plain number is seconds), or \"forever\", not 'long'"),
        ("[cache]\npins = ['BAD name']", "cache.pins: 'BAD' is not the name of an image"),
        ("[cache]\npins = ['alpine amd64']", "'amd64' is not a platform"),
        ("[cache]\npins = ['a linux/amd64', 'a']", "has docker.io/library/a:latest twice"),
        ("[fill]\nchunk_size = '1KiB'", "must be between 64KiB and 1GiB, not 1KiB"),
        ("[fill]\nattempts = 1.5", "must be a whole number"),
        ("[fill]\nattempts = true", "must be a number, not true or false"),
        ("[fill]\nattempts = 101", "must be at most 100"),
        ("[[tags.rules]]\nrepo = 'x'\nrepositories = 'y'", "did you mean repositories?"),
        (
            "[[tags.rules]]\nrepositories = 'y'\nfrish = 5",
            "tags.rules.1.frish: there is no such key; did you",
        ),
        ("[[tags.rules]]\nfresh = 5", "tags.rules.1.repositories: is missing"),
        (
            "[tags]\nrules = [{repositories='a'}, {repositories='b', fresh='x'}]",
            "tags.rules.2.fresh: must be a",
        ),
        ("[tags]\nrules = ['x']", "tags.rules.1: must be a table of options, not 'x'"),
        ("[tags]\nrules = 'x'", "tags.rules: must be a list of tables"),
    ],
)
def test_option_beyond_its_limits_is_refused(tmp_path: Path, text: str, reason: str) -> None:
    """The error names the key and what would be right."""
    assert reason in refusal(tmp_path, text)


def test_times_of_a_file_take_units(tmp_path: Path) -> None:
    """Sections and rules accept times with units."""
    file = tmp_path / "mirror.toml"
    file.write_text(
        "[server]\nheader_timeout = '500ms'\n[cache]\nmax_age = '90d'\n[tags]\nfresh = '1h'\nmissing = 7\n"
        "[[tags.rules]]\nrepositories = 'quay.io/*'\nfresh = '10m'\nstale_if_error = 'forever'\n"
    )
    config = load(file, {"HOME": "/home/me"}, {}).config
    assert (config.server.header_timeout, config.cache.max_age) == (0.5, 90 * 86400)
    assert (config.tags.fresh, config.tags.missing) == (3600, 7)
    assert (config.tags.rules[0].fresh, config.tags.rules[0].stale_if_error) == (600, float("inf"))


def test_options_are_frozen() -> None:
    """No code can change the configuration."""
    config = load(None, {"HOME": "/home/me"}, {}).config
    with pytest.raises(AttributeError, match="immutable"):
        config.tags.fresh = 5  # type: ignore[misc]


def test_schema_imports_little() -> None:
    """Loading a configuration imports no TLS, event loop or metrics, which most commands do not need."""
    program = (
        "import sys; from mirror.config.loader import load; load(None, {'HOME': '/'}, {});"
        "print([each for each in ('ssl', 'asyncio', 'prometheus_client', 'aiohttp', 'difflib', 'structlog',"
        " 'http.client', 'pydantic', 'typer') if each in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
