"""X-Forwarded-For is believed as far as trusted proxies wrote it."""

import pytest

from mirror.access.forwarded import MOST_HOPS, client_address
from mirror.access.rules import parse_network

TRUSTED = (parse_network("10.0.0.0/24"), parse_network("fd00::/64"))


@pytest.mark.parametrize(
    ("peer", "header", "client"),
    [
        ("10.0.0.1", ["192.0.2.7"], "192.0.2.7"),
        ("10.0.0.1", ["192.0.2.7:54321"], "192.0.2.7"),
        ("10.0.0.1", ["2001:db8::7"], "2001:db8::7"),
        ("10.0.0.1", ["[2001:db8::7]:443"], "2001:db8::7"),
        ("10.0.0.1", ["::ffff:192.0.2.7"], "192.0.2.7"),
        ("fd00::1", ["192.0.2.7"], "192.0.2.7"),
        ("::ffff:10.0.0.1", ["192.0.2.7"], "192.0.2.7"),
        # What a client wrote itself stands before what the proxies wrote.
        ("10.0.0.1", ["10.9.9.9, 192.0.2.7"], "192.0.2.7"),
        ("10.0.0.1", ["10.0.0.5, 192.0.2.7"], "192.0.2.7"),
        ("10.0.0.1", ["192.0.2.7, 10.0.0.2"], "192.0.2.7"),
        ("10.0.0.1", ["192.0.2.7", "10.0.0.2"], "192.0.2.7"),
        ("10.0.0.1", ["10.0.0.3, 10.0.0.2"], "10.0.0.3"),
        # Nothing believable: the last address that was.
        ("10.0.0.1", [], "10.0.0.1"),
        ("10.0.0.1", [""], "10.0.0.1"),
        ("10.0.0.1", ["unknown"], "10.0.0.1"),
        ("10.0.0.1", ["192.0.2.7, unknown"], "10.0.0.1"),
        ("10.0.0.1", ["unknown, 10.0.0.2"], "10.0.0.2"),
        ("10.0.0.1", ["192.0.2.7 "], "192.0.2.7"),
        ("10.0.0.1", ["192.0.2.700"], "10.0.0.1"),
        ("10.0.0.1", [":" * 60_000 + "x"], "10.0.0.1"),  # cubic, for a pattern of three parts
        ("10.0.0.1", [", ".join([":" * 79 + "x"] * 32)], "10.0.0.1"),
        ("10.0.0.1", ["2001:db8::7:443:1:2:3:4:5"], "10.0.0.1"),
        ("10.0.0.1", ["fe80::1%eth0"], "fe80::1"),
        # A stranger's header is no word of a proxy.
        ("192.0.2.1", ["10.0.0.9"], "192.0.2.1"),
        ("", ["10.0.0.9"], ""),
    ],
)
def test_client_behind_trusted_proxies(peer: str, header: list[str], client: str) -> None:
    assert client_address(peer, header, TRUSTED) == client


def test_without_trusted_proxies_no_header_is_read() -> None:
    assert client_address("10.0.0.1", ["192.0.2.7"], ()) == "10.0.0.1"


def test_long_header_is_read_from_its_end() -> None:
    """A client can make the header long; the part that the proxies wrote decides."""
    header = ",".join(["10.0.0.2"] * 100_000 + ["192.0.2.7"])
    assert client_address("10.0.0.1", [header], TRUSTED) == "192.0.2.7"
    assert (
        client_address("10.0.0.1", ["192.0.2.7," + ",".join(["10.0.0.2"] * MOST_HOPS)], TRUSTED) == "10.0.0.2"
    )
