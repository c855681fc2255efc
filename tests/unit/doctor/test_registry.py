"""Answers of a registry about an image: found, refused, counted, redirected."""

from pathlib import Path

import pytest

from mirror.config.endpoints import UpstreamSettings
from mirror.config.types import SecretStr
from mirror.doctor.finding import Diagnosis, Severity
from mirror.doctor.registry import examine_registry
from mirror.oci.manifest import OCI_INDEX
from tests.fakes.access import TokenAuth
from tests.fakes.limit import RateLimit
from tests.fakes.registry import FakeRegistry


@pytest.fixture
def hub(fake: FakeRegistry) -> FakeRegistry:
    fake.add_image("library/busybox", "latest", [b"layer"])
    fake.auth = TokenAuth()
    return fake


def settings(fake: FakeRegistry, **values: object) -> UpstreamSettings:
    return UpstreamSettings(name="docker.io", url=fake.url, attempts=1, **values)  # type: ignore[arg-type]


def bad(findings: list[Diagnosis]) -> list[Diagnosis]:
    return [each for each in findings if each.severity is not Severity.FINE]


async def test_registry_that_works_is_fine(hub: FakeRegistry) -> None:
    """Token, manifest and one byte of a blob are fetched; the host of the blobs is told."""
    hub.cdn = True
    (found,) = await examine_registry(settings(hub))
    assert (found.severity, found.what) == (
        Severity.FINE,
        "library/busybox:latest is found, its blobs come from 127.0.0.1",
    )
    assert hub.cdn_requests("GET") == 1


async def test_registry_of_an_index_reads_a_child(hub: FakeRegistry) -> None:
    """The config of the first platform is read, of an image for several."""
    image = hub.add_image("library/busybox", None, [b"x"])
    child = f'{{"digest": "{image.manifest}", "size": 1}}'
    index = f'{{"schemaVersion": 2, "mediaType": "{OCI_INDEX}", "manifests": [{child}]}}'
    hub.add_manifest("library/busybox", index.encode(), OCI_INDEX, tag="latest")
    assert bad(await examine_registry(settings(hub))) == []
    assert hub.requests("GET", image.config) == 1


@pytest.mark.parametrize(
    ("used", "severity", "left"),
    [(0, Severity.FINE, "99"), (80, Severity.WARNING, "19"), (95, Severity.ERROR, "4")],
)
async def test_rate_limit_left(hub: FakeRegistry, used: int, severity: Severity, left: str) -> None:
    """The number that is left, and whom the registry counts, which is an address that others share."""
    hub.limit = RateLimit(100)
    hub.limit.used[""] = used
    found = (await examine_registry(settings(hub)))[-1]
    assert found.severity is severity
    assert found.what == (
        f"{left} of 100 pulls in 6 hours are left, counted by the address 203.0.113.7, "
        "which everybody behind it shares"
    )


async def test_rate_limit_that_is_used_up(hub: FakeRegistry) -> None:
    """A 429 is an error that an account mends."""
    hub.limit = RateLimit(0)
    found = bad(await examine_registry(settings(hub)))
    assert {each.severity for each in found} == {Severity.ERROR}
    assert any("username and password_file" in each.mend for each in found)


async def test_password_that_is_refused(hub: FakeRegistry) -> None:
    """The account is named, its password never."""
    assert isinstance(hub.auth, TokenAuth)
    hub.auth.user, hub.auth.password = "me", "right"
    found = bad(
        await examine_registry(
            settings(hub, username="me", password=SecretStr("wrong-one"), realms=(hub.url,))
        )
    )
    assert any(
        "the password of me, from password of the configuration, is refused" in each.what for each in found
    )
    assert "wrong-one" not in repr(found)


async def test_image_that_the_operator_asks_for_must_be_there(hub: FakeRegistry) -> None:
    """A usual image that a registry lacks is no fault; one that was named is."""
    assert bad(await examine_registry(settings(hub), "library/busybox:latest")) == []
    (missing,) = bad(await examine_registry(settings(hub), "library/none:1"))
    assert (missing.severity, missing.mend) == (Severity.ERROR, "look at the name and the tag")
    hub.repository("library/busybox").tags.clear()
    assert bad(await examine_registry(settings(hub))) == []


async def test_blobs_of_another_host_that_cannot_be_reached(hub: FakeRegistry) -> None:
    """The redirect is followed: a firewall that allows the registry alone is found out."""
    hub.location = "http://127.0.0.1:1/blob"
    (found,) = bad(await examine_registry(settings(hub)))
    assert found.what.startswith("the blobs of library/busybox:latest cannot be read")
    assert "firewall" in found.mend


async def test_registry_below_a_prefix(fake: FakeRegistry, tmp_path: Path) -> None:
    """The prefix of another registry's project is in front of the repository."""
    fake.add_image("proxy/library/busybox", "latest", [b"layer"])
    (found,) = await examine_registry(settings(fake, prefix="proxy"))
    assert found.severity is Severity.FINE
    assert fake.requests("HEAD", "proxy/library/busybox") == 1
