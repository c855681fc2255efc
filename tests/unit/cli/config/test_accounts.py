"""Lines of `config check` about accounts."""

import json
from pathlib import Path

from tests.fakes.programs import FakeProgram
from tests.unit.cli.test_app import run


def test_config_check_says_where_accounts_come_from(tmp_path: Path) -> None:
    """One line each, of upstreams and sources, without a secret; the registries are not asked."""
    helper = FakeProgram(tmp_path / "bin", "docker-credential-test")
    helper.knows({"x.test": ("AWS", "geheim")})
    password = tmp_path / "password"
    password.write_text("geheim")
    file = tmp_path / "mirror.toml"
    file.write_text(
        f"[[upstream]]\nname = 'x.test'\nurl = 'http://x.test'\ncredential_helper = 'test'\n"
        f"[[upstream.sources]]\nurl = 'http://s.test'\nusername = 'me'\npassword_file = '{password}'\n"
        f"[[upstream]]\nname = 'docker.io'\nusername = 'me'\npassword = 'geheim'\n"
    )
    env = {"PATH": f"{tmp_path / 'bin'}:/usr/bin:/bin", "REGISTRY_MIRROR_LOGIN_QUAY_IO": "us:geheim"}
    done = run("config", "check", str(file), env=env)
    assert done.returncode == 0
    assert sorted(done.stdout.splitlines()[1:]) == [
        f"docker.io: account me, from file {file}:12",
        "quay.io: account us, from environment REGISTRY_MIRROR_LOGIN_QUAY_IO",
        f"x.test at http://s.test: account me, from password_file {password}",
        "x.test: account AWS, from docker-credential-test get x.test",
    ]
    assert "geheim" not in done.stdout + done.stderr


def test_config_check_notes_accounts_that_are_not_there(tmp_path: Path) -> None:
    """The configuration can be used, so the exit status is 0; a login that nobody uses is named."""
    config = tmp_path / "config.json"
    config.write_text(json.dumps({"auths": {"index.docker.io": {"username": "me", "password": "geheim"}}}))
    file = tmp_path / "mirror.toml"
    file.write_text(
        f"[[upstream]]\nname = 'docker.io'\ndocker_config = '{config}'\n"
        "[[upstream]]\nname = 'x.test'\nurl = 'http://x.test'\ncredential_helper = 'no-such'\n"
    )
    done = run("config", "check", str(file))
    assert done.returncode == 0
    assert done.stdout.splitlines() == [f"{file}: ok"]
    assert "Note: docker.io: no account" in done.stderr
    assert "its login for index.docker.io is used neither by docker nor here" in done.stderr
    assert "Note: x.test: no credentials: docker-credential-no-such is not installed" in done.stderr
    assert "geheim" not in done.stdout + done.stderr
