"""PROXY headers: both versions by the words of the specification, and everything that is none."""

import socket
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mirror.access.proxy_protocol import (
    MOST_BYTES,
    SIGNATURE,
    ProxiedClient,
    ProxyHeaderError,
    header_length,
    parse_header,
)

V4 = socket.inet_aton("192.0.2.7") + socket.inet_aton("198.51.100.1") + struct.pack(">HH", 51234, 443)
V6 = (
    socket.inet_pton(socket.AF_INET6, "2001:db8::7")
    + socket.inet_pton(socket.AF_INET6, "2001:db8::1")
    + struct.pack(">HH", 51234, 443)
)
UNIX = bytes(216)
TLV = b"\x03\x00\x04abcd"


def binary(command: int, family: int, rest: bytes, length: int | None = None) -> bytes:
    """A header of version 2."""
    size = len(rest) if length is None else length
    return SIGNATURE + bytes([command, family]) + size.to_bytes(2) + rest


def read(data: bytes) -> tuple[ProxiedClient | None, bytes]:
    """The client of the header, and the bytes behind it."""
    length = header_length(data)
    assert length is not None
    return parse_header(data[:length]), data[length:]


@pytest.mark.parametrize(
    ("header", "client"),
    [
        (b"PROXY TCP4 192.0.2.7 198.51.100.1 51234 443\r\n", ProxiedClient("192.0.2.7", 51234)),
        (b"PROXY TCP6 2001:DB8::7 2001:db8::1 51234 443\r\n", ProxiedClient("2001:db8::7", 51234)),
        (b"PROXY TCP6 ::ffff:192.0.2.7 ::1 0 65535\r\n", ProxiedClient("192.0.2.7", 0)),
        (b"PROXY UNKNOWN\r\n", None),
        (b"PROXY UNKNOWN ffff:f...f:ffff ffff:f...f:ffff 65535 65535\r\n", None),
        (binary(0x21, 0x11, V4), ProxiedClient("192.0.2.7", 51234)),
        (binary(0x21, 0x21, V6), ProxiedClient("2001:db8::7", 51234)),
        (binary(0x21, 0x11, V4 + TLV + TLV), ProxiedClient("192.0.2.7", 51234)),
        (binary(0x21, 0x31, UNIX), None),
        (binary(0x21, 0x00, b"what a proxy likes"), None),
        (binary(0x20, 0x00, b""), None),
        (binary(0x20, 0x11, V4), None),
        (binary(0x20, 0xFF, b"\x01"), None),
    ],
)
def test_proxy_header_names_the_client(header: bytes, client: ProxiedClient | None) -> None:
    """The header ends exactly where it says, whatever comes behind it and in however many pieces it comes."""
    rest = b"GET / HTTP/1.1\r\n"
    assert read(header + rest) == (client, rest)
    assert [header_length(header[:end]) for end in range(len(header))] == [None] * len(header)


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        (b"GET / HTTP/1.1\r\n", "does not begin with"),
        (b"\x16\x03\x01", "does not begin with"),
        (b"proxy TCP4 1.2.3.4 1.2.3.4 1 1\r\n", "does not begin with"),
        (b"PROXY TCP4 " + b"1" * 100, "longer than 107"),
        (b"PROXY TCP4 192.0.2.7 198.51.100.1 51234 443\n", "does not end"),
        (b"PROXY UNKNOWN\n", "does not end"),
        (b"PROXY UNKNOWNER\r\n", "is not PROXY TCP4"),
        (b"PROXY\x20\r\n", "is not PROXY TCP4"),
        (b"PROXY TCP5 192.0.2.7 198.51.100.1 51234 443\r\n", "is not PROXY TCP4"),
        (b"PROXY TCP4  192.0.2.7 198.51.100.1 51234 443\r\n", "is not PROXY TCP4"),
        (b"PROXY TCP4 192.0.2.7 198.51.100.1 51234 443 9\r\n", "is not PROXY TCP4"),
        (b"PROXY TCP4 192.0.2.7\t198.51.100.1 51234 443 9\r\n", "none of TCP4"),
        (b"PROXY TCP4 2001:db8::7 198.51.100.1 51234 443\r\n", "none of TCP4"),
        (b"PROXY TCP4 192.0.2.07 198.51.100.1 51234 443\r\n", "none of TCP4"),
        (b"PROXY TCP4 192.0.2.7 198.51.100.300 51234 443\r\n", "none of TCP4"),
        (b"PROXY TCP6 192.0.2.7 2001:db8::1 51234 443\r\n", "none of TCP6"),
        (b"PROXY TCP6 fe80::1%eth0 2001:db8::1 51234 443\r\n", "none of TCP6"),
        (b"PROXY TCP4 192.0.2.7 198.51.100.1 051234 443\r\n", "no number"),
        (b"PROXY TCP4 192.0.2.7 198.51.100.1 65536 443\r\n", "no number"),
        (b"PROXY TCP4 192.0.2.7 198.51.100.1 -1 443\r\n", "no number"),
        (b"PROXY TCP4 192.0.2.7 198.51.100.1 1 x\r\n", "no number"),
        (b"PROXY TCP4 192.0.2.\xb2 198.51.100.1 1 1\r\n", "beyond ASCII"),
        (binary(0x11, 0x11, V4), "version or command"),
        (binary(0x22, 0x11, V4), "version or command"),
        (binary(0x21, 0x12, V4), "family or transport"),
        (binary(0x21, 0x41, V4), "family or transport"),
        (binary(0x21, 0x01, V4), "family or transport"),
        (binary(0x21, 0x11, V4[:-1]), "too short"),
        (binary(0x21, 0x21, V4), "too short"),
        (binary(0x21, 0x11, V4 + b"\x03\x00"), "cut short"),
        (binary(0x21, 0x11, V4 + TLV[:-1]), "longer than the header"),
        (binary(0x21, 0x11, V4, MOST_BYTES), "longer than 4096"),
    ],
)
def test_proxy_header_that_is_none_is_refused(header: bytes, reason: str) -> None:
    """The reason has none of the bytes: they may be anything."""
    with pytest.raises(ProxyHeaderError, match=reason) as error:
        read(header)
    assert "192.0.2" not in str(error.value)


@given(st.binary(max_size=200) | st.binary(max_size=80).map(lambda rest: SIGNATURE + rest))
def test_proxy_header_parser_raises_its_own_error_alone(data: bytes) -> None:
    """Any bytes are a header, or too few to tell, or raise ProxyHeaderError."""
    try:
        length = header_length(data)
        if length is not None:
            assert 0 < length <= len(data)
            parse_header(data[:length])
    except ProxyHeaderError:
        pass
