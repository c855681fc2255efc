"""Addresses of the public internet, and those that only look like it."""

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mirror.upstream.http.addresses import is_private_address

EMBEDDING = ["::ffff:{}", "::ffff:0:{}", "::{}", "64:ff9b::{}"]


@pytest.mark.parametrize(
    ("address", "private"),
    [
        ("8.8.8.8", False),
        ("1.1.1.1", False),
        ("192.0.1.1", False),
        ("2606:4700::1", False),
        ("2a00:1450::1", False),
        ("192.168.0.1", True),
        ("100.64.0.1", True),
        ("169.254.169.254", True),
        ("192.0.0.192", True),
        ("224.0.0.1", True),
        ("255.255.255.255", True),
        ("fe80::1%eth0", True),
        ("fec0::1", True),
        ("fd00::1", True),
        ("ff02::1", True),
        ("::", True),
        ("::1", True),
        ("64:ff9b:1::808:808", True),
        ("2001::1", True),
        ("2001:db8::1", True),
        ("3fff::1", True),
        ("100::1", True),
        ("5f00::1", True),
        ("2002:a00:1::", True),
        ("2002:7f00:1::1", True),
        ("2002:808:808::1", False),
        *((form.format("8.8.8.8"), False) for form in EMBEDDING),
        *((form.format("10.0.0.1"), True) for form in EMBEDDING),
        *((form.format("127.0.0.1"), True) for form in EMBEDDING),
        *((form.format("169.254.169.254"), True) for form in EMBEDDING),
    ],
)
def test_private_addresses(address: str, private: bool) -> None:
    """Addresses that are not on the public internet count as private, in both families."""
    assert is_private_address(address) is private


@given(st.ip_addresses(v=4), st.sampled_from(EMBEDDING))
def test_embedded_address_decides(ip: ipaddress.IPv4Address, form: str) -> None:
    """An IPv6 address that carries an IPv4 address is as public as that one."""
    assert is_private_address(form.format(ip)) is is_private_address(str(ip))
    assert is_private_address(
        str(ipaddress.IPv6Address(0x2002 << 112 | int(ip) << 80))
    ) is is_private_address(str(ip))


@given(st.ip_addresses())
def test_nothing_private_passes(ip: ipaddress.IPv4Address | ipaddress.IPv6Address) -> None:
    """Loopback, link-local, multicast and unspecified addresses, as Python knows them, are private."""
    if ip.is_loopback or ip.is_link_local or ip.is_multicast or ip.is_unspecified:
        assert is_private_address(str(ip))


def test_text_that_is_no_address() -> None:
    """A name is no address."""
    with pytest.raises(ValueError, match="registry"):
        is_private_address("registry.test")
