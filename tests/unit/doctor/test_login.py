"""Accounts as doctor sees them: where each comes from, and whether the registry takes it."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from mirror.config.endpoints import UpstreamSettings
from mirror.doctor.finding import Diagnosis, Severity
from mirror.doctor.registry import examine_registry
from tests.fakes.access import BasicAuth, TokenAuth
from tests.fakes.faults import Fault, oci_error
from tests.fakes.programs import FakeProgram, write_file
from tests.fakes.registry import FakeRegistry


async def examine(fake: FakeRegistry, **values: Any) -> list[Diagnosis]:
    """Return the findings that are about accounts, and see that none has a secret."""
    raw = {"name": "docker.io", "url": fake.url, "attempts": 1, **values}
    settings = await asyncio.to_thread(UpstreamSettings.model_validate, raw)
    findings = await examine_registry(settings)
    assert "geheim" not in str(findings)
    return [each for each in findings if "busybox" not in each.what]


@pytest.fixture
def hub(fake: FakeRegistry) -> FakeRegistry:
    fake.add_image("library/busybox", "latest", [b"layer"])
    fake.auth = TokenAuth(user="me", password="geheim")
    return fake


async def test_account_that_works_is_named_with_its_source(hub: FakeRegistry, tmp_path: Path) -> None:
    """One line for each account, the second too, which a pull would not use."""
    assert isinstance(hub.auth, TokenAuth)
    hub.auth.users["us"] = "geheim2"
    file = tmp_path / "password"
    write_file(file, "geheim")
    second = [{"username": "us", "password": "geheim2"}]
    found = await examine(hub, username="me", password_file=str(file), accounts=second)
    assert [(each.severity, each.what) for each in found] == [
        (Severity.FINE, f"the account me, from password_file {file}, is accepted"),
        (Severity.FINE, "the account us, from password of the configuration, is accepted"),
    ]


@pytest.mark.parametrize("auth", [TokenAuth(user="me", password="x"), BasicAuth("me", "x")])
async def test_account_that_is_refused_is_an_error(hub: FakeRegistry, auth: TokenAuth | BasicAuth) -> None:
    """The registry's way to ask for a password makes no difference."""
    hub.auth = auth
    found = await examine(hub, username="me", password="geheim")
    (refused,) = [each for each in found if "is refused" in each.what]
    assert refused.severity is Severity.ERROR
    assert "correct username and password_file of docker.io" in refused.mend


async def test_account_that_is_not_asked_for_is_fine(hub: FakeRegistry) -> None:
    """An open registry says nothing about a password."""
    hub.auth = None
    (found,) = await examine(hub, username="me", password="geheim")
    assert (found.severity, found.what.rpartition(", ")[2]) == (Severity.FINE, "was not asked for")


async def test_account_refused_with_403_is_an_error(hub: FakeRegistry) -> None:
    """ghcr.io refuses a wrong password so."""
    hub.fault(Fault(status=403, body=oci_error("DENIED", "geheim")), match="/token", times=9)
    found = await examine(hub, username="me", password="geheim")
    assert any("is not accepted" in each.what and each.severity is Severity.ERROR for each in found)


async def test_account_without_credentials_is_told_apart(
    hub: FakeRegistry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A helper that fails is an error, one that has no login a warning."""
    helper = FakeProgram(tmp_path / "bin", "docker-credential-test")
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    helper.says("geheim", status=1)
    (found,) = await examine(hub, credential_helper="test")
    assert (found.severity, "no credentials: docker-credential-test" in found.what) == (Severity.ERROR, True)
    helper.says('{"Username": "", "Secret": ""}')
    (found,) = await examine(hub, credential_helper="test")
    assert (found.severity, found.what.startswith("no account: docker-credential-test has no login")) == (
        Severity.WARNING,
        True,
    )
