"""Host names in one spelling, and which of them are public registries."""

import pytest

from mirror.config.tables import PRECONFIGURED
from mirror.oci.registries import canonical_host, is_public_registry, split_port


@pytest.mark.parametrize(
    ("text", "host"),
    [
        ("Quay.IO", "quay.io"),
        ("registry.lan:5000", "registry.lan:5000"),
        ("[::1]:5000", "[::1]:5000"),
        ("[2001:DB8:0:0::1]", "[2001:db8::1]"),
        ("[::ffff:10.0.0.1]:80", "[::ffff:a00:1]:80"),
        ("[fe80::1%25eth0]", None),
        ("[:::]", None),
        ("[::1", None),
        ("::1", None),
        ("[10.0.0.1]", None),
        ("", None),
        ("a b", None),
        ("a..b", None),
        ("user@quay.io", None),
        ("http://quay.io", None),
        ("quay.io\r\n", None),
        ("a" * 300, None),
    ],
)
def test_canonical_host(text: str, host: str | None) -> None:
    """A host has one spelling, an IPv6 address too; what is no host is None."""
    assert canonical_host(text) == host


@pytest.mark.parametrize(
    ("host", "parts"),
    [
        ("quay.io", ("quay.io", "")),
        ("quay.io:5000", ("quay.io", "5000")),
        ("[::1]", ("[::1]", "")),
        ("[::1]:5000", ("[::1]", "5000")),
    ],
)
def test_port_is_split_off(host: str, parts: tuple[str, str]) -> None:
    """The last group of an IPv6 address is no port."""
    assert split_port(host) == parts


def test_presets_are_public_registries() -> None:
    """Each preconfigured upstream is known by every name that it has, should it be taken out one day."""
    names = {each for name, keys in PRECONFIGURED.items() for each in (name, *keys.get("aliases", ()))}
    assert {name for name in names if not is_public_registry(name)} == set()


@pytest.mark.parametrize(
    "name",
    [
        *("nvcr.io", "us.gcr.io", "europe-docker.pkg.dev", "me.azurecr.io", "me.jfrog.io"),
        *("123456789012.dkr.ecr.eu-west-1.amazonaws.com", "registry.cn-hangzhou.aliyuncs.com"),
    ],
)
def test_registries_of_services_are_public(name: str) -> None:
    """Hosted registries are known by the form of their names."""
    assert is_public_registry(name)


@pytest.mark.parametrize(
    "name",
    [
        *("localhost", "127.0.0.1", "10.1.2.3", "[::1]", "cache.lan", "mirror", "registry", "hub"),
        *("registry-mirror.kube-system.svc.cluster.local", "mirror.example.com", "ghcr.io.lan"),
        *("docker.io.mirror.test", "my-elb-1.eu-west-1.elb.amazonaws.com", "x.mirror.aliyuncs.com"),
        *(
            "evil-quay.io",
            "a.b.azurecr.io",
            "azurecr.io",
            "registry.example.io",
            "docker.mirrors.ustc.edu.cn",
        ),
    ],
)
def test_own_names_are_no_public_registries(name: str) -> None:
    """Names that a mirror can have are not taken for a registry's."""
    assert not is_public_registry(name)
