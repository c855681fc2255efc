"""Parser of the PROXY protocol, versions 1 and 2: who connected to the proxy in front of this server.

The proxy writes a header before the first byte of the connection (haproxy's doc/proxy-protocol.txt):

    PROXY TCP4 192.0.2.7 198.51.100.1 51234 443\\r\\n                   version 1, at most 107 bytes
    signature, command, family, length; addresses; TLVs              version 2, binary

Only the source address is used. A header that names none (LOCAL and UNSPEC, UNKNOWN, a UNIX socket) leaves
the address of the proxy itself, which asks in its own name, for instance for a health check.
"""

import re
import struct
from ipaddress import IPv4Address, IPv6Address

from msgspec import Struct

from mirror.access.policy import parse_address

SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"
LINE_START = b"PROXY "

# Longest header of version 1 with its end of line, by the specification.
LINE_BYTES = 107

# The part of a version 2 header that has the length of the rest, and the longest header that is read: the
# addresses of UNIX sockets take 216 bytes, TLVs with names and a client's certificate some thousand.
FIXED_BYTES, MOST_BYTES = 16, 4096

LOCAL, PROXY = 0, 1

# Length of the addresses, by family; and of the family and transport that TCP has.
ADDRESS_BYTES = {1: 12, 2: 36, 3: 216}
STREAM = 1

PORT = re.compile(r"0|[1-9][0-9]{0,4}")
DOTTED = re.compile(r"[0-9.]{7,15}")
GROUPS = re.compile(r"[0-9a-fA-F:.]{2,45}")


class ProxyHeaderError(ValueError):
    """Bytes that are no PROXY header. The message says why, without the bytes."""


class ProxiedClient(Struct, frozen=True):
    """Address and port of the client that connected to the proxy."""

    address: str
    port: int


def header_length(data: bytes) -> int | None:
    """Return the length of the header with which `data` begins; None if it takes more bytes to tell.

    All of `data` belongs to the header while the result is None. Raises ProxyHeaderError.
    """
    if data.startswith(SIGNATURE[: len(data)]):
        return _binary_length(data)
    if data.startswith(LINE_START[: len(data)]):
        return _line_length(data)
    raise ProxyHeaderError("the connection does not begin with a PROXY header")


def parse_header(header: bytes) -> ProxiedClient | None:
    """Parse a header of the length that `header_length` returned; None if it names no client.

    Raises ProxyHeaderError.
    """
    return _parse_binary(header) if header.startswith(SIGNATURE) else _parse_line(header)


def _line_length(data: bytes) -> int | None:
    end = data.find(b"\n", 0, LINE_BYTES)
    if end >= 0:
        return end + 1
    if len(data) >= LINE_BYTES:
        raise ProxyHeaderError(f"the PROXY line is longer than {LINE_BYTES} bytes")
    return None


def _binary_length(data: bytes) -> int | None:
    if len(data) < FIXED_BYTES:
        return None
    length = FIXED_BYTES + int.from_bytes(data[14:16])
    if length > MOST_BYTES:
        raise ProxyHeaderError(f"the PROXY header is longer than {MOST_BYTES} bytes")
    return length if len(data) >= length else None


def _parse_line(header: bytes) -> ProxiedClient | None:
    if not header.startswith(LINE_START) or not header.endswith(b"\r\n"):
        raise ProxyHeaderError("the PROXY line does not end as it must")
    if header.startswith(b"PROXY UNKNOWN") and header[13:14] in (b" ", b"\r"):
        return None
    try:
        words = header[:-2].decode("ascii").split(" ")
    except UnicodeDecodeError:
        raise ProxyHeaderError("the PROXY line has bytes beyond ASCII") from None
    if len(words) != 6 or words[1] not in ("TCP4", "TCP6"):
        raise ProxyHeaderError("the PROXY line is not PROXY TCP4 or TCP6, two addresses and two ports")
    _, family, source, destination, source_port, destination_port = words
    client = ProxiedClient(_parse_text(family, source), _parse_port(source_port))
    _parse_text(family, destination)
    _parse_port(destination_port)
    return client


def _parse_text(family: str, text: str) -> str:
    form, kind = (DOTTED, IPv4Address) if family == "TCP4" else (GROUPS, IPv6Address)
    try:
        if form.fullmatch(text):
            return str(parse_address(str(kind(text))))
    except ValueError:
        pass
    raise ProxyHeaderError(f"an address in the PROXY line is none of {family}")


def _parse_port(text: str) -> int:
    if not PORT.fullmatch(text) or int(text) > 65535:
        raise ProxyHeaderError("a port in the PROXY line is no number up to 65535")
    return int(text)


def _parse_binary(header: bytes) -> ProxiedClient | None:
    if len(header) < FIXED_BYTES or len(header) != FIXED_BYTES + int.from_bytes(header[14:16]):
        raise ProxyHeaderError("the PROXY header is not as long as it says")
    version, command = header[12] >> 4, header[12] & 15
    if version != 2 or command not in (LOCAL, PROXY):
        raise ProxyHeaderError("the PROXY header is of a version or command that is not known")
    if command == LOCAL:  # what follows is to be ignored, by the specification
        return None
    family, transport = header[13] >> 4, header[13] & 15
    if family == 0 and transport == 0:
        return None
    size = ADDRESS_BYTES.get(family)
    if size is None or transport != STREAM:
        raise ProxyHeaderError("the PROXY header is of a family or transport that is not TCP's")
    if len(header) < FIXED_BYTES + size:
        raise ProxyHeaderError("the PROXY header is too short for its addresses")
    _skip_tlvs(header[FIXED_BYTES + size :])
    return _parse_addresses(family, header[FIXED_BYTES : FIXED_BYTES + size])


def _parse_addresses(family: int, addresses: bytes) -> ProxiedClient | None:
    if family == 1:
        source, port = struct.unpack(">4s4xH2x", addresses)
        return ProxiedClient(str(IPv4Address(source)), port)
    if family == 2:
        source, port = struct.unpack(">16s16xH2x", addresses)
        return ProxiedClient(str(parse_address(str(IPv6Address(source)))), port)
    return None


def _skip_tlvs(rest: bytes) -> None:
    """Check that type-length-value vectors fill `rest`; none of them is used."""
    offset = 0
    while offset < len(rest):
        if offset + 3 > len(rest):
            raise ProxyHeaderError("a TLV of the PROXY header is cut short")
        offset += 3 + int.from_bytes(rest[offset + 1 : offset + 3])
        if offset > len(rest):
            raise ProxyHeaderError("a TLV of the PROXY header is longer than the header")
