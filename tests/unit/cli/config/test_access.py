"""`access test` as a process."""

import json
from pathlib import Path

import pytest

from mirror.access.rules import Action
from mirror.access.tokens import TokenEntry
from mirror.store.tokens.token_file import write_tokens
from tests.fakes.cached import open_folder
from tests.unit.cli.test_app import run

pytestmark = pytest.mark.slow

CONFIG = """
[access]
default = "deny"

[[rule]]
name = "no betas"
effect = "deny"
tags = ["*-rc*"]

[[rule]]
name = "office"
effect = "allow"
networks = ["10.0.0.0/8"]
repositories = ["quay.io/*", "docker.io/library/*"]

[[rule]]
name = "team"
effect = "allow"
identities = ["user:alice", "group:ci"]
actions = ["pull"]

[[group]]
name = "ci"
members = ["cert:build*"]
"""


AGED = """
[[rule]]
name = "young"
effect = "deny"
min_age = "3d"
"""


@pytest.mark.parametrize(
    ("flags", "status", "word"),
    [
        (["--age", "2d"], 1, "denied by rule 1 (young)"),
        (["--age", "3d"], 0, "allowed by the default"),
        ([], 0, "allowed by the default"),
        (["--age", "old"], 2, "--age must be a time"),
    ],
)
def test_access_test_judges_an_age(tmp_path: Path, flags: list[str], status: int, word: str) -> None:
    file = tmp_path / "aged.toml"
    file.write_text(AGED)
    done = run("access", "test", "10.1.2.3", "pull", "alpine:3", *flags, "--config", str(file))
    assert done.returncode == status
    assert word in done.stdout + done.stderr


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "mirror.toml"
    path.write_text(CONFIG)
    return path


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (
            ("10.1.2.3", "pull", "quay.io/org/app:1"),
            0,
            "allowed by rule 2 (office), line 10 of the configuration",
        ),
        (("10.1.2.3", "pull", "alpine:3-rc1"), 1, "denied by rule 1 (no betas), line 5 of the configuration"),
        (("10.1.2.3", "list", "alpine"), 0, "allowed by rule 2 (office), line 10 of the configuration"),
        (("192.168.0.1", "pull", "alpine"), 1, "denied by the default of [access]"),
        (
            ("alice", "192.168.0.1", "pull", "alpine"),
            0,
            "allowed by rule 3 (team), line 16 of the configuration",
        ),
        (("bob", "192.168.0.1", "pull", "alpine"), 1, "denied by the default of [access]"),
        (
            ("cert:build7", "bob", "192.168.0.1", "pull", "alpine"),
            0,
            "allowed by rule 3 (team), line 16 of the configuration",
        ),
        (("user:alice", "192.168.0.1", "list", "alpine"), 1, "denied by the default of [access]"),
    ],
)
def test_access_test_names_the_rule_and_its_line(
    file: Path, arguments: tuple[str, ...], status: int, said: str
) -> None:
    done = run("access", "test", *arguments, "--config", str(file))
    assert (done.returncode, done.stdout) == (status, f"{said}\n")


def test_access_test_prints_json(file: Path) -> None:
    done = run("access", "test", "10.1.2.3", "pull", "alpine:3-rc1", "--config", str(file), "--json")
    assert json.loads(done.stdout) == {
        "decision": "denied",
        "rule": 1,
        "name": "no betas",
        "line": 5,
        "limited": None,
        "only_public": False,
    }


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A cache with three tokens: one for a repository, one for an action, one that has expired."""
    path = tmp_path_factory.mktemp("tokens") / "cache"
    folder = open_folder(path)
    entries = [
        TokenEntry("app", "a" * 64, 0.0, repositories=("quay.io/org/app",)),
        TokenEntry("puller", "b" * 64, 0.0, actions=(Action.PULL,)),
        TokenEntry("late", "c" * 64, 0.0, expires=1.0),
    ]
    write_tokens(path / "tokens", entries)
    folder.close()
    return str(path)


@pytest.mark.parametrize(
    ("token", "action", "image", "status", "said"),
    [
        ("app", "pull", "quay.io/org/app:1", 0, "allowed by rule 2 (office), line 10 of the configuration"),
        ("app", "pull", "quay.io/org/other:1", 1, "denied by the limits of token:app"),
        ("puller", "list", "alpine", 1, "denied by the limits of token:puller"),
        ("puller", "pull", "ghcr.io/x", 1, "denied by the default of [access]"),
        ("late", "pull", "alpine", 1, "denied by the limits of token:late: it has expired"),
        (
            "gone",
            "pull",
            "alpine",
            1,
            "there is no token 'gone'; the tokens there are: registry-mirror token ls",
        ),
    ],
)
def test_access_test_knows_what_a_token_restricts(
    file: Path, cache: str, token: str, action: str, image: str, status: int, said: str
) -> None:
    """The rules allow no more than the token itself does, and the token no more than the rules."""
    flags = ("--token", token, "--config", str(file), "--cache-dir", cache)
    done = run("access", "test", "10.1.2.3", action, image, *flags)
    assert (done.returncode, said in done.stdout + done.stderr) == (status, True), done.stdout + done.stderr


def test_access_test_gives_a_token_what_rules_give_its_principal(tmp_path: Path, cache: str) -> None:
    """A group of the configuration has the token, too; JSON says what has decided."""
    file = tmp_path / "mirror.toml"
    file.write_text(CONFIG.replace("cert:build*", "token:p*"))
    flags = ("--token", "puller", "--config", str(file), "--cache-dir", cache, "--json")
    done = json.loads(run("access", "test", "192.168.0.1", "pull", "ghcr.io/x/y", *flags).stdout)
    assert (done["decision"], done["rule"], done["limited"]) == ("allowed", 3, None)
    done = json.loads(run("access", "test", "192.168.0.1", "list", "ghcr.io/x/y", *flags).stdout)
    assert (done["decision"], done["rule"], done["limited"]) == ("denied", None, "token:puller")


ACCOUNT = """
[[upstream]]
name = "quay.io"
username = "me"
password = "secret"

[[rule]]
name = "all of quay.io"
effect = "allow"
repositories = ["quay.io/*"]
"""


@pytest.mark.parametrize(
    ("address", "image", "only_public"),
    [
        ("192.168.0.1", "quay.io/org/app", True),
        ("10.1.2.3", "quay.io/org/app", False),
        ("10.1.2.3", "alpine", False),
    ],
)
def test_access_test_tells_what_is_private(file: Path, address: str, image: str, only_public: bool) -> None:
    """No rule names the first client, and docker.io has no account."""
    file.write_text(CONFIG + ACCOUNT)
    done = run("access", "test", address, "pull", image, "--config", str(file))
    assert (done.returncode, "but only if it is public at quay.io" in done.stdout) == (0, only_public)
    done = run("access", "test", address, "pull", image, "--config", str(file), "--json")
    assert json.loads(done.stdout)["only_public"] is only_public


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("10.1.2", "pull", "alpine"), "'10.1.2' is not an address"),
        (("alice", "pull", "alpine"), "'alice' is not an address"),
        (("10.1.2.3", "pus", "alpine"), "'pus' is no action: there are pull, list, push, delete, admin"),
        (("10.1.2.3", "pull", "quay.io/*"), "'quay.io/*' is a pattern: name one image"),
    ],
)
def test_access_test_refuses_what_it_cannot_judge(file: Path, arguments: tuple[str, ...], said: str) -> None:
    done = run("access", "test", *arguments, "--config", str(file))
    assert done.returncode == 2
    assert said in done.stderr
