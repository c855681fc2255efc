"""`token create`, `token ls` and `token revoke` as processes."""

import json
import time
from pathlib import Path

import pytest

from mirror.access.tokens import is_well_formed
from tests.fakes.cached import open_folder
from tests.unit.cli.test_app import run

pytestmark = pytest.mark.slow


@pytest.fixture
def cache(tmp_path: Path) -> str:
    """An empty cache."""
    open_folder(tmp_path / "cache").close()
    return str(tmp_path / "cache")


def test_token_create_ls_and_revoke(cache: str) -> None:
    """The secret is alone on standard output, so that a script can take it, and never shown again."""
    done = run("token", "create", "ci-runner", "--expires", "90d", "--cache-dir", cache)
    assert done.returncode == 0, done.stderr
    secret = done.stdout.removesuffix("\n")
    assert is_well_formed(secret)
    assert "token:ci-runner" in done.stderr
    assert secret not in done.stderr
    limits = ("--repository", "docker.io/library/*", "--action", "pull")
    made = json.loads(run("token", "create", "docker", *limits, "--json", "--cache-dir", cache).stdout)
    assert (made["name"], made["principal"], made["expires"]) == ("docker", "token:docker", None)
    assert is_well_formed(made["secret"])
    shown = run("token", "ls", "--cache-dir", cache).stdout
    assert [line.split("\t")[::4] for line in shown.splitlines()[1:]] == [
        ["ci-runner", "all"],
        ["docker", "docker.io/library/*"],
    ]
    as_json = run("token", "ls", "--json", "--cache-dir", cache).stdout
    first, second = json.loads(as_json)
    assert 89 * 86400 < first["expires"] - time.time() <= 90 * 86400
    assert (first["used"], first["expired"], first["actions"]) == (None, False, [])
    assert (second["repositories"], second["actions"]) == (["docker.io/library/*"], ["pull"])
    assert "rmt_" not in shown + as_json
    assert run("token", "revoke", "docker", "--cache-dir", cache).stdout == "revoked docker\n"
    done = run("token", "revoke", "docker", "--cache-dir", cache)
    assert done.returncode == 1
    assert "registry-mirror token ls" in done.stderr


def test_token_name_is_unique(cache: str) -> None:
    """The message says what to do, and the first token stays."""
    run("token", "create", "ci", "--cache-dir", cache)
    done = run("token", "create", "ci", "--cache-dir", cache)
    assert (done.returncode, done.stdout) == (1, "")
    assert "revoke it first" in done.stderr
    assert len(json.loads(run("token", "ls", "--json", "--cache-dir", cache).stdout)) == 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("a b",), "no name of a token"),
        (("ci", "--expires", "tomorrow"), "must be a time"),
        (("ci", "--expires", "0"), "more than 0"),
        (("ci", "--action", "pus"), "no action"),
        (("ci", "--repository", "alpine"), "<upstream>/<repository>"),
    ],
)
def test_token_create_refuses_wrong_arguments(cache: str, arguments: tuple[str, ...], words: str) -> None:
    """Exit 2, and nothing is created."""
    done = run("token", "create", *arguments, "--cache-dir", cache)
    assert (done.returncode, done.stdout) == (2, "")
    assert words in done.stderr
    assert not (Path(cache) / "tokens").exists()


def test_token_ls_without_tokens(cache: str) -> None:
    """A message says how to create one; JSON is an empty list."""
    assert "registry-mirror token create" in run("token", "ls", "--cache-dir", cache).stderr
    assert run("token", "ls", "--json", "--cache-dir", cache).stdout == "[]\n"


def test_token_needs_a_cache_folder(tmp_path: Path) -> None:
    """Nothing is created where no mirror has its cache."""
    done = run("token", "create", "ci", "--cache-dir", str(tmp_path / "none"))
    assert done.returncode == 1
    assert "there is no cache" in done.stderr
